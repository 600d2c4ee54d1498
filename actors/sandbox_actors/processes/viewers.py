"""Who looks at a terminal. All may write, until one takes over: then that one alone, until it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ProcessTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Viewer", "Viewers"]

VIEWERS_LIMIT = 32
"""Each is sent all there is to see: a hundred forgotten windows would cost a hundred times as much."""


class Viewer:
    """One of them."""


class Viewers:
    """See the module.

    Args:
      changed: called whenever one comes or goes.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._present: set[Viewer] = set()
        self._writer: Viewer | None = None
        self._changed = changed

    def __len__(self) -> int:
        return len(self._present)

    def enter(self) -> Viewer:
        """Raises `ProcessTrouble` if there are too many."""
        if len(self._present) >= VIEWERS_LIMIT:
            raise ProcessTrouble(f"the terminal has {VIEWERS_LIMIT} viewers already")
        viewer = Viewer()
        self._present.add(viewer)
        self._changed()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self.release(viewer)
        self._present.discard(viewer)
        self._changed()

    def take_over(self, viewer: Viewer) -> None:
        """From now on only this one may write."""
        self._writer = viewer

    def release(self, viewer: Viewer) -> None:
        """Where it is this one that has taken over, all may write again."""
        if self._writer is viewer:
            self._writer = None

    def may_write(self, viewer: Viewer) -> bool:
        return self._writer is None or self._writer is viewer
