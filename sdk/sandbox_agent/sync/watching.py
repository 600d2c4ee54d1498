# Written by scripts/make-sync from ../watching.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.watching`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..watching import Change
    from ..watching import Watching as AsyncWatching
    from ._line import Line


__all__ = ["Watching"]


class Watching:
    """An iterator over changes, to be used as a context manager, too. See `Files.watch`."""

    def __init__(self, actual: AsyncWatching, line: Line) -> None:
        self._actual = actual
        self._line = line

    def __iter__(self) -> Watching:
        return self

    def __next__(self) -> Change:
        return self._line.next(self._actual)
