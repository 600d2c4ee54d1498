"""Which turn an event belongs to, found by reading the events in order.

A turn spans from its prompt to the end that is told of it. What an agent says meanwhile names the ACP session, not the
turn; in one ACP session there is one turn at a time. What names no ACP session either belongs to the only open turn, if
there is just one. Prompts that raw clients send are turns without an id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Raw

from .envelope import id_text
from .journal import Origin

if TYPE_CHECKING:
    from .journal import Event
    from .kinds import Glance

__all__ = ["PROMPT", "Span", "TurnSpans"]

V = TypeVar("V")

PROMPT = "session/prompt"
QUEUED = "_sandboxagent/turn/queued"
STARTED = "_sandboxagent/turn/started"
ENDED = "_sandboxagent/turn/ended"

REMEMBERED = 1024
"""Open turns, and unanswered questions of agents, that are known at once: as many as a session takes."""


@dataclass(slots=True, eq=False)
class Span:
    """One turn.

    Attributes:
      request_id: of its prompt, canonical.
      session_id: its ACP session.
      turn_id: None where a raw client prompted.
    """

    request_id: bytes
    session_id: str | None
    turn_id: str | None = None


class TurnSpans:
    """See the module."""

    def __init__(self) -> None:
        self._open: dict[bytes, Span] = {}
        self._questions: dict[bytes, Span] = {}
        self._queued: dict[bytes, str] = {}

    def of(self, event: Event, seen: Glance) -> Span | None:
        """The turn of the next event."""
        if event.origin is Origin.NOTICE and seen.method:
            return self._of_notice(seen)
        id = id_text(seen.id) if isinstance(seen.id, Raw) else None
        if id is None:
            return self._current(seen.session_id)
        if not seen.method:
            return self._of_answer(event.origin, id)
        if event.origin is Origin.AGENT or seen.method != PROMPT:
            span = self._current(seen.session_id)
            if span is not None and event.origin is not Origin.CLIENT:
                _keep(self._questions, id, span)
            return span
        span = self._open.get(id)
        if span is None:
            # The prompt of a native turn goes by the turn's id, and comes before it is told that the turn has started.
            span = Span(id, seen.session_id, self._queued.pop(id, None))
            _keep(self._open, id, span)
        return span

    def _of_notice(self, seen: Glance) -> Span | None:
        if seen.turn_id is None:
            return self._current(seen.session_id)
        if seen.method == QUEUED:
            _keep(self._queued, id_text(Raw(msgspec.json.encode(seen.turn_id))), seen.turn_id)
        span = next((span for span in self._open.values() if span.turn_id == seen.turn_id), None)
        if seen.method == STARTED and span is None and isinstance(seen.request_id, Raw):
            id = id_text(seen.request_id)
            span = self._open.get(id) or Span(id, seen.session_id)
            span.turn_id = seen.turn_id
            _keep(self._open, id, span)
        elif seen.method == ENDED and span is not None:
            self._close(span)
        elif seen.method == ENDED:
            self._queued.pop(id_text(Raw(msgspec.json.encode(seen.turn_id))), None)
        return span if span is not None else Span(b"", seen.session_id, seen.turn_id)

    def _of_answer(self, origin: Origin, id: bytes) -> Span | None:
        if origin is not Origin.CLIENT and (span := self._open.get(id)) is not None:
            if span.turn_id is None:  # the end of the others is told
                self._close(span)
            return span
        if origin is not Origin.AGENT and (span := self._questions.pop(id, None)) is not None:
            return span
        return self._current(None)

    def _current(self, session_id: str | None) -> Span | None:
        if session_id is not None:
            return next((span for span in reversed(self._open.values()) if span.session_id == session_id), None)
        return next(iter(self._open.values())) if len(self._open) == 1 else None

    def _close(self, span: Span) -> None:
        self._open.pop(span.request_id, None)
        for id in [id for id, asking in self._questions.items() if asking is span]:
            del self._questions[id]


def _keep(known: dict[bytes, V], id: bytes, value: V) -> None:
    known[id] = value
    while len(known) > REMEMBERED:
        del known[next(iter(known))]
