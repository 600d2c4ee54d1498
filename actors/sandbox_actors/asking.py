"""What the agent asks of its clients, on its way: to people, to the rules of a policy, or to the daemon itself.

    session/request_permission, elicitation/create   the book of permissions, and every client
    fs/*, terminal/*, unless a client serves them    the daemon's own files and processes
    anything else                                    every client

All of this happens within the session's actor, but for the serving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from .envelope import decode, error_response
from .errors import Refusal
from .messages import Say
from .permissions.book import Permissions
from .routed import DAEMON, Routed
from .services import Services

if TYPE_CHECKING:
    from sandbox_supervisor import Reply

    from .messages import AnswerPermission
    from .session import Session

__all__ = ["Asking"]


class Asking:
    """See the module. `permissions` is what everybody may look at."""

    def __init__(self, session: Session) -> None:
        self.permissions = Permissions(session.memory, session.timers)
        self.services = Services(session.setting.files, session.setting.processes, session.memory, session.ref)
        self._session = session

    def answer(self, answer: AnswerPermission, reply: Reply[object]) -> None:
        """A client answers; it is told as soon as that is durable.

        Raises:
          PermissionNotFound, PermissionResolved, InvalidRequest, AgentBusy, Overloaded.
        """
        self._session.line.check_room()
        routed = Routed()
        permission = self.permissions.answer(answer, routed)
        routed.then.append(lambda: reply.settle(permission))
        self.carry_out(routed)

    def overdue(self, id: str) -> None:
        """Nobody has answered a permission in time."""
        routed = Routed()
        self.permissions.overdue(id, routed)
        self.carry_out(routed)

    def cancel(self, session_id: str | None) -> None:
        """What goes on in an ACP session was cancelled: nobody will answer for it."""
        routed = Routed()
        self.permissions.cancel(session_id, "cancel", routed)
        self.carry_out(routed)

    def policy_changed(self) -> None:
        """The session has another policy, from now on."""
        routed = Routed()
        self.permissions.policy_changed(routed)
        self.carry_out(routed)

    def served(self, envelope: bytes) -> None:
        """The daemon has served a request."""
        head = decode(envelope)
        try:
            self._session.line.check_room()
        except Refusal as full:
            # An agent that asks and does not read what it is told must not fill the daemon's memory with answers.
            assert isinstance(head.id, Raw)
            envelope = error_response(head.id, full)
        self._session.record(Routed([DAEMON], [envelope]))
        self._session.line.pass_on(Say(envelope, head))

    def carry_out(self, routed: Routed) -> None:
        """Record what was decided, and do it."""
        session = self._session
        if routed.learned:
            session.remember()
        session.record(routed)
        for envelope in routed.to_agent:
            session.line.pass_on(Say(envelope, decode(envelope)))
        for id in routed.withdrawn:
            self.services.withdraw(id)
        for asked in routed.asked:
            if (refused := self.services.begin(asked)) is not None:
                self.served(refused)
