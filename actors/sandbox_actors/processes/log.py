"""The log of a process: its last output, bounded by bytes; readers hold a cursor, never a queue.

Each read of the child's output is one entry. Entries are numbered from 1 over all streams, and know the byte of their
stream they begin at. What is too old is dropped, and of the oldest entry that is kept perhaps its begin.

A cursor is the number of the last entry seen. So whoever reads what there is and then follows loses nothing in
between, a slow reader costs nothing, and what was dropped before it came to it is told to it: a `Gap`.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, TypeAlias

import trio

__all__ = ["Entry", "Gap", "LogCursor", "ProcessLog", "Stream"]

Stream: TypeAlias = Literal["stdout", "stderr", "pty"]

ENTRIES_LIMIT = 1 << 17
"""A program that writes byte by byte must not cost a hundred times the bytes that it may."""

PIECE = 256 << 10
"""Bytes that a cursor gives at once, about: enough for few wake-ups, and little to hold for a reader that is slow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of output.

    Attributes:
      sequence: its number in the log.
      offset: how many bytes its stream had before it.
      position: how many bytes all streams had before it.
    """

    sequence: int
    stream: Stream
    timestamp_ms: int
    offset: int
    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that a reader wanted and that have been dropped.

    Attributes:
      first, last: their numbers; none of them where only the start of the next entry was dropped.
      bytes: what they held, where that is known: not to who names a number out of the blue.
    """

    first: int
    last: int
    bytes: int | None


class ProcessLog:
    """See the module.

    Args:
      limit: bytes that are kept.

    Attributes:
      head: the number of the latest entry, 0 before the first.
      size: bytes that are kept at present.
    """

    def __init__(self, limit: int) -> None:
        self.head = 0
        self.size = 0
        self.ended = False
        self._limit = limit
        self._entries: deque[Entry] = deque()
        self._written = 0
        self._offsets: dict[Stream, int] = {}
        self._grown = trio.lowlevel.ParkingLot()

    @property
    def floor(self) -> int:
        """The number of the oldest entry that is kept; the next one's where there is none."""
        return self.head + 1 - len(self._entries)

    def append(self, stream: Stream, data: bytes) -> None:
        """Take in a piece of output. Never waits, so no reader can hold up the child."""
        offset = self._offsets.get(stream, 0)
        self.head += 1
        self._entries.append(Entry(self.head, stream, time.time_ns() // 1_000_000, offset, self._written, data))
        self._offsets[stream] = offset + len(data)
        self._written += len(data)
        self.size += len(data)
        while (excess := self.size - self._limit) >= len(self._entries[0].data) or len(self._entries) > ENTRIES_LIMIT:
            self.size -= len(self._entries.popleft().data)
        if excess > 0:
            # In place of the oldest its end, so that what is kept does not depend on how the output came in pieces.
            oldest = self._entries.popleft()
            offset, position = oldest.offset + excess, oldest.position + excess
            self._entries.appendleft(replace(oldest, offset=offset, position=position, data=oldest.data[excess:]))
            self.size = self._limit
        self._grown.unpark_all()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._grown.unpark_all()

    def after(self, sequence: int, at_most: int | None = None) -> list[Entry]:
        """The entries behind a number, in order.

        Args:
          at_most: bytes, about: one entry more than that at most, and one in any case.
        """
        wanted = self.head - max(sequence, self.floor - 1)
        skipped = len(self._entries) - wanted
        if wanted <= 0:
            return []
        if wanted < skipped:
            entries = list(islice(reversed(self._entries), wanted))
            entries.reverse()
        else:
            entries = list(islice(self._entries, skipped, None))
        if at_most is None:
            return entries
        taken = 0
        for index, entry in enumerate(entries):
            taken += len(entry.data)
            if taken >= at_most:
                return entries[: index + 1]
        return entries

    def cursor(self, after: int = 0) -> LogCursor:
        """A reader of what comes behind a number, from then on for ever."""
        if after == 0:
            return LogCursor(self, 0, 0)
        if not self.floor - 1 <= after <= self.head:
            return LogCursor(self, after, None)
        behind = self.after(after, 1)
        return LogCursor(self, after, behind[0].position if behind else self._written)

    def tail(self, size: int) -> LogCursor:
        """A reader of the last bytes, about so many, and then of what comes."""
        start, taken = self.head, 0
        position = self._written
        for entry in reversed(self._entries):
            taken += len(entry.data)
            if taken > size:
                break
            start, position = entry.sequence - 1, entry.position
        return LogCursor(self, start, position)

    async def grown(self) -> None:
        """Wait for more, or for the end."""
        await self._grown.park()


class LogCursor:
    """A place in a log. Iterate over it: lists of entries and gaps, until the log has ended.

    Attributes:
      position: the number of the last entry seen.
    """

    def __init__(self, log: ProcessLog, position: int, seen: int | None) -> None:
        self.position = position
        self._log = log
        self._seen = seen

    def __aiter__(self) -> LogCursor:
        return self

    async def __anext__(self) -> list[Entry] | Gap:
        if self._log.head > self.position or self._log.ended:
            # Also where there is much to read: nobody else may starve for it.
            await trio.lowlevel.checkpoint()
        while not (entries := self._log.after(self.position, PIECE)):
            if self._log.ended:
                raise StopAsyncIteration
            await self._log.grown()
        first = entries[0]
        lost = None if self._seen is None else first.position - self._seen
        if first.sequence > self.position + 1 or lost:
            gap = Gap(self.position + 1, first.sequence - 1, lost)
            self.position, self._seen = first.sequence - 1, first.position
            return gap
        self.position, self._seen = entries[-1].sequence, entries[-1].position + len(entries[-1].data)
        return entries
