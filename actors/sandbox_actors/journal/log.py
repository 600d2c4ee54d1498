"""A session's log, as the daemon holds it: where it begins and ends, its newest pages, and its readers' cursors.

Readers hold a cursor, never a queue: a number and nothing else. A reader that lags costs no memory, one that is at the
end parks until the log grows. Live events and a replay from disk are the same code path.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING

import trio

from .page import Gap, Page
from .store import DamagedPage

if TYPE_CHECKING:
    from .journal import Journal
    from .store import SessionRow

__all__ = ["Cursor", "RecentPages", "SessionLog"]

READ_LIMIT = 64 << 10
"""Bytes of envelopes that one read hands out, or one page: enough that a send costs little beside them. A reader that
stops in the middle of a send holds a few times this much."""

PAGE_OVERHEAD = 400
"""Bytes of Python objects beside the body, for the count of what the recent pages take."""


class RecentPages:
    """The newest pages of all sessions, oldest dropped first: one bound for the whole daemon."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._order: deque[SessionLog] = deque()

    def add(self, log: SessionLog, page: Page) -> None:
        log.recent.append(page)
        self._order.append(log)
        self._size += len(page.body) + PAGE_OVERHEAD
        while self._size > self._limit:
            # A log's own pages stand in `_order` in their order, so its oldest page is the one to go.
            oldest = self._order.popleft()
            if oldest.recent_start < len(oldest.recent):
                self._size -= len(oldest.recent[oldest.recent_start].body) + PAGE_OVERHEAD
                oldest.drop_oldest()


class SessionLog:
    """One session's events.

    Attributes:
      row: what the file keeps of the session beside its events. `row.head` is the number of the last event that is
        durable and so visible; `row.floor` of the first that is still there.
    """

    def __init__(self, journal: Journal, row: SessionRow) -> None:
        self._journal = journal
        self.row = row
        self.next_seq = row.head + 1
        self.recent: list[Page] = []
        self.recent_start = 0
        self.closed = False
        # For the housekeeper: events and bytes when it last counted or trimmed, and what was added since.
        self.kept: tuple[int, int] | None = None
        self.added_events = self.added_bytes = 0
        self.trimming = False
        self._grown = trio.lowlevel.ParkingLot()

    @property
    def head(self) -> int:
        return self.row.head

    @property
    def floor(self) -> int:
        return self.row.floor

    def drop_oldest(self) -> None:
        # A list with a moving start, trimmed now and then: bisection needs an indexable sequence, and deleting from
        # the front of a list for every page would cost a move of all the rest.
        self.recent_start += 1
        if self.recent_start * 2 > len(self.recent):
            del self.recent[: self.recent_start]
            self.recent_start = 0

    def publish(self, pages: list[Page], recent: RecentPages) -> None:
        """Make committed pages visible."""
        for page in pages:
            recent.add(self, page)
        self.row.head = pages[-1].last
        self._grown.unpark_all()

    def close(self) -> None:
        """End every cursor behind the last event: the session has been deleted."""
        self.closed = True
        self._grown.unpark_all()

    def wake(self) -> None:
        self._grown.unpark_all()

    async def park(self) -> None:
        """Wait until the log has grown, or a cursor of it was closed."""
        await self._grown.park()

    def cursor(self, after: int, epoch: str | None = None) -> Cursor:
        """A reader that has seen everything up to and with event `after`.

        Args:
          epoch: which journal's event that was, where the reader knows. Of another one it has seen nothing of this:
            it gets a gap, and then all there is.
        """
        return Cursor(self, after, stale=epoch is not None and epoch != self._journal.epoch)

    async def read(self, after: int) -> list[Page]:
        """Up to `READ_LIMIT` bytes of the pages behind an event that is not below the floor; empty at the end.

        A page may begin before the event; the cursor cuts it.
        """
        if self.recent_start < len(self.recent) and self.recent[self.recent_start].first <= after + 1:
            start = bisect_right(self.recent, after, lo=self.recent_start, key=attrgetter("last"))
            pages: list[Page] = []
            size = 0
            for page in self.recent[start : start + READ_LIMIT // 64]:
                pages.append(page)
                size += len(page.body)
                if size >= READ_LIMIT:
                    break
            # Only now: while others run, pages may be dropped and places shift.
            await trio.lowlevel.checkpoint()
            return pages
        return await self._journal.read(self.row.key, after, READ_LIMIT)


class Cursor:
    """An async iterator over a log: yields a list of pages, or a `Gap`, and waits at the end for more.

    An object and not an async generator: dropping one early costs nothing and needs no cleanup. Iteration stops when
    the log's session is deleted (after its last event) or when the cursor is closed.
    """

    def __init__(self, log: SessionLog, after: int, *, stale: bool = False) -> None:
        self._log = log
        self._position = after
        self._stale = stale
        self._closed = False

    @property
    def position(self) -> int:
        """The number of the last event handed out or skipped by a gap."""
        return self._position

    @property
    def log(self) -> SessionLog:
        return self._log

    @property
    def behind(self) -> bool:
        """Whether there is more to read without waiting."""
        return self._position < self._log.head

    @property
    def astray(self) -> bool:
        """Whether it names no event of this journal: the next it yields is a gap, and it does not wait for that."""
        return self._stale or (self._position >= self._log.next_seq and not self._log.closed)

    def close(self) -> None:
        """End the iteration now, also where it waits."""
        self._closed = True
        self._log.wake()

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> list[Page] | Gap:
        log = self._log
        while not self._closed:
            # Events up to `next_seq - 1` are on their way to the disk; a cursor beyond them is of another journal.
            if self.astray:
                await trio.lowlevel.checkpoint()  # before anything changes: what is cancelled here was not read
                gap = Gap(log.next_seq, log.next_seq - 1, "epoch" if self._stale else "ahead", log.floor)
                self._stale = False
                self._position = log.floor - 1
                return gap
            if self._position + 1 < log.floor:
                await trio.lowlevel.checkpoint()
                gap = Gap(self._position + 1, log.floor - 1, "retention", log.floor)
                self._position = log.floor - 1
                return gap
            if self._position < log.head:
                try:
                    pages = await log.read(self._position)
                except DamagedPage as damaged:
                    gap = Gap(self._position + 1, damaged.last, "damaged", damaged.last + 1)
                    self._position = damaged.last
                    return gap
                if log.closed and pages and pages[-1].last >= log.next_seq:
                    break  # deleted, and made again under its numbers while this read was under way
                # Retention may have raised the floor while the disk was read: then what was asked for is gone.
                if pages and pages[0].first <= self._position + 1:
                    pages[0] = pages[0].after(self._position)
                    self._position = pages[-1].last
                    return pages
                if log.closed:
                    break  # deleted under a reader that lagged
                if log.floor <= self._position + 1:
                    raise AssertionError(f"journal lost event {self._position + 1} of session {log.row.key}")
            elif log.closed and self._position >= log.next_seq - 1:
                break
            else:
                await log.park()
        raise StopAsyncIteration
