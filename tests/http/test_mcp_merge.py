"""MCP servers that are stored for a directory reach the agents that work there, and their secrets nobody else."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from sandbox_actors.directory_config import MCP, DirectoryConfig
from support.clients import Session
from support.command import started
from support.journal import kept
from support.serving import script, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from support.clients import Json
    from support.daemon import Daemon

LIMIT = 20.0

CANARY = "canary-9f1c-in-no-event"

# trio-websocket leaves the socket of a connection that was torn down to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")

RECORDER = """
kept, offered = open(sys.argv[1], "ab", 0), json.loads(sys.argv[2])
while line := heard():
    kept.write(line)
    message = json.loads(line)
    method, result = message.get("method"), {}
    if method == "initialize":
        result = {"protocolVersion": 1, "agentCapabilities": offered}
    elif method in ("session/new", "session/fork"):
        result = {"sessionId": "session of %d" % os.getpid()}
    elif method == "exit":
        os._exit(7)
    elif method == "keep":
        continue
    if "id" in message:
        say(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}))
"""
"""An agent that writes down what it reads. Its arguments: where, and its capabilities."""

ABLE = {"mcpCapabilities": {"http": True, "sse": True}}
ABLE_TO_LOAD = {**ABLE, "loadSession": True}

LOCAL = {"type": "local", "command": "npx", "args": ["-y", "server"]}
AS_ACP = {"name": "local", "command": "npx", "args": ["-y", "server"], "env": []}
WITH_TOKEN = {"type": "remote", "url": "http://127.0.0.1:9/mcp", "bearerTokenEnvVar": "MCP_TOKEN"}
AUTHORIZED = {
    "type": "http",
    "name": "remote",
    "url": WITH_TOKEN["url"],
    "headers": [{"name": "Authorization", "value": f"Bearer {CANARY}"}],
}


def recorder(folder: Path, capabilities: Json) -> list[str]:
    """The command of an agent; `stdin_of` shows what it has read."""
    folder.mkdir(exist_ok=True)
    return [*script(folder / "recorder.py", RECORDER), str(folder / "stdin"), json.dumps(capabilities)]


def stdin_of(folder: Path, method: str) -> list[Json]:
    """The requests of a method that the agent has read."""
    messages = [json.loads(line) for line in (folder / "stdin").read_bytes().splitlines()]
    return [message for message in messages if message["method"] == method]


async def store(home: Path, servers: Mapping[str, object]) -> None:
    """Store servers for the home of a daemon, as another daemon of its data directory would."""
    config = DirectoryConfig({}, home / "data" / "directory-config.key")
    for name, entry in servers.items():
        await config.put(MCP, str(home), name, MCP.parse(entry))


def bring(directory: Path, servers: Mapping[str, object]) -> None:
    """Have servers in a directory that nobody stored there, as a cloned repository has."""
    file = directory / ".sandbox-agent" / "config" / "mcp.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(servers))


@asynccontextmanager
async def working(home: Path, capabilities: Json, **config: Any) -> AsyncGenerator[Session]:
    """A session with the recorder, initialized."""
    agents = {"recorder": recorder(home, capabilities)}
    with trio.fail_after(LIMIT):
        async with serving(home, agents=agents, environment={"MCP_TOKEN": CANARY}, **config) as daemon:
            session = Session(daemon)
            await session.request("initialize", {"protocolVersion": 1}, "recorder")
            yield session


async def skipped(session: Session) -> list[Json]:
    """The notices of servers that were left out, so far."""
    async with session.subscribed(0) as subscriber:
        answer = await session.request("ping", {})
        await subscriber.until(lambda event: event.message.get("id") == answer["id"])
    messages = [event.message for event in subscriber.events]
    return [message["params"] for message in messages if message.get("method") == "_sandboxagent/mcp/skipped"]


async def test_a_session_gets_what_is_stored_for_its_directory_where_its_client_names_nothing(tmp_path: Path) -> None:
    await store(tmp_path, {"local": LOCAL, "off": {**LOCAL, "enabled": False}, "remote": WITH_TOKEN})
    async with working(tmp_path, ABLE) as session:
        cwd = str(tmp_path)
        for method in ("session/new", "session/load", "session/resume", "session/fork"):
            await session.request(method, {"cwd": cwd, "sessionId": "x"})
            await session.request(method, {"cwd": cwd, "sessionId": "x", "mcpServers": []})
            own: Json = {"name": "own", "command": "x", "args": [], "env": []}
            await session.request(method, {"cwd": cwd, "sessionId": "x", "mcpServers": [own]})
            read = [request["params"]["mcpServers"] for request in stdin_of(tmp_path, method)]
            assert read == [[AS_ACP, AUTHORIZED], [AS_ACP, AUTHORIZED], [own]]
        assert await skipped(session) == []


async def test_an_entry_that_is_put_counts_from_the_next_session_on(tmp_path: Path) -> None:
    async with working(tmp_path, ABLE) as session, httpx.AsyncClient(trust_env=False) as client:
        url = f"{session.daemon.url}/v1/config/mcp"
        await session.request("session/new", {"cwd": str(tmp_path)})
        about = {"directory": str(tmp_path), "mcpName": "local"}
        assert (await client.put(url, params=about, json=LOCAL)).status_code == 204
        await session.request("session/new", {"cwd": str(tmp_path)})
        assert (await client.delete(url, params=about)).status_code == 204
        await session.request("session/new", {"cwd": str(tmp_path)})
        read = [request["params"]["mcpServers"] for request in stdin_of(tmp_path, "session/new")]
        assert read == [[], [AS_ACP], []]


async def test_what_the_agent_cannot_have_is_left_out_and_told(tmp_path: Path) -> None:
    await store(
        tmp_path,
        {
            "local": LOCAL,
            "remote": WITH_TOKEN,
            "sse": {**WITH_TOKEN, "transport": "sse"},
            "no token": {**WITH_TOKEN, "bearerTokenEnvVar": "NOT_SET"},
        },
    )
    async with working(tmp_path, {"mcpCapabilities": {"sse": True}}) as session:
        await session.request("session/new", {"cwd": str(tmp_path)})
        (request,) = stdin_of(tmp_path, "session/new")
        assert [server["name"] for server in request["params"]["mcpServers"]] == ["local", "sse"]
        assert await skipped(session) == [
            {
                "server": "no token",
                "reason": "missing_variable",
                "message": "the environment variable NOT_SET is not set",
            },
            {
                "server": "remote",
                "reason": "transport_unsupported",
                "message": "the agent cannot talk to servers over http",
            },
        ]


async def test_an_agent_that_says_nothing_of_it_gets_only_servers_that_it_starts_itself(tmp_path: Path) -> None:
    await store(tmp_path, {"local": LOCAL, "remote": WITH_TOKEN})
    async with working(tmp_path, None) as session:
        await session.request("session/new", {"cwd": str(tmp_path)})
        (request,) = stdin_of(tmp_path, "session/new")
        assert request["params"]["mcpServers"] == [AS_ACP]
        assert [one["server"] for one in await skipped(session)] == ["remote"]


async def test_with_a_broken_file_the_session_is_made_all_the_same_and_its_client_told(tmp_path: Path) -> None:
    bring(tmp_path, {"local": {**LOCAL, "env": {"KEY": [CANARY]}}})
    async with working(tmp_path, ABLE) as session:
        answer = await session.request("session/new", {"cwd": str(tmp_path)})
        assert answer["result"]["sessionId"]
        (request,) = stdin_of(tmp_path, "session/new")
        assert request["params"]["mcpServers"] == []
        (one,) = await skipped(session)
        assert (one["server"], one["reason"]) == (None, "config_unreadable")
        assert "invalid config file" in one["message"]
        assert CANARY not in one["message"]


async def test_what_a_repository_brings_along_reaches_no_agent_and_its_client_is_told(tmp_path: Path) -> None:
    bring(tmp_path, {"local": LOCAL, "remote": WITH_TOKEN})
    async with working(tmp_path, ABLE) as session, httpx.AsyncClient(trust_env=False) as client:
        url, about = f"{session.daemon.url}/v1/config/mcp", {"directory": str(tmp_path), "mcpName": "local"}
        await session.request("session/new", {"cwd": str(tmp_path)})
        found = (await client.get(url, params=about)).json()
        assert (await client.put(url, params=about, json=found)).status_code == 204
        await session.request("session/new", {"cwd": str(tmp_path)})
        read = [request["params"]["mcpServers"] for request in stdin_of(tmp_path, "session/new")]
        assert read == [[], [AS_ACP]]
        told = [(one["server"], one["reason"]) for one in await skipped(session)]
        assert told == [("local", "not_trusted"), ("remote", "not_trusted"), ("remote", "not_trusted")]
    assert CANARY.encode() not in (tmp_path / "stdin").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(["--trust-directory-config"], {}), ([], {"SANDBOX_AGENT_TRUST_DIRECTORY_CONFIG": "1"})],
)
async def test_a_server_that_is_told_to_trust_directories_uses_what_they_bring_along(
    tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    bring(tmp_path, {"local": LOCAL, "remote": WITH_TOKEN})
    agents = tmp_path / "agents.json"
    agents.write_text(json.dumps({"agents": {"recorder": {"command": recorder(tmp_path, ABLE)}}}))
    with trio.fail_after(2 * LIMIT):
        env = {"MCP_TOKEN": CANARY, **variables}
        async with started(tmp_path, "--agents", str(agents), *arguments, env=env) as daemon:
            session = Session(daemon)
            await session.request("initialize", {"protocolVersion": 1}, "recorder")
            await session.request("session/new", {"cwd": str(tmp_path)})
            assert await skipped(session) == []
    (request,) = stdin_of(tmp_path, "session/new")
    assert request["params"]["mcpServers"] == [AS_ACP, AUTHORIZED]


async def test_over_a_websocket_it_is_the_same_also_under_an_id_of_the_daemons(tmp_path: Path) -> None:
    await store(tmp_path, {"remote": WITH_TOKEN})
    async with working(tmp_path, ABLE) as session, session.connected() as (connection, subscriber):
        for method in ("keep", "session/new"):
            envelope = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"cwd": str(tmp_path)}}
            await connection.send_message(json.dumps(envelope))
        await subscriber.until(lambda event: event.message.get("id") == 7)
        (request,) = stdin_of(tmp_path, "session/new")
        assert request["id"].startswith("sandbox-agent:")
        assert request["params"]["mcpServers"] == [AUTHORIZED]


@pytest.mark.parametrize("capabilities", [ABLE, ABLE_TO_LOAD])
async def test_an_agent_that_is_brought_back_gets_them_again(tmp_path: Path, capabilities: Json) -> None:
    await store(tmp_path, {"local": LOCAL, "remote": WITH_TOKEN})
    method = "session/load" if capabilities is ABLE_TO_LOAD else "session/new"
    async with working(tmp_path, capabilities) as session:
        opened = await session.request("session/new", {"cwd": str(tmp_path), "mcpServers": []})
        async with session.subscribed() as subscriber:
            await session.request("exit", {})
            await subscriber.until_method("_sandboxagent/agent/restarted")
        assert stdin_of(tmp_path, method)[-1]["params"]["mcpServers"] == [AS_ACP, AUTHORIZED]
        # The clients' id of a session that had to be opened anew is translated in the same request.
        id = opened["result"]["sessionId"]
        await session.request("session/load", {"cwd": str(tmp_path), "sessionId": id})
        params = stdin_of(tmp_path, "session/load")[-1]["params"]
        assert (params["sessionId"] == id) == (capabilities is ABLE_TO_LOAD)
        assert params["mcpServers"] == [AS_ACP, AUTHORIZED]
        assert await skipped(session) == []


async def test_a_request_that_wakes_the_agent_gets_them_too(tmp_path: Path) -> None:
    await store(tmp_path, {"remote": WITH_TOKEN})
    state = tmp_path / "state"
    async with working(tmp_path, ABLE, state_dir=state):
        pass
    agents = {"recorder": recorder(tmp_path, ABLE)}
    with trio.fail_after(LIMIT):
        async with serving(tmp_path, agents=agents, environment={"MCP_TOKEN": CANARY}, state_dir=state) as daemon:
            await Session(daemon).request("session/new", {"cwd": str(tmp_path)})
    (request,) = stdin_of(tmp_path, "session/new")
    assert request["params"]["mcpServers"] == [AUTHORIZED]


async def test_a_secret_of_the_environment_is_in_the_agents_stdin_and_in_nothing_that_is_kept(tmp_path: Path) -> None:
    await store(tmp_path, {"local": LOCAL, "remote": WITH_TOKEN, "x": {**WITH_TOKEN, "envHeaders": {"X": "NOT_SET"}}})
    agents = tmp_path / "agents.json"
    agents.write_text(json.dumps({"agents": {"recorder": {"command": recorder(tmp_path, ABLE_TO_LOAD)}}}))
    arguments = ["--agents", str(agents), "--state-dir", str(tmp_path / "state"), "--log-level", "debug"]
    with trio.fail_after(2 * LIMIT):
        async with started(tmp_path, *arguments, env={"MCP_TOKEN": CANARY}) as daemon:
            session = Session(daemon)
            await session.request("initialize", {"protocolVersion": 1}, "recorder")
            async with session.subscribed(0) as subscriber, session.connected(0) as (_, watcher):
                await session.request("session/new", {"cwd": str(tmp_path)})
                await session.request("exit", {})
                last = await subscriber.until_method("_sandboxagent/agent/restarted")
                await watcher.until_method("_sandboxagent/agent/restarted")
            assert [one["server"] for one in await skipped(session)] == ["x", "x"]
            seen = b"".join(event.data for event in [*subscriber.events, *watcher.events])
            assert last > 0
            daemon.process.terminate()
            await daemon.process.wait()
            everything = seen + daemon.stderr.encode() + kept_bytes(daemon)
    read = (tmp_path / "stdin").read_text()
    assert read.count(CANARY) == 2, "once in session/new, once in session/load"
    assert b"MCP server left out" in everything
    assert b'"session/load"' in everything
    assert CANARY.encode() not in everything


def kept_bytes(daemon: Daemon) -> bytes:
    """All that the daemon has on disk, and every envelope of its journal."""
    files = [path.read_bytes() for path in daemon.state_dir.rglob("*") if path.is_file()]
    return b"".join([*files, *(event.envelope for event in kept(daemon, "s"))])
