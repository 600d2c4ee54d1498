# Written by scripts/make-sync from ../agents.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.agents`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .server_progress import ServerProgress

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..agents import AgentInfo, Installed, InstallProgress
    from ..agents import Agents as AsyncAgents
    from ._line import Line


__all__ = ["Agents"]


class Agents:
    """See the module. Reached as `sandbox.agents`.

    Methods raise `UnsupportedAgent` where there is no such agent, further `ApiError`s, and `ConnectionFailed`.
    """

    def __init__(self, actual: AsyncAgents, line: Line) -> None:
        self._actual = actual
        self._line = line

    def list(self, *, config: bool = False, fresh: bool = False) -> list[AgentInfo]:
        """All agents.

        Args:
          config: start each that is installed, to ask for its modes and models; that takes a while the first time.
          fresh: ask those, too, that were asked before.
        """
        return self._line.call(self._actual.list, config=config, fresh=fresh)

    def get(self, agent: str, *, config: bool = False, fresh: bool = False) -> AgentInfo:
        """One agent, by its id or another of its names; else as `list`."""
        return self._line.call(self._actual.get, agent, config=config, fresh=fresh)

    def install(
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
        return self._line.call(
            self._actual.install,
            agent,
            reinstall=reinstall,
            agent_version=agent_version,
            process_version=process_version,
        )

    def installing(
        self,
        agent: str,
        *,
        reinstall: bool = False,
        agent_version: str | None = None,
        process_version: str | None = None,
    ) -> AbstractContextManager[ServerProgress[InstallProgress, Installed]]:
        """As `install`, but one hears how far it is.

        with agents.installing("claude") as progress:
            for step in progress: print(step.step, step.message)
        print(progress.outcome.artifacts)
        """
        return self._line.enter(
            self._actual.installing(
                agent, reinstall=reinstall, agent_version=agent_version, process_version=process_version
            ),
            ServerProgress,
        )
