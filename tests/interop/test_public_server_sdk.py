"""The SDK drives the public server 0.4.2: all but what that server does not have, which it says in plain words."""

from __future__ import annotations

import shlex
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from interop import reference
from interop.cache import may_install
from sandbox_agent import SandboxAgent, Session, SessionInfo
from sandbox_agent.config_models import LocalServer, Skills, SkillSource
from sandbox_agent.errors import AgentError, ApiError, NotFound, UnsupportedByServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sandbox_agent.acp import AcpConnection, AcpStream

INSTALL_SECONDS = 120.0
WITHIN = 30.0  # seconds for one test; two cores may have other work
LAUNCHERS = ".local/share/sandbox-agent/bin/agent_processes"  # below the server's home


@asynccontextmanager
async def connected(folder: Path) -> AsyncGenerator[SandboxAgent]:
    """The public server by the SDK; skips the test where it neither is there nor may be fetched."""
    if not reference.runs_here():
        pytest.skip("the public server of the test is a binary for Linux on x86-64")
    if not reference.is_installed() and not may_install():
        pytest.skip("the public server is not installed, and SANDBOX_AGENT_TEST_INSTALL is 0")
    with trio.fail_after(INSTALL_SECONDS):
        await reference.install_public_server()
    async with reference.public_server(folder / "public") as server:
        with trio.fail_after(WITHIN):
            async with SandboxAgent.connect(server.url) as sandbox:
                yield sandbox


async def test_it_is_healthy_ready_and_tells_its_agents(tmp_path: Path) -> None:
    async with connected(tmp_path) as sandbox:
        assert (await sandbox.health())["status"] == "ok"
        assert await sandbox.ready()
        agents = {agent.id: agent for agent in await sandbox.agents.list()}
        assert {"mock", "claude", "codex"} <= set(agents)
        assert (await sandbox.agents.get("claude")).id == "claude"


async def test_files_are_written_read_listed_moved_and_deleted(tmp_path: Path) -> None:
    async with connected(tmp_path) as sandbox:
        files, folder = sandbox.files, str(tmp_path / "files")
        await files.mkdir(f"{folder}/deep/er")
        written = await files.write(f"{folder}/a.txt", "one\n")
        assert (tmp_path / "files" / "a.txt").read_text() == "one\n"
        assert await files.read_text(written.path) == "one\n"
        assert (await files.stat(f"{folder}/a.txt")).size == 4
        assert sorted(entry.name for entry in await files.list(folder)) == ["a.txt", "deep"]
        await files.move(f"{folder}/a.txt", f"{folder}/deep/b.txt")
        assert await files.exists(f"{folder}/deep/b.txt")
        assert not await files.exists(f"{folder}/a.txt")
        await files.delete(f"{folder}/deep", recursive=True)
        assert await files.list(folder) == []
        with pytest.raises(ApiError, match=r"a\.txt|not found|No such"):
            await files.read(f"{folder}/a.txt")


async def test_a_command_is_run_and_a_process_followed_and_stopped(tmp_path: Path) -> None:
    async with connected(tmp_path) as sandbox:
        result = await sandbox.processes.run("sh", "-c", "echo out; echo err >&2; exit 3")
        assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")

        process = await sandbox.processes.start("sh", "-c", "echo begun; read line; echo got $line; sleep 60")
        async with process.follow(stream="stdout") as log:
            assert (await anext(log)).data == b"begun\n"
            await process.write("this\n")
            assert (await anext(log)).data == b"got this\n"
        assert b"".join(entry.data for entry in (await process.logs()).entries) == b"begun\ngot this\n"
        assert [each.id for each in await sandbox.processes.list()] == [process.id]
        assert (await process.stop(wait=5.0)).status == "exited"
        await process.delete()
        with pytest.raises(NotFound):
            await process.refresh()


async def test_a_terminal_is_typed_into_resized_and_read_to_its_end(tmp_path: Path) -> None:
    async with connected(tmp_path) as sandbox:
        process = await sandbox.processes.terminal(
            "sh", "-c", "read go; stty size; read name; echo Hello, $name; exit 3"
        )
        async with process.terminal() as terminal:
            await terminal.resize(30, 100)
            await terminal.write("go\nAnn\n")
            shown = b"".join([piece async for piece in terminal])
            assert b"30 100" in shown
            assert b"Hello, Ann" in shown
            assert terminal.exit_code == 3


async def test_mcp_servers_and_skills_are_stored(tmp_path: Path) -> None:
    async with connected(tmp_path) as sandbox:
        directory = str(tmp_path / "app")
        (tmp_path / "app").mkdir()
        server = LocalServer(command="npx", args=["server", "."])
        await sandbox.config.mcp.put(directory, "files", server)
        assert await sandbox.config.mcp.get(directory, "files") == server
        assert await sandbox.config.mcp.names(directory) == ["files"]
        skills = Skills(sources=[SkillSource(type="github", source="someone/skills")])
        await sandbox.config.skills.put(directory, "some", skills)
        assert await sandbox.config.skills.get(directory, "some") == skills
        await sandbox.config.mcp.delete(directory, "files")
        with pytest.raises(NotFound):
            await sandbox.config.mcp.get(directory, "files")


async def test_a_conversation_with_the_mock_agent_goes_over_the_raw_wire(tmp_path: Path) -> None:
    # Its own mock agent does nothing but echo: the launcher starts ours. It is kept, for that server never answers the
    # DELETE of an agent that lives.
    launcher = tmp_path / "public" / "home" / LAUNCHERS / "mock-acp"
    async with connected(tmp_path) as sandbox:
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sandbox_actors.mock\n")
        launcher.chmod(0o755)
        async with sandbox.acp("raw", agent="mock", keep=True) as acp:
            assert (await acp.request("initialize", {"protocolVersion": 1}))["agentInfo"]["name"] == "mock"
            new = await acp.request("session/new", {"cwd": str(tmp_path), "mcpServers": []})
            async with acp.envelopes() as envelopes, trio.open_nursery() as nursery:
                nursery.start_soon(allow, acp, envelopes)
                prompt = [{"type": "text", "text": "/permission"}]
                told = {"sessionId": new["sessionId"], "prompt": prompt}
                assert (await acp.request("session/prompt", told))["stopReason"] == "end_turn"
            with pytest.raises(AgentError) as refused:
                await acp.request("session/prompt", {"sessionId": "nobody's", "prompt": []})
            assert refused.value.code == -32002


async def allow(acp: AcpConnection, envelopes: AcpStream) -> None:
    """Answer what the agent asks; done once it has told that it heard so."""
    async for envelope in envelopes:
        if envelope.message.get("method") == "session/request_permission":
            await acp.respond(envelope.message["id"], {"outcome": {"outcome": "selected", "optionId": "yes"}})
        elif "permission: allow_once" in str(envelope.message):
            return
    raise AssertionError("the stream has ended")


WITHOUT: dict[str, Callable[[SandboxAgent], Awaitable[object]]] = {
    "create_session": lambda sandbox: sandbox.create_session("mock"),
    "session": lambda sandbox: sandbox.session("s1"),
    "prompt": lambda sandbox: unknown_session(sandbox).prompt("Hello"),
    "events": lambda sandbox: first(unknown_session(sandbox).events()),
    "list_sessions": lambda sandbox: sandbox.list_sessions(),
    "ports": lambda sandbox: sandbox.ports.list(),
    "git": lambda sandbox: sandbox.git.status("/"),
    "watch": lambda sandbox: first(sandbox.files.watch("/")),
}
"""What that server has no routes for."""


def unknown_session(sandbox: SandboxAgent) -> Session:
    return Session(sandbox.transport, SessionInfo(id="s1", agent="mock", state="ready"))


async def first(stream: AbstractAsyncContextManager[AsyncIterator[object]]) -> object:
    async with stream as items:
        return await anext(items)


async def test_what_it_does_not_have_is_said_with_what_to_use(tmp_path: Path) -> None:
    said: dict[str, str] = {}
    async with connected(tmp_path) as sandbox:
        for name, ask in WITHOUT.items():
            with pytest.raises(UnsupportedByServer) as refused:
                await ask(sandbox)
            said[name] = str(refused.value)
    over = {"ports": "GET /v1/ports", "git": "GET /v1/git/status", "watch": "GET /v1/fs/watch"}
    for name, route in over.items():
        assert said.pop(name).endswith(f" has no {route}; this package's server has it")
    assert [sentence for sentence in said.values() if not sentence.endswith("; sandbox.acp() is there")] == []
