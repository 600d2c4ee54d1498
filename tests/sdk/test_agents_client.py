"""`Agents` and `Config`, against a real daemon that has an agent to install, out of an archive of this machine."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest

from sandbox_agent.agents import Agents
from sandbox_agent.config import Config
from sandbox_agent.config_models import LocalServer, OAuth, RemoteServer, Skills, SkillSource
from sandbox_agent.errors import InstallFailed, InvalidRequest, SandboxAgentError, SessionNotFound, UnsupportedAgent
from sandbox_agent.files import Files
from sandbox_agent.providers.provider import Endpoint
from support.breaking import open_way
from support.registries import SHELL_AGENT, tar_of
from support.transports import connected, lasting, under

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sandbox_agent.transport import Transport
    from support.daemon import Daemon

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

SLOW_AGENT = SHELL_AGENT.replace("\n", "\nsleep 1\n", 1)
"""It thinks for a second before it says anything."""


def archived(folder: Path, name: str, source: str) -> dict[str, object]:
    """The definition of an agent that comes as an archive."""
    archive = folder / f"{name}.tar.gz"
    archive.write_bytes(tar_of({"tool": source}))
    place = {"archive": archive.as_uri(), "cmd": "./tool"}
    return {"distribution": {"binary": {f"linux-{platform.machine()}": place}}}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = tmp_path_factory.mktemp("agents-client")
    agents = {
        f"{name}-{backend}": archived(home, f"{name}-{backend}", source)
        for backend in ("trio", "asyncio")
        for name, source in (("quick", SHELL_AGENT), ("slow", SLOW_AGENT))
    }
    agents["broken"] = archived(home, "broken", "#!/bin/sh\nexit 3\n")
    file = home / "agents.json"
    file.write_text(json.dumps({"agents": agents}))
    with lasting(home, "--agents", str(file), HOME=str(home)) as daemon:
        yield daemon


@BACKENDS
def test_agents_are_listed_and_asked_for_their_configuration(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        agents = Agents(transport)
        listed = {agent.id: agent for agent in await agents.list()}
        assert listed["mock"].installed
        assert not listed[f"slow-{backend}"].installed
        assert listed["mock"].config_options is None
        mock = await agents.get("mock", config=True)
        assert mock.config_source == "agent"
        assert {option["category"] for option in mock.config_options or []} >= {"model", "mode"}
        assert (await agents.get("claude-code")).id == "claude"
        with pytest.raises(UnsupportedAgent):
            await agents.get("nobody")

    under(backend, daemon, body)


@BACKENDS
def test_an_agent_is_installed_step_by_step(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        agents, id = Agents(transport), f"quick-{backend}"
        async with agents.installing(id) as progress:
            with pytest.raises(SandboxAgentError, match="not done"):
                assert progress.outcome
            steps = [step async for step in progress]
        assert steps
        assert {step.agent for step in steps} == {id}
        (artifact,) = progress.outcome.artifacts
        assert not progress.outcome.already_installed
        assert artifact.kind == "agent_process"
        assert (await agents.install(id)).already_installed
        assert not (await agents.install(id, reinstall=True)).already_installed
        assert (await agents.get(id)).installed
        assert (await agents.install("mock")).already_installed

    under(backend, daemon, body)


async def test_an_install_goes_on_when_the_connection_breaks(daemon: Daemon) -> None:
    async with open_way(daemon.port) as way, connected(daemon) as transport:
        transport.endpoint = Endpoint(f"http://127.0.0.1:{way.port}", daemon.token)
        async with Agents(transport).installing("slow-trio") as progress:
            async for step in progress:
                if step.step == "verifying" and not way.cuts:
                    await way.cut()
        assert way.cuts == 1
        assert (await Agents(transport).get("slow-trio")).installed


async def test_an_install_that_fails_says_why(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        with pytest.raises(InstallFailed) as caught:
            await Agents(transport).install("broken")
        assert caught.value.problem["details"]["reason"] == "verification"
        with pytest.raises(UnsupportedAgent):
            await Agents(transport).install("nobody")
        with pytest.raises(InvalidRequest):
            await Agents(transport).install("quick-trio", agent_version="https://example.org/evil")


@BACKENDS
def test_servers_and_skills_are_stored_for_a_directory(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        config, files, directory = Config(transport), Files(transport), f"project-{backend}"
        await files.mkdir(directory)
        assert await config.mcp.names(directory) == []
        local = LocalServer(command=["npx", "-y"], args=["server"], env={"X": "\u2028"}, timeout_ms=5)
        remote = RemoteServer(url="https://example.org/mcp", oauth=OAuth(client_id="me"), transport="sse")
        await config.mcp.put(directory, "files & more", local)
        await config.mcp.put(directory, "a", remote)
        assert await config.mcp.get(directory, "files & more") == local
        assert await config.mcp.get(directory, "a") == remote
        assert await config.mcp.names(f"{daemon.home}/{directory}/") == ["a", "files & more"]
        skills = Skills([SkillSource(type="github", source="example/skills", skills=["one"], ref="main")])
        await config.skills.put(directory, "s", skills)
        assert await config.skills.get(directory, "s") == skills
        await config.mcp.delete(directory, "a")
        await config.mcp.delete(directory, "a")
        with pytest.raises(SessionNotFound):
            await config.mcp.get(directory, "a")
        assert (await config.mcp.names(directory), await config.skills.names(directory)) == (["files & more"], ["s"])
        await files.write(f"{directory}/.sandbox-agent/config/mcp.json", "{not json")
        with pytest.raises(SandboxAgentError, match="broken"):
            await config.mcp.names(directory)
        with pytest.raises(InvalidRequest):
            await config.mcp.get(directory, "files & more")

    under(backend, daemon, body)
