"""What is kept of a turn with its session, so that a later daemon knows it.

The journal has all of it, but nobody can say how far back: a turn may have written a gigabyte. So the little that is
told of a turn is kept beside, of those that are open and of the newest that have ended.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import Json
from .native_turns import Outcome, Turn

__all__ = ["KeptTurn"]

AGENTS_WORDS = 1 << 10
"""Bytes of what an agent has added to the end of a turn that are kept, each time the session's memory is written. It
may be nested, too: this is not deep enough to be unreadable."""

DETAIL_LENGTH = 500
"""Characters of an error's detail that are kept where the whole of it is too long."""


class KeptTurn(msgspec.Struct, omit_defaults=True):
    """See the module, and `Turn` for the members. Without its prompt, and without what is too long."""

    id: str
    seq: int = 0
    created_ms: int = 0
    acp_session: str | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    outcome: Outcome | None = None
    stop_reason: str | None = None
    error: dict[str, Json] | None = None
    usage: Raw | UnsetType = UNSET
    forced: bool = False

    @classmethod
    def of(cls, turn: Turn) -> KeptTurn:
        usage = turn.usage if turn.usage is not None and len(bytes(turn.usage)) <= AGENTS_WORDS else None
        return cls(
            turn.id,
            turn.seq,
            turn.created_ms,
            _short(turn.acp_session),
            turn.started_ms,
            turn.ended_ms,
            turn.outcome,
            _short(turn.stop_reason),
            None if turn.error is None else _short_error(turn.error),
            # A copy: a Raw out of a decoder keeps the whole message alive that it was cut from.
            UNSET if usage is None else Raw(bytes(usage)),
            turn.forced,
        )

    def turn(self) -> Turn:
        """The turn, as it can be told; one that was open still is."""
        turn = Turn(self.id, self.seq, self.created_ms, acp_session=self.acp_session, started_ms=self.started_ms)
        turn.outcome, turn.ended_ms, turn.forced = self.outcome, self.ended_ms, self.forced
        turn.stop_reason, turn.error = self.stop_reason, self.error
        turn.usage = self.usage if isinstance(self.usage, Raw) else None
        if turn.outcome is not None:
            turn.state = "ended"
            turn.ended.settle(turn)
        return turn


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= AGENTS_WORDS else None


def _short_error(error: dict[str, Json]) -> dict[str, Json]:
    if len(msgspec.json.encode(error)) <= AGENTS_WORDS:
        return dict(error)
    return {"type": error["type"], "detail": str(error["detail"])[:DETAIL_LENGTH]}
