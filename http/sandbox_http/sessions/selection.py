"""Which events of a session a reader wants to see: of some kinds, of one turn, behind a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import has_websocket_context, request, websocket

from sandbox_actors.errors import TurnNotFound
from sandbox_actors.kinds import Kinds, glance, kind_of
from sandbox_actors.turn_spans import TurnSpans

from ..numbers import event_number
from ..problems import Problem
from .frames import Frame, all_frames, event_text

if TYPE_CHECKING:
    from sandbox_actors.journal import Cursor, Page
    from sandbox_actors.session import Session

__all__ = ["Selection", "select"]

LATEST = "latest"
"""As `after`: from now on."""

MOST_KINDS = 64


class Selection:
    """See the module.

    Attributes:
      after: the number behind which events are told.
      cursor: from where they are read: a turn can only be followed from its beginning.
    """

    def __init__(self, cursor: Cursor, after: int, kinds: Kinds, turn: str | None, *, everything: bool) -> None:
        self.cursor = cursor
        self.after = after
        self._kinds = kinds
        self._turn = turn
        self._spans = TurnSpans()
        self._everything = everything

    @property
    def position(self) -> int:
        """The number up to which all has been told that there is to tell."""
        return max(self.after, self.cursor.position)

    def skipped(self) -> None:
        """Events are missing: from here on, nothing of what was before is known."""
        self._spans = TurnSpans()
        self.after = self.cursor.position

    def frames(self, page: Page) -> tuple[Frame, ...]:
        """The frames of those events of the next page that are wanted."""
        if self._everything:
            return all_frames(page)
        chosen: list[Frame] = []
        for event in page.events():
            seen = glance(event.envelope)
            kind = kind_of(event.origin, seen)
            if self._turn is not None:
                span = self._spans.of(event, seen)
                if span is None or span.turn_id != self._turn:
                    continue
            if event.seq > self.after and kind in self._kinds:
                chosen.append(Frame("event", event.seq, event_text(event, kind)))
        return tuple(chosen)


def select(session: Session, after: int | None) -> Selection:
    """What the present request, or handshake, wants to see: `after`, `epoch`, `kind` (repeatable) and `turn`.

    Args:
      after: the number from a header, which is newer than the one in the query: a browser connects again with both.

    Raises:
      Problem: a parameter makes no sense.
    """
    args = (websocket if has_websocket_context() else request).args
    log, kinds, turn = session.log, args.getlist("kind"), args.get("turn")
    if len(kinds) > MOST_KINDS:
        raise Problem("invalid_request", f"no more than {MOST_KINDS} kinds can be asked for at once")
    text = args.get("after", "")
    asked = log.head if text == LATEST else event_number(text, "after")
    if after is None:
        after = asked
    if after is None:
        after = log.floor - 1
    start = after
    if turn is not None and after < log.next_seq:
        start = min(after, _before(session, turn))
    cursor = log.cursor(start, args.get("epoch"))
    return Selection(cursor, after, Kinds(kinds), turn, everything=not kinds and turn is None)


def _before(session: Session, turn: str) -> int:
    """The number of an event before a turn; where it is not known any more, of the oldest there is."""
    try:
        return max(session.turns.get(turn).seq, session.log.floor) - 1
    except TurnNotFound:
        return session.log.floor - 1
