"""Which agents there are for a sandbox, what each can do, and how one is installed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from .server_progress import Doing, ServerProgress, open_progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .transport import Transport

__all__ = ["AgentInfo", "AgentServer", "Agents", "Artifact", "InstallProgress", "Installed"]

CONFIG_WITHIN = 900.0
"""Seconds: each installed agent may take 60 to tell its configuration, and two are asked at a time."""


class AgentServer(msgspec.Struct, frozen=True, rename="camel"):
    """The sessions with an agent, taken together.

    Attributes:
      status: `running` or `stopped`.
      uptime_ms: of the oldest that runs.
    """

    status: str
    uptime_ms: int | None = None


class InstallProgress(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How far an install is.

    Attributes:
      step: `waiting`, `checking`, `downloading`, `unpacking`, `installing`, `finishing` or `verifying`.
      message: a few words for a person.
      bytes, total_bytes: what was fetched, of what there will be; None where that is not known.
    """

    agent: str
    step: str
    message: str = ""
    bytes: int = 0
    total_bytes: int | None = None


class AgentInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An agent.

    Attributes:
      installed: it can be started.
      credentials_available: a key or login that it works with was found.
      version, path, config_options: only where the configuration was asked for.
      config_options: its modes, models and thought levels, as ACP has them.
      config_source: `agent`, or `catalog` where the agent could not be asked: `config_error` says why.
      installing: an install that is under way.
      acp: what it answered to `initialize`.
    """

    id: str
    installed: bool
    credentials_available: bool
    capabilities: dict[str, bool]
    name: str = ""
    description: str | None = None
    version: str | None = None
    path: str | None = None
    server_status: AgentServer | None = None
    config_options: list[dict[str, Any]] | None = None
    config_source: str | None = None
    config_error: str | None = None
    installing: InstallProgress | None = None
    acp: dict[str, Any] | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that an install has made.

    Attributes:
      kind: `agent_process` or `native_agent`.
      source: `registry`, `fallback`, `local_path` or `builtin`.
    """

    kind: str
    path: str
    source: str
    version: str | None = None


class Installed(msgspec.Struct, frozen=True):
    """What came of an install: nothing was to be done, or these were made."""

    already_installed: bool
    artifacts: list[Artifact]


class _Listed(msgspec.Struct, frozen=True):
    agents: list[AgentInfo]


class Agents:
    """See the module. Reached as `sandbox.agents`.

    Methods raise `UnsupportedAgent` where there is no such agent, further `ApiError`s, and `ConnectionFailed`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, config: bool = False, fresh: bool = False) -> list[AgentInfo]:
        """All agents.

        Args:
          config: start each that is installed, to ask for its modes and models; that takes a while the first time.
          fresh: ask those, too, that were asked before.
        """
        return (await self._transport.ask(_Listed, "GET", "/v1/agents", **_asking(config, fresh))).agents

    async def get(self, agent: str, *, config: bool = False, fresh: bool = False) -> AgentInfo:
        """One agent, by its id or another of its names; else as `list`."""
        return await self._transport.ask(AgentInfo, "GET", _path(agent), **_asking(config, fresh))

    async def install(
        self,
        agent: str,
        *,
        reinstall: bool = False,
        agent_version: str | None = None,
        process_version: str | None = None,
    ) -> Installed:
        """Install an agent, or join the install that is under way. Who leaves stops nothing.

        Args:
          reinstall: also where it is installed.
          agent_version: of the command line tool; else the one that was tried.
          process_version: of the adapter in front of it, where that is another package.

        Raises:
          InstallFailed: `problem["details"]["reason"]` says why.
        """
        async with self.installing(
            agent, reinstall=reinstall, agent_version=agent_version, process_version=process_version
        ) as progress:
            async for _ in progress:
                continue
        return progress.outcome

    @asynccontextmanager
    async def installing(
        self,
        agent: str,
        *,
        reinstall: bool = False,
        agent_version: str | None = None,
        process_version: str | None = None,
    ) -> AsyncGenerator[ServerProgress[InstallProgress, Installed]]:
        """As `install`, but one hears how far it is.

        async with agents.installing("claude") as progress:
            async for step in progress: print(step.step, step.message)
        print(progress.outcome.artifacts)
        """
        told = {"reinstall": reinstall, "agentVersion": agent_version, "agentProcessVersion": process_version}
        # Asked again, one joins the install that goes on, or hears that it is done.
        doing = Doing(f"{_path(agent)}/install", {}, told, again=True)
        async with open_progress(self._transport, doing, InstallProgress, "installed", Installed) as progress:
            yield progress


def _path(agent: str) -> str:
    return f"/v1/agents/{quote(agent, safe='')}"


def _asking(config: bool, fresh: bool) -> dict[str, Any]:
    params = {"config": config or None, "no_cache": fresh or None}
    return {"params": params, "silence": CONFIG_WITHIN if config else None}
