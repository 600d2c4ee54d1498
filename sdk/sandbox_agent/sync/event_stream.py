# Written by scripts/make-sync from ../event_stream.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.event_stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..event_stream import EventStream as AsyncEventStream
    from ..events import Event, Gap
    from ._line import Line


__all__ = ["EventStream"]


class EventStream:
    """See the module. Use it as a context manager, and iterate over it in one thread.

    The stream holds a number, no queue: who reads slowly loses nothing.

    Args:
      path: of the session's events.
      after: the number of the last event that was seen.
      epoch: of the journal that it is of; None: of the one there is.
      follow: whether to go on with what comes, behind what there is.

    Attributes:
      seq: everything up to here was told, or looked at; None before the first frame of a stream from the oldest on.
      epoch: of the journal that `seq` is of. Keep both to go on later.

    Raises:
      SessionDeleted: it was deleted, this was all.
      SessionNotFound: there is none.
      SandboxAgentError: as `Following`.
    """

    def __init__(self, actual: AsyncEventStream, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def seq(self) -> int | None:
        return self._actual.seq

    @property
    def epoch(self) -> str | None:
        return self._actual.epoch

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event | Gap:
        return self._line.next(self._actual)
