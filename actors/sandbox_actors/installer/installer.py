"""The installer: the one actor through which agents come into the data directory.

A request joins the install of its agent that is under way, where that will give it what it asks for; otherwise it waits
for its turn. An install is a task of the installer's own, so nobody who gives up takes others along. Whoever watches
one looks at the latest state, whenever there is a new one: nothing is kept for the slow.
"""

from __future__ import annotations

import itertools
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import structlog
import trio

from sandbox_supervisor import ActorError, ActorStopped, Mailbox, Node, Reply, Request, drain

from ..catalog.catalog import MOCK
from ..errors import AgentNotInstalled, InstallFailed, ShuttingDown
from .job import Job, is_installed
from .place import Installed, Place
from .plan import Wish, wished
from .progress import Artifact, Outcome, Progress
from .site import Site

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from sandbox_supervisor import ActorRef, Reaper

    from ..catalog import Agent, Catalog

__all__ = ["Installer", "open_installer"]

log = structlog.get_logger()

MAILBOX = 256
"""Requests that may wait to be looked at; looking at one takes no time."""


@dataclass(frozen=True, slots=True)
class Install(Request[Outcome]):
    """Install an agent."""

    agent: Agent
    wish: Wish


@dataclass(slots=True, eq=False)
class _Running:
    """An install under way.

    Attributes:
      joined: who waits for its outcome.
      scope: cancelled to stop it.
      queued: what comes after it, since it asks for something else.
    """

    wish: Wish
    joined: list[Reply[object]]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    queued: list[tuple[Install, Reply[object]]] = field(default_factory=list[tuple[Install, Reply[object]]])
    progress: Progress | None = None


class Installer:
    """See the module. Made by `open_installer` only."""

    def __init__(
        self,
        catalog: Catalog,
        tools: Path,
        owner: str,
        run: str,
        reaper: Reaper | None,
        node: Node,
        nursery: trio.Nursery,
        ref: ActorRef[Install],
        *,
        offline: bool,
        preinstalled_only: bool,
        verify_within: float,
    ) -> None:
        self._ref = ref
        self._catalog = catalog
        self._tools = tools
        self._owner = owner
        self._run = run
        self._reaper = reaper
        self._node = node
        self._nursery = nursery
        self._offline = offline
        self._preinstalled_only = preinstalled_only
        self._verify_within = verify_within
        self._running: dict[str, _Running] = {}
        self._news: dict[str, trio.Event] = {}
        self._names: Iterator[int] = itertools.count(1)
        self._closed = False

    def installed(self, id: str) -> Installed | None:
        """The manifest of what was installed here; None where an agent is not, or comes from elsewhere, or is broken.

        Raises:
          UnsupportedAgent: there is no such agent at all.
        """
        agent = self._catalog.agent(id)
        return None if agent.command is not None else Place(self._catalog.launchers, agent.id).installed()

    def progress(self, id: str) -> Progress | None:
        """Where the install of an agent is that is under way; None where there is none."""
        running = self._running.get(self._catalog.resolve(id))
        return None if running is None else running.progress

    async def changed(self, id: str) -> None:
        """Wait until an install of this agent has begun, moved on or ended. What happens in between is not told."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        await self._news.setdefault(self._catalog.resolve(id), trio.Event()).wait()

    def under_way(self, id: str) -> Reply[Outcome] | None:
        """What will come of the install of an agent that is under way; None where there is none."""
        running = self._running.get(self._catalog.resolve(id))
        if running is None:
            return None
        reply: Reply[Outcome] = Reply()
        running.joined.append(cast("Reply[object]", reply))  # it is settled with an Outcome
        return reply

    async def install(
        self, id: str, *, reinstall: bool = False, agent_version: str | None = None, process_version: str | None = None
    ) -> Outcome:
        """Install an agent, or wait for the install that is under way: as `begin`, and wait.

        Raises:
          UnsupportedAgent, InvalidRequest, InstallFailed, ShuttingDown: as `begin`, and out of its reply.
        """
        begun = self.begin(id, reinstall=reinstall, agent_version=agent_version, process_version=process_version)
        try:
            return await begun.wait()
        except ActorStopped:
            raise ShuttingDown from None

    def begin(
        self, id: str, *, reinstall: bool = False, agent_version: str | None = None, process_version: str | None = None
    ) -> Reply[Outcome]:
        """Begin to install an agent, or join the install that is under way. To give up waiting stops no install.

        Args:
          reinstall: also where it is installed; what was installed works until the new one does.
          agent_version: of the agent itself.
          process_version: of the adapter, where that is another thing.

        Raises:
          UnsupportedAgent: there is no such agent.
          InvalidRequest: a version is none, or cannot be chosen for this agent.
          ShuttingDown: the installer has been closed. Also out of the reply.
          InstallFailed: this server is offline. Out of the reply: it did not work; what was installed before is as
            it was.
          MailboxFull: too much is asked at once.
        """
        agent, wish = wished(self._catalog.agent(id), Wish(reinstall, agent_version, process_version))
        if self._closed:
            raise ShuttingDown
        done: Reply[Outcome] = Reply()
        if agent.id == MOCK and agent.distribution is None and agent.command is None:
            path = self._catalog.program or sys.executable
            made = (Artifact("agent_process", path, "builtin", "builtin"),) if reinstall else ()
            done.settle(Outcome(not reinstall, made))
        elif self._job(agent, wish).satisfied():
            done.settle(Outcome(already_installed=True))
        elif self._offline:
            message = "installing is switched off (offline); put the agent in place some other way, or allow it"
            raise InstallFailed(agent.id, "offline", message)
        else:
            return self._ref.request(Install(agent, wish))
        return done

    async def ensure(self, id: str) -> None:
        """Install an agent if it is not there.

        Raises:
          AgentNotInstalled: it is not, and only what is there may be used.
          UnsupportedAgent, InstallFailed, ShuttingDown: as `install`.
        """
        id = self._catalog.resolve(id)
        if is_installed(self._catalog, id):
            return
        if self._preinstalled_only:
            raise AgentNotInstalled(
                id, f"this server installs nothing by itself; run 'sandbox-agent install-agent {id}'"
            )
        await self.install(id)

    async def receive(self, message: Install, reply: Reply[object]) -> None:
        """Deal with one request: begin, join or queue."""
        if self._closed:
            raise ShuttingDown
        self._take(message, reply)

    def _take(self, message: Install, reply: Reply[object]) -> None:
        running = self._running.get(message.agent.id)
        if running is None:
            self._running[message.agent.id] = running = _Running(message.wish, [reply])
            self._nursery.start_soon(self._work, message, running)
        elif message.wish.is_plain or message.wish == running.wish:
            running.joined.append(reply)
        else:
            running.queued.append((message, reply))

    async def _work(self, message: Install, running: _Running) -> None:
        id = message.agent.id
        outcome: Outcome | ActorError = ShuttingDown()
        try:
            with running.scope, self._node.child(id, "install"):
                outcome = await self._job(message.agent, message.wish).run()
        except InstallFailed as failure:
            log.warning("install failed", agent=id, reason=failure.reason, error=str(failure))
            outcome = failure
        except Exception as crash:
            log.error("install crashed", agent=id, exc_info=crash)
            outcome = InstallFailed(id, "failed", "an error of our own; the log says more")
        finally:
            del self._running[id]
            _answer(running.joined, outcome)
            self._wake(id)
            for request, reply in running.queued:
                if self._closed:
                    reply.refuse(ShuttingDown())
                else:
                    self._take(request, reply)

    def _job(self, agent: Agent, wish: Wish) -> Job:
        def tell(progress: Progress) -> None:
            if (running := self._running.get(agent.id)) is not None:
                running.progress = progress
            self._wake(agent.id)

        site = Site(agent.id, self._catalog.environment, self._owner, self._run, self._reaper, tell, self._names)
        return Job(self._catalog, agent, wish, site, self._tools, self._verify_within)

    def _wake(self, id: str) -> None:
        if (event := self._news.pop(id, None)) is not None:
            event.set()

    def close(self) -> None:
        """Take no more requests and stop what is under way. All who wait are told at once."""
        self._closed = True
        for running in self._running.values():
            running.scope.cancel()
            _answer([*running.joined, *(reply for _, reply in running.queued)], ShuttingDown())
        for id in list(self._news):
            self._wake(id)


def _answer(replies: list[Reply[object]], outcome: Outcome | ActorError) -> None:
    for reply in replies:
        if isinstance(outcome, Outcome):
            reply.settle(outcome)
        else:
            reply.refuse(outcome)


@asynccontextmanager
async def open_installer(
    catalog: Catalog,
    directory: Path,
    *,
    owner: str,
    run: str,
    reaper: Reaper | None = None,
    node: Node | None = None,
    offline: bool = False,
    preinstalled_only: bool = False,
    verify_within: float = 60.0,
) -> AsyncGenerator[Installer]:
    """The installer, for as long as the block runs. Installs under way at its end are stopped, and leave nothing.

    Args:
      directory: where launchers and installs are; the catalog's.
      owner, run: of the cookie that every child carries.
      node: its place in the supervision tree.
      offline: whether installing anything is refused.
      preinstalled_only: whether `ensure` refuses what is not there.
      verify_within: seconds for a new install to answer.
    """
    assert directory == catalog.launchers
    mailbox: Mailbox[Install] = Mailbox(MAILBOX)
    try:
        async with trio.open_nursery() as nursery:
            installer = Installer(
                catalog,
                directory.parent / "tools",
                owner,
                run,
                reaper,
                node or Node("installer", "installer"),
                nursery,
                mailbox.ref,
                offline=offline,
                preinstalled_only=preinstalled_only,
                verify_within=verify_within,
            )
            nursery.start_soon(drain, mailbox, installer.receive)
            try:
                yield installer
            finally:
                installer.close()
                nursery.cancel_scope.cancel()
    finally:
        mailbox.close()
