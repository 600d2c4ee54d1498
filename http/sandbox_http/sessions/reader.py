"""A reader of a session's events: frame by frame, from a cursor, as slowly as it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from sandbox_actors.journal import Gap

from ..streams import HEARTBEAT
from .frames import deleted_frame, gap_frame, heartbeat_frame, replay_complete_frame, stopping_frame

if TYPE_CHECKING:
    from sandbox_actors.journal import Page

    from ..streams import Streams
    from .frames import Frame
    from .selection import Selection

__all__ = ["Reader"]


class Reader:
    """See the module. It holds a number, never a queue.

    Args:
      follow: whether it stays for what is yet to come.
    """

    def __init__(self, selection: Selection, streams: Streams, epoch: str, *, follow: bool = True) -> None:
        self._selection = selection
        self._cursor = selection.cursor
        self._streams = streams
        self._epoch = epoch
        self._follow = follow
        self._until = self._cursor.log.head
        self._replaying = True
        self._ended = False
        self._told_at = trio.current_time()

    async def read(self) -> list[Frame]:
        """The next frames, at least one; none at the end."""
        frames: list[Frame] = []
        while not frames and not self._ended:
            frames = await self._next()
        self._told_at = trio.current_time()
        return frames

    async def _next(self) -> list[Frame]:
        if self._replaying and self._cursor.position >= self._until and not self._cursor.astray:
            self._replaying = False
            self._ended = not self._follow
            return [replay_complete_frame(self._selection.position)]
        read: list[Page] | Gap | None = None
        with trio.move_on_at(self._told_at + HEARTBEAT):
            try:
                read = await anext(self._cursor)
            except StopAsyncIteration:
                self._ended = True
                return [stopping_frame() if self._streams.draining else deleted_frame()]
        if read is None:
            return [heartbeat_frame(self._selection.position)]
        if isinstance(read, Gap):
            self._selection.skipped()
            return [gap_frame(read, self._epoch)]
        return [frame for page in read for frame in self._selection.frames(page)]
