"""An agent that is ended because somebody wants it so: to start again at once, or when there is something to do.

A session hibernates: its agent is ended while there is nothing to do, and the next request starts it again, with its
conversation. It does so when it is asked to, when it has been idle for its limit, or when another session needs its
berth. Idle is an agent that nobody waits for: no request is under way in either direction, no turn waits, and no
terminal of its runs. The limit is looked at when it may be over, so activity costs nothing but a note of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from sandbox_supervisor import ActorStopped, MailboxFull

from . import notices
from .errors import AgentUnavailable, Refusal, SessionBusy, SessionClosed
from .messages import IdleOverdue, MakeRoom

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Reason", "Resting"]

Reason: TypeAlias = Literal["idle", "requested", "room"]

TIMER = "idle"


class Resting:
    """See the module. For its berth it is the session, see `berths.Tenant`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._busy_at = trio.current_time()

    # -- what clients ask for

    def restart(self) -> None:
        """Have a new incarnation, at once. What the agent works on fails; what waits for it waits on.

        Raises:
          SessionClosed, AgentLimitReached.
        """
        session = self._session
        match session.state:
            case "closed":
                raise SessionClosed
            case "stopped" | "failed":
                session.wake()
            case "starting" | "ready" | "backoff":
                session.restart_agent(_Restarted())

    def hibernate(self) -> None:
        """End an agent that has nothing to do. Raises `SessionClosed`, `AgentUnavailable`, `SessionBusy`."""
        session = self._session
        match session.state:
            case "closed":
                raise SessionClosed
            case "backoff":
                raise AgentUnavailable("the agent crashed and is about to be started again", session.restart_in)
            case "stopped" | "failed":
                return
            case "starting" | "ready":
                if self._working:
                    raise SessionBusy
                self._rest("requested")

    # -- what nobody asks for

    def begin(self) -> None:
        """The agent is there, or its limit is another one: look when it may be over."""
        if (limit := self._limit) and self._session.state == "ready":
            self._session.timers.set(TIMER, limit, IdleOverdue())
        else:
            self.end()

    def end(self) -> None:
        """The agent is gone: look no more."""
        self._session.timers.drop(TIMER)

    def look(self) -> None:
        """The limit may be over."""
        session, limit = self._session, self._limit
        if not limit or session.state != "ready":
            return
        if self._busy:
            self._busy_at = trio.current_time()
        idle = trio.current_time() - max(self._busy_at, session.active_at)
        if idle >= limit:
            self._rest("idle")
        else:
            session.timers.set(TIMER, limit - idle, IdleOverdue())

    def asked_for_room(self) -> None:
        """Another session needs the berth."""
        if self.idle_since is None:
            self._session.keep_agent()
        else:
            self._rest("room")

    @property
    def idle_since(self) -> float | None:
        """When there was last something to do; None where there is, or where it must not be ended for others."""
        if self._busy or self._session.setup.idle_limit == 0:
            return None
        return self._session.active_at

    def make_room(self) -> bool:
        """Have the session told that its berth is needed; False where it does not listen."""
        try:
            self._session.ref.offer(MakeRoom())
        except (MailboxFull, ActorStopped):
            return False
        return True

    # -- inside

    @property
    def _limit(self) -> float:
        own = self._session.setup.idle_limit
        return self._session.setting.idle_limit if own is None else own

    @property
    def _working(self) -> bool:
        """Whether somebody waits for something."""
        session = self._session
        return (
            session.state != "ready"
            or bool(session.turns.open)
            or session.router.waits
            or session.asking.services.busy > 0
            or not session.line.is_clear
        )

    @property
    def _busy(self) -> bool:
        """Whether there is a reason not to end the agent unasked: what is yet to be read may be another one."""
        return self._working or self._session.asking.services.runs_terminals or self._session.has_mail

    def _rest(self, reason: Reason) -> None:
        session = self._session
        idle = trio.current_time() - session.active_at
        session.tell_clients([notices.agent_hibernated(reason, idle)])
        session.stop_agent()


class _Restarted(Refusal):
    """The agent was restarted while it worked on the request, which is not repeated: it may have acted."""

    name = "restarted"

    def __init__(self) -> None:
        super().__init__("the agent was restarted by request before it answered")
