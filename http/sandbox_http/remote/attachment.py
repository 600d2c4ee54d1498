"""A connection's share in one session: what of the session's log it is told, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_actors.journal import SessionLog
    from sandbox_actors.session import Session

__all__ = ["Attachment"]


@dataclass(slots=True, eq=False)
class Attachment:
    """See the module.

    Attributes:
      server: the session's id.
      log: its log. A session that is deleted and made again has another one.
      since: the last event before the connection came.
      before: the ACP sessions that were there when it came.
      told: the event up to which the connection's own stream was told, or shall go on.
      opened: the ACP sessions that it follows, each with the event up to which its stream was told, or shall go on.
      owed: questions that were open in those when it came, by ACP session: it is to be asked them, too.
    """

    server: str
    log: SessionLog
    since: int
    before: frozenset[str]
    told: int
    opened: dict[str, int] = field(default_factory=dict[str, int])
    owed: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @classmethod
    def to(cls, session: Session) -> Attachment:
        """An attachment from now on."""
        now = session.log.next_seq - 1
        return cls(session.log.row.id, session.log, now, frozenset(session.memory.sessions), now)

    def follow(self, acp_session: str, questions: tuple[str, ...] = (), *, anew: bool = False) -> None:
        """Have the connection told of an ACP session from now on, and of one that began after it came from there.

        Args:
          questions: those that are open in it.
          anew: what was said in it before will be said again.
        """
        if acp_session in self.opened:
            return
        if acp_session in self.before or anew:
            self.opened[acp_session] = self.log.next_seq - 1
            if questions:
                self.owed[acp_session] = questions
        else:
            self.opened[acp_session] = self.since
