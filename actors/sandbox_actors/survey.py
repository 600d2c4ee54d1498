"""What is known of each agent: from the catalog, from its install, and from what the agent says of itself.

An agent that is installed can be asked for the modes and models that it has today. That costs a process and seconds, so
the answer is kept until the agent changes; whoever asks meanwhile waits for the same answer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from sandbox_supervisor import Cookie

from .credentials import discover, home_of
from .description import Asked, Found, describe
from .errors import ShuttingDown
from .installer import is_installed
from .probe import ProbeFailed, probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_supervisor import Reaper

    from .catalog import Agent, Catalog
    from .credentials import Credentials
    from .description import Description, Fingerprint
    from .installer import Installer
    from .session import Session

__all__ = ["Survey"]

PROBE_WITHIN = 60.0
"""Seconds for `initialize` and `session/new`: the slowest real agent took 6 together, and 30 beside many others."""

FAILURE_KEPT = 60.0
"""Seconds for which a failure is told again without asking: by then somebody may have logged in."""

PROBES_AT_ONCE = 2
"""Agents that are asked at the same time: each is a process of some hundred megabytes."""


@dataclass(slots=True, eq=False)
class Survey:
    """See the module.

    Attributes:
      owner, run: of the cookie that a probe's process carries.
    """

    catalog: Catalog
    installer: Installer
    owner: str
    run: str
    reaper: Reaper | None = None
    _asked: dict[str, Asked] = field(default_factory=dict[str, Asked])
    _asking: dict[str, trio.Lock] = field(default_factory=dict[str, trio.Lock])
    _limit: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(PROBES_AT_ONCE))
    _probes: int = 0
    _describing: set[trio.CancelScope] = field(default_factory=set[trio.CancelScope])
    _closed: bool = False

    async def describe(
        self, ids: Sequence[str], sessions: Sequence[Session], *, config: bool = False, fresh: bool = False
    ) -> list[Description]:
        """Describe agents, in the shape of the public wire's `AgentInfo` and with some members more.

        Args:
          sessions: all of the daemon's, to tell which agents run.
          config: whether to tell version, path and options; agents that are installed are asked for these.
          fresh: ask also those that were asked before.

        Raises:
          UnsupportedAgent: an id is unknown.
          ShuttingDown: the survey was closed before all agents had answered.
        """
        agents = [self.catalog.agent(id) for id in ids]
        credentials, found = await trio.to_thread.run_sync(
            lambda: (self._credentials(), {agent.id: self._find(agent) for agent in agents})
        )

        async def ask(agent: Agent) -> None:
            await self._ask(agent, found[agent.id].fingerprint, fresh=fresh)

        with trio.CancelScope() as scope:
            self._describing.add(scope)
            try:
                if self._closed:
                    scope.cancel()
                async with trio.open_nursery() as nursery:
                    for agent in agents:
                        if config and found[agent.id].argv is not None:
                            nursery.start_soon(ask, agent)
            finally:
                self._describing.discard(scope)
        if scope.cancelled_caught:
            raise ShuttingDown
        return [
            describe(
                agent,
                found[agent.id],
                self._asked.get(agent.id),
                sessions,
                self.installer.progress(agent.id),
                credentials=credentials.available(agent.credentials),
                config=config,
            )
            for agent in agents
        ]

    def close(self) -> None:
        """Ask no more agents: whoever waits for one is told at once."""
        self._closed = True
        for scope in self._describing:
            scope.cancel()

    def _credentials(self) -> Credentials:
        return discover(home_of(self.catalog.environment), self.catalog.environment)

    def _find(self, agent: Agent) -> Found:
        if not is_installed(self.catalog, agent.id) or (argv := self.catalog.command(agent.id)) is None:
            return Found()
        installed = self.installer.installed(agent.id)
        if installed is not None:
            path = installed.native or installed.program
        else:
            program = agent.native.program if agent.native is not None else argv[0]
            path = shutil.which(program, path=self.catalog.environment.get("PATH")) or argv[0]
        return Found(argv, _fingerprint(argv), path, installed)

    # -- asking

    async def _ask(self, agent: Agent, fingerprint: Fingerprint, *, fresh: bool) -> None:
        before = self._asked.get(agent.id)
        async with self._asking.setdefault(agent.id, trio.Lock()):
            now = self._asked.get(agent.id)
            if now is not None and _holds(now, fingerprint) and (not fresh or now is not before):
                return
            async with self._limit:
                self._asked[agent.id] = await self._probe(agent, fingerprint)

    async def _probe(self, agent: Agent, fingerprint: Fingerprint) -> Asked:
        self._probes += 1
        cookie = Cookie(self.owner, self.run, f"probe/{self._probes}/{agent.id}")
        launch = self.catalog.launch(agent.id)
        folder = await trio.to_thread.run_sync(lambda: tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        try:
            greeting = await probe(
                launch, cookie=cookie, reaper=self.reaper, cwd=folder.name, session=True, within=PROBE_WITHIN
            )
        except ProbeFailed as failure:
            told = ": ".join([str(failure), *failure.stderr[-1:]])
            return Asked(fingerprint, None, self.catalog.redactor().redact(told, cut=True), trio.current_time())
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(folder.cleanup)
        refusal = greeting.refusal  # such as "invalid API key", with the key
        error = None if refusal is None else self.catalog.redactor().redact(refusal)
        return Asked(fingerprint, greeting, error, trio.current_time())


def _fingerprint(argv: Sequence[str]) -> Fingerprint:
    try:
        status = os.stat(argv[0])
    except OSError:
        return tuple(argv)
    return (*argv, status.st_mtime_ns, status.st_size, status.st_ino)


def _holds(asked: Asked, fingerprint: Fingerprint) -> bool:
    fresh = asked.error is None or trio.current_time() < asked.at + FAILURE_KEPT
    return asked.of == fingerprint and fresh
