# Written by scripts/make-sync from ../turn_stream.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.turn_stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..events import Event, Gap
    from ..models import PromptResult, Turn
    from ..turn_stream import TurnStream as AsyncTurnStream
    from ._line import Line


__all__ = ["TurnStream"]


class TurnStream:
    """The events of a turn, up to its `TurnEnded`: an iterator, made by `Session.stream`.

    Leaving early does not cancel the turn.

    Attributes:
      turn: as it was when it was taken.
    """

    def __init__(self, actual: AsyncTurnStream, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def turn(self) -> Turn:
        return self._actual.turn

    def __iter__(self) -> TurnStream:
        return self

    def __next__(self) -> Event | Gap:
        return self._line.next(self._actual)

    @property
    def result(self) -> PromptResult:
        """What became of the turn.

        Raises:
          RuntimeError: the stream was not read to its end.
        """
        return self._actual.result

    def cancel(self) -> None:
        """Have the agent end the turn; go on reading for what becomes of it."""
        self._line.call(self._actual.cancel)
