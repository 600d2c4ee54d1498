"""The document: every operation in OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from ..scopes import EVERY, PUBLIC, WEBSOCKET, needed
from .components import Components
from .operation import Trouble
from .problems import PROBLEM, responses_of
from .troubles import EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sandbox_actors.envelope import Json

    from ..scopes import ScopeName
    from .operation import Answer, Body, Content, Operation, Parameter

__all__ = ["make_document"]

DESCRIPTION = """\
Coding agents in a sandbox: sessions, files, processes, terminals, ports and git over HTTP.

- Every `GET` but those behind a port may also be a `HEAD`.
- Errors are `application/problem+json` (RFC 9457); `type` is one of those of the schema `Problem`. A request that is no
  HTTP, and one to a path or by a method that is not here, is 400, 404 or 405.
- Of `text/event-stream` and `application/x-ndjson` the schema is that of one event, or one line. Comments in streams
  say that they are alive.
- An operation with the response 101 is a WebSocket where the request is a handshake; what is spoken stands in
  `x-websocket`. Without a handshake it answers as its other responses say.
- Beside each way to give a token stands the scope that it needs, of `read`, `prompt`, `exec` and `admin`; where none
  stands, any token will do. A server without a token asks for none.
- A server that was started with `--await-init` answers 503 `awaiting_init` until it got `POST /v1/init`.
- Clients of the public 0.4 wire are served unchanged. Answers may get more members at any time."""

SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token, where the server has one."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Sandbox-Agent-Token",
        "description": "The same, where something on the way uses `Authorization` for itself.",
    },
}

TOKEN_NEEDED = Trouble("token_invalid")
OTHER_TOKEN_NEEDED = Trouble("forbidden_scope")
AWAITING_INIT = Trouble("awaiting_init")


def make_document(operations: Sequence[Operation]) -> dict[str, Json]:
    """The document of these operations.

    Raises:
      ValueError: two of them have the same id, or the same method and path, or two schemas the same name.
    """
    components = Components()
    components.schema(PROBLEM)
    responses: dict[str, Json] = {}
    paths: dict[str, dict[str, Json]] = {}
    ids: set[str] = set()
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        if operation.method in methods or operation.id in ids:
            raise ValueError(f"{operation.method} {operation.path} ({operation.id}) is described twice")
        ids.add(operation.id)
        methods[operation.method] = _operation(operation, components, responses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sandbox Agent",
            "version": version("trio-sandbox-agent"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": _security(EVERY),
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.schemas.items())),
            "responses": dict(sorted(responses.items())),
            "securitySchemes": SECURITY,
        },
    }


def _operation(operation: Operation, components: Components, responses: dict[str, Json]) -> dict[str, Json]:
    told: dict[str, Json] = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        told["description"] = operation.description
    need = needed(operation.method.upper(), operation.path)
    if need != EVERY:
        told["security"] = _security(need)
    if operation.parameters:
        told["parameters"] = [_parameter(parameter, components) for parameter in operation.parameters]
    if operation.body is not None:
        told["requestBody"] = _body(operation.body, components)
    answers: dict[str, Json] = {}
    if operation.socket:
        told["x-websocket"] = operation.socket + _other_scope(operation.path, need)
        answers["101"] = {"description": "The WebSocket is open."}
    for answer in operation.answers:
        answers["default" if answer.status is None else str(answer.status)] = _answer(answer, components)
    troubles = (*EVERYWHERE, *operation.troubles, *_refusals(operation, need))
    answers |= _problems(troubles, responses, alone="default" not in answers)
    told["responses"] = dict(sorted(answers.items()))
    return told


def _security(need: frozenset[ScopeName]) -> list[Json]:
    """Who may come in; a server on loopback may have no token. OpenAPI 3.1 takes what a token is good for as roles."""
    if need == PUBLIC:
        return []
    scopes = [] if need == EVERY else sorted(need)
    return [{}, *({name: scopes} for name in SECURITY)]


def _other_scope(path: str, need: frozenset[ScopeName]) -> str:
    others = needed(WEBSOCKET, path)
    return "" if others == need else f" The token needs the scope {' or '.join(sorted(others))}."


def _refusals(operation: Operation, need: frozenset[ScopeName]) -> list[Trouble]:
    """Of whoever comes without the token that is needed, or too early."""
    troubles = [] if need == PUBLIC else [TOKEN_NEEDED]
    if need not in (PUBLIC, EVERY):
        troubles.append(OTHER_TOKEN_NEEDED)
    return troubles if operation.early else [*troubles, AWAITING_INIT]


def _parameter(parameter: Parameter, components: Components) -> dict[str, Json]:
    told: dict[str, Json] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.summary,
        "schema": components.schema(parameter.schema),
    }
    if parameter.required:
        told["required"] = True
    if parameter.example is not None:
        told["example"] = parameter.example
    return told


def _body(body: Body, components: Components) -> dict[str, Json]:
    content = _content(body.content, components)
    if body.example is not None:
        for kind in content.values():
            kind["example"] = body.example
    told: dict[str, Json] = {"required": body.required, "content": content}
    return {"description": body.summary, **told} if body.summary else told


def _answer(answer: Answer, components: Components) -> dict[str, Json]:
    told: dict[str, Json] = {"description": answer.summary}
    if answer.headers:
        told["headers"] = {
            name: {"description": summary, "schema": {"type": "string"}} for name, summary in answer.headers.items()
        }
    if answer.content:
        told["content"] = _content(answer.content, components)
    return told


def _content(content: Content, components: Components) -> dict[str, dict[str, Json]]:
    return {kind: {} if schema is None else {"schema": components.schema(schema)} for kind, schema in content.items()}


def _problems(troubles: Iterable[Trouble], responses: dict[str, Json], *, alone: bool) -> dict[str, Json]:
    """By status, the responses.

    Args:
      alone: whether nobody but the daemon answers by these statuses.
    """
    told: dict[str, Json] = {}
    for status, (name, response) in responses_of(troubles).items():
        if alone:
            responses[name] = response
            told[str(status)] = {"$ref": f"#/components/responses/{name}"}
        else:
            told[str(status)] = {**response, "content": {**response["content"], "*/*": {}}}
    return told
