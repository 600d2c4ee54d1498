# Written by scripts/make-sync from ../process_log.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.process_log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..process_log import ProcessLog as AsyncProcessLog
    from ..process_models import Exit, LogEntry
    from ._line import Line


__all__ = ["ProcessLog"]


class ProcessLog:
    """An iterator over `LogEntry`, to be used as a context manager, too. See `Process.follow`.

    Attributes:
      missed: entries that were dropped before we came to them.
      exit: how the process ended, once the iteration has.
    """

    def __init__(self, actual: AsyncProcessLog, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def missed(self) -> int:
        return self._actual.missed

    @property
    def exit(self) -> Exit | None:
        return self._actual.exit

    def __iter__(self) -> ProcessLog:
        return self

    def __next__(self) -> LogEntry:
        return self._line.next(self._actual)
