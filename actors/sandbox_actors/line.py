"""The line to the agent: what is said waits while an incarnation is brought up, and goes nowhere where there is none.

It is bounded, and refuses loudly when it is full. What an agent is told beside what a client has said is added here:
stored MCP servers where a session is opened, and the transcript where the agent has lost the conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import notices
from .directory_config import merged
from .envelope import decode
from .errors import Overloaded
from .held import Held
from .outbox import BYTES_LIMIT
from .transcript_context import Contexts

if TYPE_CHECKING:
    from .directory_config import StoredServers
    from .messages import Say
    from .outbox import Outbox
    from .recovery import Recovered
    from .session import Session

__all__ = ["Line"]


class Line:
    """See the module."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._outbox: Outbox | None = None
        self._held = Held()
        self._contexts = Contexts()

    @property
    def is_up(self) -> bool:
        """Whether there is a process that reads."""
        return self._outbox is not None

    def up(self, outbox: Outbox) -> None:
        """A new incarnation runs."""
        self._outbox = outbox

    def ready(self, recovered: tuple[Recovered, ...]) -> None:
        """It has its sessions back: what has waited goes to it."""
        self._contexts = Contexts(recovered)
        for said in self._held.take():
            self.pass_on(said)

    @property
    def is_clear(self) -> bool:
        """Whether nothing is on its way to the agent."""
        return self._outbox is None or self._outbox.is_empty

    def held(self) -> frozenset[bytes]:
        """The ids, as text, of the requests that wait for an incarnation to be there."""
        return self._held.requests()

    def down(self, *, again: bool = False) -> None:
        """It has ended; what waited for it has been refused, or waits for the next one."""
        self._outbox = None
        self._contexts = Contexts()
        if not again:
            self._held.take()

    def check_room(self) -> None:
        """Raises `AgentBusy` or `Overloaded` if there is no room for anything more."""
        if self._outbox is not None:
            self._outbox.check()
        self._held.check()
        if self._session.journal.pending_bytes >= BYTES_LIMIT:
            raise Overloaded

    def pass_on(self, said: Say) -> None:
        """Say something to the agent, as soon as it listens."""
        session = self._session
        # Answers pass: an agent may ask while it loads a session, and waits for them.
        if session.state == "starting" and not (said.head.is_response and self.is_up):
            self._held.add(said)
            return
        envelope, head = said.envelope, said.head
        if (told := self._contexts.told_with(envelope, head)) is not None:
            envelope, session_id, notice = told
            head = decode(envelope)
            if (known := session.memory.sessions.get(session_id)) is not None:
                known.owes_context = False
                session.remember()
            session.tell_clients([notice])
        self.put(session.router.for_agent(envelope, head), said.servers)

    def put(self, envelope: bytes, servers: StoredServers | None) -> None:
        """Say something to the agent now, in the ids that it knows."""
        if self._outbox is None:
            return
        if servers is not None:
            envelope, skipped = merged(envelope, servers, self._session.memory.mcp)
            self._session.tell_clients([notices.mcp_skipped(one) for one in skipped])
        self._outbox.put(envelope)
