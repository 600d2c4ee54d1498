"""The document and the daemon say the same: what is made up from the one is answered by the other as it says.

Schemathesis makes it up: the examples, the boundaries of every schema and what lies beyond, and some at random; the
same in every run. What it would do to this machine is seen to by `support.harmless`.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import schemathesis
import trio
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineFinished, FatalError, NonFatalError, ScenarioFinished

from sandbox_http.openapi import OPERATIONS
from sandbox_http.openapi.document import make_document
from support.daemon import running
from support.harmless import open_world
from support.upstreams import upstream
from support.wire import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from schemathesis.engine.recorder import ScenarioRecorder

    from support.daemon import Daemon

Json: TypeAlias = Any

CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)

NOT_JUDGED: dict[str, tuple[str, ...]] = {
    # What is passed on is the application's to judge, methods that nobody knows included.
    "^/v1/ports/.*/proxy": ("negative_data_rejection", "unsupported_method"),
    # Envelopes are the agent's to judge; and parameters of the WebSocket say nothing to who asks for events.
    "^/(v1/acp/|acp$)": ("negative_data_rejection",),
}

OPEN = ("Entry", "JsonRpcEnvelope", "JsonRpcResponse", "Problem")
"""Schemas of what may have more members than they name: `Entry` is a part of another."""

SOCKETS = {"GET /v1/processes/{id}/terminal/ws"}
"""Where nothing comes that is no problem: it is a WebSocket and nothing else."""

NO_TOKENS = {"POST /v1/tokens", "POST /v1/tokens/{name}/rotate", "DELETE /v1/tokens/{name}"}
"""What a daemon refuses that has none."""

ALL_BUT_INIT = "^(?!/v1/init$)"
"""It is there while a daemon waits, and not again."""

SESSIONS = "^/(v1/(sessions|tokens|tickets)|acp$)"

HEADER_MORE = "in header - object with unexpected properties"
"""How a request is told that is wrong by nothing but a header which nobody knows: no server minds those."""

ENDLESS = ("/v1/acp/{server_id}", "/v1/fs/watch", "/v1/sessions/{id}/events", "/acp")
"""Streams of which only the first event is waited for."""

CONFIG: Json = {
    "seed": 1,
    "cache": {"enabled": False},
    "suppress-health-check": ["all"],
    "request-timeout": 10,
    "generation": {"deterministic": True, "database": "none", "max-examples": 2, "no-shrink": True},
    "analysis": {"constants": {"enabled": False}},
    "phases": {"stateful": {"enabled": False}, "coverage": {"unexpected-methods": ["patch"]}},
    "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
    "operations": [
        {"include-path-regex": path, "checks": {name: {"enabled": False} for name in names}}
        for path, names in NOT_JUDGED.items()
    ]
    + [{"include-path": path, "include-method": "GET", "max-stream-events": 1} for path in ENDLESS],
}


class Findings:
    """What came of all requests.

    Attributes:
      labels: the operations, each a method and a path.
      statuses: how often each was answered with each status.
      wrong: what is not as the document says.
    """

    def __init__(self) -> None:
        self.labels: set[str] = set()
        self.statuses: dict[str, Counter[int]] = {}
        self.wrong: list[str] = []

    def add(self, recorder: ScenarioRecorder) -> None:
        self.labels.add(recorder.label)
        for id, interaction in recorder.interactions.items():
            case = recorder.cases[id].value
            if (response := interaction.response) is None:
                self.wrong.append(f"no answer: {case.as_curl_command()}")
                continue
            # Beside the requests of an operation there are some by other methods.
            self.statuses.setdefault(f"{case.method} {case.path}", Counter())[response.status_code] += 1
            if response.status_code == 500 and b"error:internal_error" in response.content:
                self.wrong.append(f"a bug of ours: {case.as_curl_command()}")
        told = [check.failure_info for checks in recorder.checks.values() for check in checks if check.failure_info]
        failed = [one for one in told if HEADER_MORE not in one.failure.message]
        self.wrong += [
            f"{recorder.label}: {one.failure.title}: {one.failure.message}\n{one.code_sample}" for one in failed
        ]


def put_to_the_test(daemon: Daemon, document: Json, paths: str, **more: Json) -> Findings:
    """Blocks, for as long as all of it takes.

    Args:
      paths: an expression for those that are tried.
      more: of the configuration.
    """
    document["paths"] = {path: told for path, told in document["paths"].items() if re.search(paths, path)}
    close(document)
    config = schemathesis.Config.from_dict({**CONFIG, **more, "headers": daemon.headers, "base-url": daemon.url})
    findings = Findings()
    for event in from_schema(schemathesis.openapi.from_dict(document, config=config)).execute():
        if isinstance(event, ScenarioFinished):
            findings.add(event.recorder)
        elif isinstance(event, NonFatalError):
            findings.wrong.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, FatalError):
            findings.wrong.append(repr(event.exception))
        elif isinstance(event, EngineFinished):
            findings.wrong += map(repr, event.failures)
    return findings


def close(document: Json) -> None:
    """Have every member that an answer has, and that is not described, count as wrong."""
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    schemas = document["components"]["schemas"]
    taken = named_in([operation.get("requestBody") for operation in operations], schemas)
    close_schemas([operation["responses"] for operation in operations])
    close_schemas([schema for name, schema in schemas.items() if name not in OPEN and name not in taken])


def named_in(value: Json, schemas: Json) -> set[str]:
    """The names of all schemas that this points to, or that those do."""
    if isinstance(value, list):
        return set().union(*(named_in(one, schemas) for one in value))
    if not isinstance(value, dict):
        return set()
    name = str(value.get("$ref", "")).rpartition("/")[2]
    return named_in([*value.values()], schemas) | ({name} | named_in(schemas[name], schemas) if name else set())


def close_schemas(value: Json) -> None:
    if isinstance(value, list):
        for one in value:
            close_schemas(one)
    elif isinstance(value, dict):
        if "properties" in value and "$ref" not in value:
            value.setdefault("additionalProperties", False)
        close_schemas([member for name, member in value.items() if name != "allOf"])  # of which each is a part


async def document_of(daemon: Daemon) -> Json:
    return (await exchange(daemon.port, "GET", "/openapi.json", daemon.headers)).json


@asynccontextmanager
async def open_daemon(tmp_path: Path, *options: str, **environment: str) -> AsyncGenerator[Daemon]:
    """A daemon and the world that examples speak of, for as long as the block runs; nothing may go wrong in it."""
    home = tmp_path / "home"
    home.mkdir()
    options = ("--offline", "--fs-root", str(tmp_path), "--request-timeout-ms", "300", *options)
    # No agents but the built-in one: those that are asked what they are might ask others.
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", **environment}

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1 << 16)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi")

    async with upstream(serve) as port, running(tmp_path / "daemon", *options, **environment) as daemon:
        with open_world(home, daemon, port):
            yield daemon
        assert "unexpectedly" not in daemon.said


async def test_the_daemon_answers_as_its_document_says(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        findings = await trio.to_thread.run_sync(put_to_the_test, daemon, await document_of(daemon), ALL_BUT_INIT)
        assert not findings.wrong, "\n".join(findings.wrong)
        for label in findings.labels - SOCKETS:
            assert any(200 <= status < 400 for status in findings.statuses[label]), label


async def test_so_does_one_without_a_token_about_all_that_has_to_do_with_sessions(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "--no-token", SANDBOX_AGENT_TOKEN="") as daemon:
        # Whoever is let in is answered in the same way: the boundaries of every schema need not be tried again.
        few = {**CONFIG["phases"], "coverage": {"enabled": False}}
        put = partial(put_to_the_test, daemon, await document_of(daemon), SESSIONS, phases=few)
        findings = await trio.to_thread.run_sync(put)
        assert not findings.wrong, "\n".join(findings.wrong)
        assert findings.labels > NO_TOKENS
        for label in findings.labels:
            succeeded = any(200 <= status < 400 for status in findings.statuses[label])
            assert succeeded != (label in NO_TOKENS), label


async def test_one_that_waits_refuses_what_makes_no_sense_until_the_example_opens_it(tmp_path: Path) -> None:
    document = msgspec.json.decode(msgspec.json.encode(make_document(OPERATIONS)))
    example = document["paths"]["/v1/init"]["post"]["requestBody"]["content"]["application/json"]["example"]
    mistakes = {
        "generation": {**CONFIG["generation"], "mode": "negative"},
        "phases": {**CONFIG["phases"], "examples": {"enabled": False}},
        # Until then it knows of no method that it would take.
        "checks": {**CONFIG["checks"], "unsupported_method": {"enabled": False}},
    }
    async with running(tmp_path, "--no-token", "--await-init", SANDBOX_AGENT_TOKEN="") as daemon:
        put = partial(put_to_the_test, daemon, document, "^/v1/(init|health|tickets)$", **mistakes)
        findings = await trio.to_thread.run_sync(put)
        assert not findings.wrong, "\n".join(findings.wrong)
        assert {*findings.statuses["POST /v1/init"]} == {400, 415, 422}
        assert {*findings.statuses["POST /v1/tickets"]} == {503}
        headers = {"Content-Type": "application/json"}
        opened = await exchange(daemon.port, "POST", "/v1/init", headers, msgspec.json.encode(example))
        assert (opened.status, opened.json) == (200, {"status": "initialized"})
