"""The agent of a session through all its incarnations: supervised while it is wanted, and asleep in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from sandbox_supervisor import Cookie, Crash, RestartLimitReached, supervise

from .agent import AgentCrashed, AgentProcess
from .errors import AgentLimitReached, AgentStartFailed
from .messages import AgentDown, AgentGivenUp, AgentRestarting, NoBerth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox_supervisor import ActorRef, Node, Reply

    from .berths import Lodging
    from .catalog import Catalog
    from .journal import SessionLog
    from .memory import Memory
    from .messages import Message
    from .setting import Setting

__all__ = ["Incarnations"]

log = structlog.get_logger()


class Incarnations:
    """See the module. The session's actor says what is wanted; `run` is a task of its own beside it.

    Attributes:
      running: an incarnation has begun, and the actor has not yet dealt with its end.
      closed: there will be no other one.
    """

    def __init__(
        self,
        session: ActorRef[Message],
        row: SessionLog,
        catalog: Catalog,
        setting: Setting,
        memory: Memory,
        node: Node,
        lodging: Lodging,
        started: Reply[None],
        serve: Callable[[], Awaitable[None]],
    ) -> None:
        self.running = False
        self.closed = False
        self._session = session
        self._log = row
        self._catalog = catalog
        self._setting = setting
        self._memory = memory
        self._node = node
        self._lodging = lodging
        self._started = started
        self._serve = serve
        self._wanted = trio.Event()
        self._stop = trio.Event()
        self._going = trio.CancelScope()

    def want(self) -> None:
        """Have the agent started; there is a berth for it, or a claim to one."""
        self._wanted.set()

    def abandon(self) -> None:
        """Between two incarnations: do not begin the next one."""
        self._going.cancel()

    def renew(self) -> None:
        """Between two incarnations: begin the next one now. The crashes of before do not count any more."""
        self.abandon()
        self.want()

    def stop(self) -> None:
        """Have the incarnation that runs ended by the ladder."""
        self._stop.set()

    async def run(self) -> None:
        with self._node.child("agent", "agent") as node:
            node.state = "stopped"
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                if self.closed:
                    continue
                with trio.CancelScope() as self._going:
                    await self._supervised(node)

    async def _supervised(self, node: Node) -> None:
        try:
            await self._lodging.granted()
            await supervise(
                self._incarnation,
                self._setting.policy,
                name=f"agent {self._log.row.agent}",
                first=self._log.row.incarnation + 1,
                crashed=self._crashed,
                node=node,
            )
        except AgentLimitReached as refusal:
            await self._session.tell(NoBerth(refusal))
        except RestartLimitReached as error:
            await self._session.tell(AgentGivenUp(str(error)))

    async def _incarnation(self, number: int) -> None:
        if self.closed or self._going.cancel_called:
            return
        self.running = True
        self._stop = trio.Event()
        process = AgentProcess(
            incarnation=number,
            catalog=self._catalog,
            agent=self._log.row.agent,
            cookie=Cookie(self._setting.owner, self._setting.run, f"{self._log.row.key}.{number}"),
            setting=self._setting,
            session=self._session,
            log=self._log,
            memory=self._memory,
            stop=self._stop,
            serve=self._serve,
        )
        try:
            await process.run()
        except Exception as error:
            if process.status is None:  # there was no process, whatever the reason
                self._started.refuse(AgentStartFailed(str(error)))
            reason = str(error) if process.status is None or not isinstance(error, AgentCrashed) else None
            await self._session.tell(AgentDown(number, process.status, process.last_stderr, reason, crashed=True))
            raise
        reason = "stopped" if self._stop.is_set() else None
        await self._session.tell(AgentDown(number, process.status, process.last_stderr, reason, crashed=False))

    async def _crashed(self, crash: Crash) -> None:
        log.warning(
            "agent crashed",
            session=self._log.row.id,
            agent=self._log.row.agent,
            incarnation=crash.incarnation,
            crashes=crash.crashes,
            restart_in=crash.delay,
            error=type(crash.error).__name__,
        )
        if crash.delay is not None:
            await self._session.tell(AgentRestarting(crash.incarnation, crash.delay, crash.crashes))
