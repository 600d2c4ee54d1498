"""The log: what happened and to whom; never what was said, never a secret, never a line that a client wrote.

That it holds up nobody is tested in `test_log_output`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.redaction import Redactor
from sandbox_http.logs import hide, redact
from support.clients import Session
from support.command import started
from support.wire import WebSocket, exchange, exchange_bytes, request_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import Server

SECRET = "canary-5b1f2e"
SAID = "canary-8d7a31"
WITHIN = 40
JSON = {"Content-Type": "application/json"}
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LOGFMT = re.compile(r'timestamp=20\S+ level=\w+ event=("[^"\\]*"|\w+)( \w+=("([^"\\]|\\.)*"|[^\s"]*))*')


@pytest.mark.parametrize(
    "name",
    ["token", "TOKEN", "access_token", "secret", "client_secret", "password", "Authorization", "cookie", "api_key"],
)
def test_what_is_named_like_a_secret_is_not_told(name: str) -> None:
    assert redact(None, "info", {name: SECRET, "path": "/v1"}) == {name: "[redacted]", "path": "/v1"}


def test_whether_there_is_a_token_may_be_told() -> None:
    assert redact(None, "info", {"token": True, "monkey": "x"}) == {"token": True, "monkey": "x"}


def test_a_known_secret_is_taken_out_of_every_text_under_whatever_name() -> None:
    processor = hide(Redactor([SECRET]))
    event = {
        "event": f"failed with {SECRET}",
        "exception": f"a\n{SECRET}",
        "ms": 3,
        "argv": ["x", SECRET],
        "of": {"a": SECRET},
    }
    assert processor(None, "info", event) == {
        "event": "failed with [redacted]",
        "exception": "a\n[redacted]",
        "ms": 3,
        "argv": ["x", "[redacted]"],
        "of": {"a": "[redacted]"},
    }


async def test_a_secret_of_the_environment_is_not_logged_where_a_client_sends_it(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with started(tmp_path, "--log-level", "debug", env={"MY_SERVICE_PASSWORD": SECRET}) as server:
            await exchange(server.port, "GET", f"/v1/nope/{SECRET}")
            await server.until("path=/v1/nope/\\[redacted\\]")
    assert SECRET not in server.stderr


@pytest.mark.parametrize("unsafe", ["\n", "\r", "\x1b", "\x00", "\x85", "\u202e", "\u2028", "\u2066", "\x7f"])
def test_what_could_forge_or_turn_round_a_line_is_replaced(unsafe: str) -> None:
    assert redact(None, "info", {"session": f"a{unsafe}b"}) == {"session": "a\N{REPLACEMENT CHARACTER}b"}
    if unsafe != "\n":
        assert redact(None, "info", {"exception": f"a{unsafe}b\nc"}) == {"exception": "a\N{REPLACEMENT CHARACTER}b\nc"}


async def use(server: Server, id: str = "s") -> None:
    """Do all that has anything to do with secrets, rightly and wrongly."""
    port, query = server.port, f"?access_token={SECRET}&token={SECRET}&agent=mock"
    wrong = f"{SECRET}-wrong"
    for headers in ({}, server.headers, {"Authorization": f"Bearer {wrong}"}, {"X-Sandbox-Agent-Token": wrong}):
        secrets = {**JSON, "Cookie": f"session={SECRET}", "X-Api-Key": SECRET, **headers}
        for target in ("/v1/health", f"/v1/acp/{id}", "/v1/nope", "/"):
            await exchange(port, "GET", target + query, {**secrets, "Accept": "*/*"})
        await exchange(port, "POST", f"/v1/acp/{id}{query}", secrets, b"{" + SAID.encode())
        await exchange(port, "POST", f"/v1/acp/{id}{query}", secrets, b"x" * 20_000)
        async with WebSocket.open(port, f"/v1/acp/{id}{query}", headers) as socket:
            if socket.refusal is None:
                await socket.send(SAID)
                await socket.send(SAID.encode())
                await socket.end()
    broken = {**server.headers, "Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAAA"}
    await exchange_bytes(port, request_bytes("GET", "/v1/health" + query, broken))
    await exchange_bytes(port, request_bytes("GET", "/v1/health" + query, {**server.headers, "Origin": "http://["}))
    await exchange_bytes(port, request_bytes("GET", "/v1/health" + query, {**server.headers, "X\0": SECRET}))
    session = Session(server, id)
    await session.open()
    await session.prompt(SAID)
    await session.prompt(f"/stderr {SAID}\n/garbage\n/crash 3")
    assert await session.delete() == 204


@pytest.mark.parametrize("given", ["environment", "argument"])
async def test_neither_secrets_nor_what_was_said_are_ever_logged(tmp_path: Path, given: str) -> None:
    arguments = ["--log-level", "debug", "--max-body", "10000"] + (["--token", SECRET] if given == "argument" else [])
    env = {"SANDBOX_AGENT_TOKEN": SECRET} if given == "environment" else {}
    with trio.fail_after(WITHIN):
        async with started(tmp_path, *arguments, env=env, token=SECRET) as server:
            await use(server)
            await server.stop()
            await server.until("event=stopped")
    assert "canary" not in server.stderr
    assert "access_token" not in server.stderr
    for happened in ("event=listening", "event=request", 'event="connection failed"', 'event="agent crashed"'):
        assert happened in server.stderr


@pytest.mark.parametrize("form", ["logfmt", "json"])
async def test_no_client_can_write_a_line(tmp_path: Path, form: str) -> None:
    forged = 'x\ntimestamp=2026 level=info event=forged\r\x1b[31m\u202e\u2028\x85 " a=b \\'
    encoded = "".join(f"%{byte:02x}" for byte in forged.encode())
    with trio.fail_after(WITHIN):
        async with started(tmp_path, "--log-level", "debug", "--log-format", form) as server:
            await use(server, encoded)
            await exchange(server.port, "GET", "/v1/health", {"Host": "evil\t.com", "User-Agent": "\x85"})
            await server.stop()
            await server.until('"?event"?[=:] ?"?stopped')
    assert UNSAFE.search(server.stderr) is None
    lines = server.stderr.removesuffix("\n").split("\n")
    assert len(lines) > 20
    for line in lines:
        if form == "json":
            told = json.loads(line)
            assert {"timestamp", "level", "event"} <= told.keys()
            assert told["event"] != "forged"
        else:
            assert LOGFMT.fullmatch(line), line


async def test_ordinary_requests_are_told_at_debug_and_failures_louder(tmp_path: Path) -> None:
    agents = tmp_path / "agents.toml"
    agents.write_text('[agents.broken]\ncommand = ["/nowhere"]\n')
    with trio.fail_after(WITHIN):
        async with started(tmp_path, "--log-level", "debug", "--agents", str(agents), "--log-format", "json") as server:
            await exchange(server.port, "GET", "/v1/health")
            await exchange(server.port, "GET", "/v1/nope")
            await exchange(server.port, "PUT", "/v1/health")
            await exchange(server.port, "POST", "/v1/acp/s?agent=broken", JSON, b"{}")
            await server.until('"path": "/v1/acp/s"')
    told = [json.loads(line) for line in server.stderr.splitlines()]
    levels = [(line["method"], line["status"], line["level"]) for line in told if line["event"] == "request"]
    assert [(method, status) for method, status, _ in levels] == [
        ("GET", 200),
        ("GET", 404),
        ("PUT", 405),
        ("POST", 502),
    ]
    assert [level for *_, level in levels] == ["debug", "debug", "info", "warning"]
    assert all(line["ms"] >= 0 for line in told if line["event"] == "request")
