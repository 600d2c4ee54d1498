"""The document of the API: every route is in it and nothing else, and tools can read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import validate

from sandbox_http.openapi import OPERATIONS
from sandbox_http.openapi.document import make_document
from sandbox_http.openapi.operation import Answer, Operation, Shape, Trouble
from sandbox_http.openapi.schema import TEXT, items, record
from sandbox_http.problems import TABLE
from sandbox_http.scopes import EVERY, PUBLIC, needed
from support.serving import TOKEN, routes, serving
from support.wire import exchange

if TYPE_CHECKING:
    from pathlib import Path

Json: TypeAlias = Any

SOCKETS_ONLY = {"viewTerminal"}
"""What is there by a handshake alone."""

PREFIX = "/v1/ports/{port}/proxy"
"""What is passed on is no route of the application: a layer before it takes it."""


@pytest.fixture(scope="module")
def document() -> Json:
    return msgspec.json.decode(msgspec.json.encode(make_document(OPERATIONS)))


def described(document: Json, *, sockets: bool) -> set[tuple[str, str]]:
    """Methods and paths, the names of parameters left out: those in the code and those for clients may differ."""
    return {
        (method, re.sub("{[^}]*}", "{}", path))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if not path.startswith(PREFIX)
        and ("101" in operation["responses"] if sockets else operation["operationId"] not in SOCKETS_ONLY)
    }


def test_every_route_is_described_and_every_description_has_a_route(document: Json, tmp_path: Path) -> None:
    every = routes(tmp_path, initialized=True)  # this one has them all
    paths = {route: re.sub("<[^>]*>", "{}", route.template) for route in every}
    served = {
        (method.lower(), paths[route])
        for route in every
        for method in route.methods
        if method != "HEAD" or "GET" not in route.methods
    }
    assert described(document, sockets=False) == served
    assert described(document, sockets=True) == {("get", paths[route]) for route in every if route.websocket}


def test_what_is_passed_on_to_ports_is_described_for_every_method(document: Json) -> None:
    methods = set(document["paths"][f"{PREFIX}/{{path}}"])
    assert methods == {"get", "head", "post", "put", "patch", "delete", "options"}
    assert "101" in document["paths"][f"{PREFIX}/{{path}}"]["get"]["responses"]


def test_tools_find_nothing_wrong_with_it(document: Json) -> None:
    validate(document)


def test_parts_of_the_path_are_parameters_and_the_other_way_round(document: Json) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            parts = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert parts == set(re.findall("{([^}]*)}", path)), operation["operationId"]


def test_every_schema_and_response_with_a_name_is_pointed_to(document: Json) -> None:
    pointed_to = set(re.findall(rb'"\$ref":"(#[^"]*)"', msgspec.json.encode(document)))
    components = document["components"]
    named = {f"#/components/{kind}/{name}".encode() for kind in ("schemas", "responses") for name in components[kind]}
    assert pointed_to == named


def test_problems_have_the_types_of_the_table_and_each_status_some_of_them(document: Json) -> None:
    types = {f"urn:sandbox-agent:error:{name}" for name in TABLE}
    assert set(document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]) == types
    for response in document["components"]["responses"].values():
        schema = response["content"]["application/problem+json"]["schema"]
        assert schema["$ref"] == "#/components/schemas/Problem"
        assert set(schema["properties"]["type"]["enum"]) < types


def test_nothing_is_without_a_token_but_the_name_of_the_server_and_what_gives_it_one(document: Json) -> None:
    free = {
        path for path, methods in document["paths"].items() for one in methods.values() if one.get("security") == []
    }
    assert free == {"/", "/v1/init"}
    assert document["security"][0] == {}  # a server on loopback may have no token
    assert {name for one in document["security"] for name in one} == set(document["components"]["securitySchemes"])


def test_each_operation_names_the_scope_that_its_token_needs_and_the_problem_of_one_that_has_another(
    document: Json,
) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            need = needed(method.upper(), path)
            ways = operation.get("security", document["security"])
            scopes = {scope for way in ways for told in way.values() for scope in told}
            assert scopes == (set() if need in (PUBLIC, EVERY) else need), operation["operationId"]
            types = types_of(document, operation)
            assert ("token_invalid" in types) == (need != PUBLIC or path == "/v1/init"), operation["operationId"]
            if need not in (PUBLIC, EVERY):
                assert "forbidden_scope" in types, operation["operationId"]
            if need == PUBLIC:
                assert "forbidden_scope" not in types, operation["operationId"]


def test_a_socket_that_needs_another_scope_than_its_path_says_so(document: Json) -> None:
    events = document["paths"]["/v1/sessions/{id}/events"]["get"]
    assert events["security"][1] == {"bearer": ["read"]}
    assert events["x-websocket"].endswith("The token needs the scope prompt.")
    assert "scope" not in document["paths"]["/v1/fs/watch"]["get"]["x-websocket"]


def test_what_a_daemon_answers_that_waits_for_its_token_is_described_for_all_but_the_two_it_serves(
    document: Json,
) -> None:
    early = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "awaiting_init" not in types_of(document, operation)
    }
    assert early == {"health", "initialize"}


def types_of(document: Json, operation: Json) -> set[str]:
    """The names of the problems that an operation may answer with."""
    names: set[str] = set()
    for response in operation["responses"].values():
        told = resolved(document, response).get("content", {}).get("application/problem+json")
        if told is not None:
            names |= {type.rpartition(":")[2] for type in told["schema"]["properties"]["type"]["enum"]}
    return names


def resolved(document: Json, response: Json) -> Json:
    return document["components"]["responses"][response["$ref"].rpartition("/")[2]] if "$ref" in response else response


def test_what_is_told_of_structs_is_nothing_out_of_their_docstrings(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert not name.startswith("_")
        assert "Attributes:" not in schema.get("description", "")


def test_two_operations_with_one_name_are_refused() -> None:
    one = Operation("get", "/a", "same", "tag", "One", (Answer(204, "Done."),))
    other = Operation("get", "/b", "same", "tag", "Another", (Answer(204, "Done."),))
    with pytest.raises(ValueError, match=r"get /b \(same\) is described twice"):
        make_document([one, other])


def test_two_schemas_with_one_name_are_refused() -> None:
    shapes = Shape("Same", record({"a": TEXT})), Shape("Same", record({"b": TEXT}))
    answers = tuple(Answer(200 + n, "Both.", {"application/json": items(shape)}) for n, shape in enumerate(shapes))
    with pytest.raises(ValueError, match="two schemas are called Same"):
        make_document([Operation("get", "/", "id", "tag", "One", answers)])


def test_a_problem_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError, match="no_such"):
        make_document([Operation("get", "/", "id", "tag", "One", (), (Trouble("no_such"),))])


async def test_the_document_is_served_to_who_has_the_token(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        refused = await exchange(daemon.port, "GET", "/openapi.json")
        assert (refused.status, refused.json["type"]) == (401, "urn:sandbox-agent:error:token_invalid")
        told = await exchange(daemon.port, "GET", "/openapi.json", daemon.headers)
        assert told.status == 200
        assert told.headers["content-type"] == "application/json"
        assert told.json == msgspec.json.decode(msgspec.json.encode(make_document(OPERATIONS)))
        head = await exchange(daemon.port, "HEAD", "/openapi.json", daemon.headers)
        assert (head.status, head.body) == (200, b"")


async def test_every_line_of_a_search_is_as_described(document: Json, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "poem.txt").write_text("a rose\nis a rose\n")
    async with serving(tmp_path) as daemon:
        for name, target in (("find", "glob=*.txt"), ("grep", "pattern=rose")):
            answers = document["paths"][f"/v1/fs/{name}"]["get"]["responses"]["200"]["content"]
            schema = {**answers["application/x-ndjson"]["schema"], "components": document["components"]}
            judge = jsonschema_rs.Draft202012Validator(schema)
            path = f"/v1/fs/{name}?path={tmp_path}/tree&{target}"
            told = await exchange(daemon.port, "GET", path, {"Accept": "application/x-ndjson"})
            lines = [msgspec.json.decode(line) for line in told.body.splitlines()]
            assert {line["type"] for line in lines} == {"begin", "entry" if name == "find" else "match", "end"}
            for line in lines:
                judge.validate(line)
            assert not judge.is_valid({**lines[1], "path": None})


async def test_the_document_says_nothing_of_the_machine_it_comes_from(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        told = await exchange(daemon.port, "GET", "/openapi.json", daemon.headers)
        assert TOKEN.encode() not in told.body
        assert str(tmp_path).encode() not in told.body
