"""Turns: a session's prompts, from the moment one is taken to its one outcome.

One turn runs at a time, the others wait in the order they came. A turn never runs twice, and it ends once: `completed`
with the agent's stop reason, `cancelled`, or `failed`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from sandbox_supervisor import Reply

from .errors import TurnNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msgspec import Raw

    from .envelope import Json

__all__ = ["RECENT", "Outcome", "Turn", "Turns"]

Outcome: TypeAlias = Literal["completed", "cancelled", "failed"]

RECENT = 100
"""Ended turns that are told one by one; the journal has them all."""


@dataclass(slots=True, eq=False)
class Turn:
    """One turn.

    Attributes:
      seq: of the event that tells it was taken.
      content: the blocks of its prompt; empty once it has been sent, or where it stems from an earlier daemon.
      acp_session: where it goes, or went; None while that is open.
      request_id: of its prompt on the raw wire, once it runs.
      error: type and detail, where it did not end well.
      usage: what the agent said in its answer.
      cancelling: somebody wants it ended.
      forced: the agent did not end it when it was told to, and was ended itself.
      ended: settled with the turn when its end is durable.
    """

    id: str
    seq: int
    created_ms: int
    content: tuple[Raw, ...] = ()
    acp_session: str | None = None
    state: Literal["queued", "running", "ended"] = "queued"
    started_ms: int | None = None
    ended_ms: int | None = None
    request_id: Raw | None = None
    outcome: Outcome | None = None
    stop_reason: str | None = None
    error: dict[str, Json] | None = None
    usage: Raw | None = None
    cancelling: bool = False
    forced: bool = False
    ended: Reply[Turn] = field(default_factory=Reply["Turn"])

    @property
    def size(self) -> int:
        """Bytes of the prompt that it keeps."""
        return sum(len(bytes(block)) for block in self.content)


class Turns:
    """The turns of one session.

    Args:
      ended: those of earlier daemons, oldest first.
    """

    def __init__(self, ended: Iterable[Turn]) -> None:
        self.running: Turn | None = None
        self._queued: deque[Turn] = deque()
        self._recent: deque[Turn] = deque(ended, maxlen=RECENT)

    @property
    def queued(self) -> tuple[Turn, ...]:
        """Those that wait, in their order."""
        return tuple(self._queued)

    @property
    def recent(self) -> tuple[Turn, ...]:
        """The newest of those that have ended, oldest first."""
        return tuple(self._recent)

    @property
    def open(self) -> tuple[Turn, ...]:
        """The running one and those that wait."""
        return (*([] if self.running is None else [self.running]), *self._queued)

    def get(self, id: str) -> Turn:
        """Raises `TurnNotFound` if it is not known, or not any more."""
        for turn in (*self.open, *reversed(self._recent)):
            if turn.id == id:
                return turn
        raise TurnNotFound(id)

    def add(self, turn: Turn) -> None:
        """One more waits."""
        self._queued.append(turn)

    def start(self) -> Turn:
        """The one that waits longest runs."""
        self.running = self._queued.popleft()
        self.running.state = "running"
        return self.running

    def end(self, turn: Turn) -> None:
        """An open turn has its outcome."""
        if turn is self.running:
            self.running = None
        else:
            self._queued.remove(turn)
        turn.state = "ended"
        turn.content = ()
        self._recent.append(turn)
