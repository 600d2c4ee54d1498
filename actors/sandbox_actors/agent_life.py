"""What becomes of a session's agent: it comes up, is there, and goes, by itself or because somebody wants it so.

All of this happens within the session's actor, told by the task of the incarnation. The state of the session follows
the agent's: see `session`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias, assert_never

import trio

from sandbox_supervisor import Reply

from . import notices
from .berths import Lodging
from .errors import AgentProcessExited, AgentUnavailable, SessionClosed, SessionOpenFailed
from .incarnations import Incarnations
from .messages import (
    AgentCalled,
    AgentDown,
    AgentGivenUp,
    AgentReady,
    AgentRestarting,
    AgentUp,
    NoBerth,
    OpeningFailed,
)
from .routed import DAEMON, NOTICE, Routed

if TYPE_CHECKING:
    from .catalog import Catalog
    from .errors import Refusal
    from .session import Session

__all__ = ["AgentLife", "News"]

News: TypeAlias = (
    NoBerth | AgentUp | AgentCalled | AgentReady | OpeningFailed | AgentDown | AgentRestarting | AgentGivenUp
)
"""What the task of the incarnation tells."""


class AgentLife:
    """See the module.

    Attributes:
      pid: of the process, where there is one.
    """

    def __init__(self, session: Session, catalog: Catalog) -> None:
        self.pid: int | None = None
        self._session = session
        self._first = session.log.row.incarnation + 1
        self._again = False
        self._refusal: Refusal | None = None
        self._restart_at = math.inf
        self._lodging = Lodging(session.setting.berths, session.resting)
        self._incarnations = Incarnations(
            session.ref,
            session.log,
            catalog,
            session.setting,
            session.memory,
            session.node,
            self._lodging,
            session.started,
            session.asking.services.run,
        )

    async def run(self) -> None:
        """Be the task that keeps the agent."""
        await self._incarnations.run()

    @property
    def restart_in(self) -> float:
        """Seconds until the next incarnation, after a crash."""
        return max(0.0, self._restart_at - trio.current_time())

    # -- what is wanted

    def wake(self) -> None:
        """Have it started. Raises `AgentLimitReached`."""
        session = self._session
        self._lodging.book()
        session.enter("starting")
        if session.opened.settled and session.memory.main is None:
            session.opened = Reply()  # it failed before; this is another try
        if self._incarnations.running:
            self._again = True  # it is being ended: the next one comes after it
        else:
            self._incarnations.want()

    def stop(self) -> None:
        """End it; the next prompt starts it again."""
        self._session.enter("stopped")
        self._lodging.vacate()
        self._incarnations.stop()

    def stay(self) -> None:
        """It is not ended, though another session needs its berth."""
        self._lodging.stay()

    def restart(self, refusal: Refusal | None) -> None:
        """End it, and start it again.

        Args:
          refusal: the answer to what it works on; None: that its process has ended.
        """
        if self._session.state == "closed":
            return  # it is being ended for good
        waits = self._session.state == "starting"
        self._session.enter("starting")  # what comes now is for the next one
        if self._incarnations.running:
            self._again = True
            self._refusal = refusal
            self._incarnations.stop()
        elif not waits:  # a start that waits for its berth is what is wanted
            self._incarnations.renew()

    def leave(self) -> None:
        """Nothing of it is left, and there will be none."""
        self._lodging.leave()

    def close(self) -> None:
        """End it, and start none again."""
        session = self._session
        session.enter("closed")
        session.prompting.fail_waiting(SessionClosed())
        self._incarnations.closed = True
        self._incarnations.stop()
        if self._incarnations.running:
            self._lodging.vacate()
        else:
            self._incarnations.abandon()
            self._lodging.leave()
            if (routed := session.router.lost(SessionClosed())).envelopes:  # it waited for an agent to come up
                session.remember()
                session.record(routed)
            session.line.down()
            session.started.refuse(SessionClosed())
            session.opened.refuse(SessionClosed())
            session.closed.set()

    def close_for_good(self) -> None:
        """The same, for every later daemon as well."""
        session = self._session
        if not session.memory.closed:
            session.memory.closed = True
            session.remember()
            session.tell_clients([notices.session_closed()])
            self.close()

    # -- what is told

    def hear(self, news: News) -> None:
        match news:
            case NoBerth():
                self._no_berth(news.refusal)
            case AgentUp():
                self._up(news)
            case AgentCalled():
                self._called(news)
            case AgentReady():
                self._ready(news)
            case OpeningFailed():
                self._opening_failed(news.refusal)
            case AgentDown():
                self._down(news)
            case AgentRestarting():
                self._restarting(news)
            case AgentGivenUp():
                self._given_up(news.reason)
            case _:
                assert_never(news)

    def _no_berth(self, refusal: Refusal) -> None:
        session = self._session
        if session.state == "starting" and not self._incarnations.running:
            self._lodging.leave()
            session.enter("stopped")
            routed = session.router.lost(refusal)
            session.remember()
            session.record(routed)
            session.line.down()
            session.prompting.fail_waiting(refusal)
            session.started.refuse(refusal)
            session.opened.refuse(refusal)

    def _up(self, news: AgentUp) -> None:
        session = self._session
        session.log.row.incarnation = news.incarnation
        session.node.details["pid"] = self.pid = news.pid
        session.line.up(news.outbox)
        session.memory.running = True
        session.remember()
        session.started.settle(None)
        if session.state != "closed":
            session.enter("starting")

    def _called(self, news: AgentCalled) -> None:
        session = self._session
        if session.line.is_up:
            envelope = session.router.call(news.method, news.params, news.answer, muted=news.muted, learn=news.learn)
            session.record(Routed([DAEMON], [envelope]))
            session.line.put(envelope, news.servers)

    def _ready(self, news: AgentReady) -> None:
        session = self._session
        if session.state != "starting" or self._again:
            return
        session.router.recovered(news.recovered)
        session.router.settled = True
        session.memory.main = news.opened or session.memory.main
        opened = session.opened
        if news.recovered or news.opened:
            session.remember(lambda: opened.settle(None))
        else:
            opened.settle(None)
        # The first incarnation of a session that is made again under a deleted id is no restart.
        if news.recovered or news.incarnation > self._first:
            told = [notices.session_recovered(recovered, news.incarnation) for recovered in news.recovered]
            session.tell_clients([*told, notices.agent_restarted(news.incarnation)])
        session.enter("ready")
        session.line.ready(news.recovered)
        session.prompting.advance()
        session.resting.begin()

    def _opening_failed(self, refusal: Refusal) -> None:
        session = self._session
        if session.state == "starting" and not self._again:
            session.opened.refuse(refusal)
            session.prompting.fail_waiting(refusal)
            self.stop()

    def _down(self, news: AgentDown) -> None:
        session = self._session
        session.log.row.incarnation = news.incarnation
        refusal: Refusal = self._refusal or AgentProcessExited(news.status, news.stderr)
        if session.state == "closed":
            refusal = SessionClosed()
        again = self._again and not news.crashed and session.state != "closed"
        self._again, self._refusal = False, None
        routed = session.router.lost(refusal, session.line.held() if again else ())
        routed.add(NOTICE, notices.agent_exited(news.incarnation, news.status, news.stderr, news.reason))
        session.memory.running = False
        session.remember()
        session.record(routed)
        session.line.down(again=again)
        session.resting.end()
        session.router.settled = False
        self._incarnations.running = False
        self._lodging.ended(crashed=news.crashed)
        session.node.details.pop("pid", None)
        self.pid = None
        # An agent that ends well before it is ready would do so for ever; one that was ready has got on by a turn.
        if not news.crashed and not again and session.state == "starting":
            session.prompting.fail_waiting(refusal)
        if not again:
            session.opened.refuse(SessionOpenFailed(str(refusal)))
        if session.state == "closed":
            self._lodging.leave()
            session.closed.set()
            return
        self._restart_at = trio.current_time()
        session.enter("backoff" if news.crashed else "stopped")
        if news.crashed:
            return
        if again or session.turns.queued:
            self.wake()  # it has its berth still, or a claim of its own
        else:
            self._lodging.leave()

    def _restarting(self, news: AgentRestarting) -> None:
        if self._session.state == "backoff":  # or somebody was faster
            self._restart_at = trio.current_time() + news.delay
            self._session.tell_clients([notices.agent_restarting(news.incarnation + 1, news.delay, news.crashes)])

    def _given_up(self, reason: str) -> None:
        session = self._session
        if session.state == "backoff":
            self._lodging.leave()
            session.enter("failed")
            session.tell_clients([notices.agent_failed(reason)])
            session.prompting.fail_waiting(AgentUnavailable(reason, None))
