"""How stored MCP servers are told to an agent, and into which requests they get."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
from msgspec import Raw

from sandbox_actors.directory_config import MCP, DirectoryConfig, Skipped, StoredServers, merged, stored_servers
from sandbox_actors.directory_config.servers import as_acp
from sandbox_actors.envelope import decode
from sandbox_actors.memory import McpCapabilities, Memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio.testing import MockClock

ALL = McpCapabilities(http=True, sse=True)
NONE = McpCapabilities()

NPX = {"type": "local", "command": "npx"}
REMOTE = {"type": "remote", "url": "http://127.0.0.1:9/mcp"}


def told(entries: Mapping[str, object], **environment: str) -> StoredServers:
    return as_acp({name: MCP.parse(entry) for name, entry in entries.items()}, "/work", environment)


def only(entry: object, **environment: str) -> Any:
    """What the agent is told of one server."""
    servers, skipped = told({"x": entry}, **environment).for_agent(ALL)
    assert skipped == []
    return servers[0]


def skipped(entry: object, **environment: str) -> Skipped:
    """Why a server is left out."""
    servers, (one,) = told({"x": entry}, **environment).for_agent(ALL)
    assert (servers, one.server) == ([], "x")
    return one


# -- entries as ACP has them


def test_a_local_server_has_its_variables_as_a_list() -> None:
    assert only({**NPX, "args": ["-y", "p"], "env": {"A": "1", "B": ""}, "timeoutMs": 5}) == {
        "name": "x",
        "command": "npx",
        "args": ["-y", "p"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
    }
    assert only({**NPX, "command": ["npx", "-y"], "args": ["p"]}) == {
        "name": "x",
        "command": "npx",
        "args": ["-y", "p"],
        "env": [],
    }


def test_a_server_with_a_directory_of_its_own_is_started_there_as_the_process_that_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a b'c"
    folder.mkdir()
    script = 'pwd; echo $$; printf "%s|" "$@"'
    entry = MCP.parse(
        {**NPX, "command": ["/bin/sh", "-c", script, "sh"], "args": ["1 2", "", "$x"], "cwd": folder.name}
    )
    (server,), _ = as_acp({"x": entry}, str(tmp_path), {}).for_agent(NONE)
    with subprocess.Popen([server["command"], *server["args"]], stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=10)
    assert output == f"{folder}\n{process.pid}\n1 2||$x|"


def test_a_remote_server_has_its_headers_as_a_list() -> None:
    assert only({**REMOTE, "headers": {"A": "1"}, "oauth": True}) == {
        "type": "http",
        "name": "x",
        "url": REMOTE["url"],
        "headers": [{"name": "A", "value": "1"}],
    }
    assert only({**REMOTE, "transport": "sse"})["type"] == "sse"


def test_headers_come_out_of_the_environment_and_win_over_those_in_the_file() -> None:
    entry = {
        **REMOTE,
        "headers": {"authorization": "Basic old", "X-Key": "old", "X-Other": "kept"},
        "bearerTokenEnvVar": "TOKEN",
        "envHeaders": {"x-key": "KEY"},
    }
    assert only(entry, TOKEN=" t0ken\n", KEY="k") == {
        "type": "http",
        "name": "x",
        "url": REMOTE["url"],
        "headers": [
            {"name": "Authorization", "value": "Bearer t0ken"},
            {"name": "x-key", "value": "k"},
            {"name": "X-Other", "value": "kept"},
        ],
    }


@pytest.mark.parametrize("value", [None, "", "  ", "a\nb", "a\udc80b"])
@pytest.mark.parametrize("entry", [{"bearerTokenEnvVar": "TOKEN"}, {"envHeaders": {"X": "TOKEN"}}])
def test_a_server_whose_variable_is_of_no_use_is_left_out_and_the_variable_named(
    entry: dict[str, object], value: str | None
) -> None:
    one = skipped({**REMOTE, **entry}, **({} if value is None else {"TOKEN": value}))
    assert one.reason == "missing_variable"
    assert "TOKEN" in one.message
    if value is not None and value.strip():
        assert value not in one.message


def test_the_daemons_own_token_is_given_to_no_server() -> None:
    one = skipped({**REMOTE, "bearerTokenEnvVar": "SANDBOX_AGENT_TOKEN"}, SANDBOX_AGENT_TOKEN="secret")
    assert one.reason == "missing_variable"


@pytest.mark.parametrize("command", [[], "", " ", [""]])
def test_a_server_without_a_command_is_left_out(command: object) -> None:
    assert skipped({**NPX, "command": command}).reason == "no_command"


def test_a_server_that_is_switched_off_is_not_there_and_nothing_to_be_told() -> None:
    stored = told({"x": {**NPX, "enabled": False}, "y": {**REMOTE, "bearerTokenEnvVar": "T", "enabled": False}})
    assert stored == StoredServers()
    assert only({**NPX, "enabled": True})


def test_an_agent_gets_the_transports_that_it_knows() -> None:
    stored = told({"a": NPX, "b": REMOTE, "c": {**REMOTE, "transport": "sse"}})
    for capabilities, names in [
        (NONE, ["a"]),
        (McpCapabilities(http=True), ["a", "b"]),
        (McpCapabilities(sse=True), ["a", "c"]),
        (ALL, ["a", "b", "c"]),
    ]:
        servers, left_out = stored.for_agent(capabilities)
        assert [server["name"] for server in servers] == names
        assert {one.server for one in left_out} == {"a", "b", "c"} - set(names)
        assert {one.reason for one in left_out} <= {"transport_unsupported"}


def test_no_secret_is_in_what_a_traceback_might_show() -> None:
    stored = told({"x": {**REMOTE, "bearerTokenEnvVar": "T", "headers": {"X": "secret"}}}, T="secret")
    assert "secret" not in repr(stored)


@pytest.mark.parametrize(
    ("result", "learned"),
    [
        ({}, NONE),
        ({"agentCapabilities": None}, NONE),
        ({"agentCapabilities": {"mcpCapabilities": {}}}, NONE),
        ({"agentCapabilities": {"mcpCapabilities": {"http": True}, "loadSession": 7}}, McpCapabilities(http=True)),
        ({"agentCapabilities": {"mcpCapabilities": {"http": True, "sse": True, "acp": {}}}}, ALL),
    ],
)
def test_which_transports_an_agent_knows_is_learned_when_it_is_initialized_and_kept(
    result: object, learned: McpCapabilities
) -> None:
    memory = Memory(mcp=McpCapabilities(sse=True))
    assert memory.learn("initialize", Raw(b"{}"), decode(json.dumps({"id": 1, "result": result}).encode()))
    assert Memory.load(memory.dump()).mcp == memory.mcp == learned


# -- requests


def envelope(method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


STORED = told({"a": NPX})


@pytest.mark.parametrize("method", ["session/new", "session/load", "session/resume", "session/fork"])
@pytest.mark.parametrize("given", [{}, {"mcpServers": []}, {"mcpServers": None}])
def test_servers_get_into_every_request_that_opens_a_session(method: str, given: dict[str, object]) -> None:
    text, left_out = merged(envelope(method, cwd="/work", n=1.10, **given), STORED, NONE)
    assert left_out == []
    message = json.loads(text)
    assert [server["name"] for server in message["params"]["mcpServers"]] == ["a"]
    assert (message["id"], message["params"]["cwd"], message["params"]["n"]) == (1, "/work", 1.10)


def test_without_servers_a_request_is_what_it_was_but_for_a_member_that_acp_demands() -> None:
    for method in ("session/new", "session/load", "session/resume", "session/fork"):
        whole = envelope(method, cwd="/", mcpServers=[])
        assert merged(whole, StoredServers(), ALL) == (whole, [])
    for method in ("session/new", "session/load"):
        text, _ = merged(envelope(method, cwd="/"), StoredServers(), ALL)
        assert json.loads(text)["params"] == {"cwd": "/", "mcpServers": []}
    for method in ("session/resume", "session/fork"):
        assert merged(envelope(method, cwd="/"), StoredServers(), ALL) == (envelope(method, cwd="/"), [])


@pytest.mark.parametrize("params", [b"[]", b"7", b"null", None])
async def test_params_that_make_no_sense_are_the_agents_to_refuse(params: bytes | None) -> None:
    text = (
        b'{"id":1,"method":"session/new"}'
        if params is None
        else b'{"id":1,"method":"session/new","params":%b}' % params
    )
    stored = await stored_servers(DirectoryConfig({}), "session/new", decode(text).params)
    assert stored is None


async def test_only_requests_that_open_a_session_without_servers_of_their_own_are_looked_at(tmp_path: Path) -> None:
    config = DirectoryConfig({}, tmp_path / "key")
    await config.put(MCP, str(tmp_path), "a", MCP.parse(NPX))
    await config.put(MCP, str(tmp_path / "below"), "b", MCP.parse(NPX))

    async def names(method: str, **params: object) -> list[str] | None:
        stored = await stored_servers(config, method, Raw(json.dumps(params).encode()))
        return None if stored is None else [server.name for server in stored.servers]

    cwd = str(tmp_path)
    assert await names("session/new", cwd=cwd) == ["a"]
    assert await names("session/load", cwd=cwd, sessionId="s", mcpServers=[]) == ["a"]
    assert await names("session/new", cwd=f"{cwd}/below") == ["b"]
    assert await names("session/new", cwd=f"{cwd}/elsewhere") == []
    assert await names("session/new", cwd=cwd.removeprefix("/")) == []
    assert await names("session/new", cwd=7) == []
    assert await names("session/new") == []
    assert await names("session/new", cwd=cwd, mcpServers=[{"name": "own"}]) is None
    assert await names("session/prompt", cwd=cwd) is None


async def test_a_file_that_cannot_be_used_costs_the_session_its_servers_and_is_told(tmp_path: Path) -> None:
    config = DirectoryConfig({}, tmp_path / "key")
    await config.put(MCP, str(tmp_path), "a", MCP.parse(NPX))
    file = tmp_path / ".sandbox-agent" / "config" / "mcp.json"
    file.write_text('{"a":{"type":"local","command":"x","env":{"KEY":["secret"]}}}')
    with structlog.testing.capture_logs() as logs:
        stored = await stored_servers(config, "session/new", {"cwd": str(tmp_path)})
    assert stored is not None
    (one,) = stored.skipped
    assert (stored.servers, one.server, one.reason) == ((), None, "config_unreadable")
    assert one.message.startswith(f"invalid config file {file}: ")
    assert [event["event"] for event in logs] == ["MCP server left out"]
    assert "secret" not in f"{one} {logs}"


async def test_a_disk_that_hangs_holds_up_no_session(tmp_path: Path, autojump_clock: MockClock) -> None:
    class Hanging(DirectoryConfig):
        async def vetted(self, kind: object, directory: str) -> Any:
            await trio.sleep_forever()

    stored = await stored_servers(Hanging({}), "session/new", {"cwd": str(tmp_path)})
    assert stored is not None
    assert [one.reason for one in stored.skipped] == ["config_unreadable"]
