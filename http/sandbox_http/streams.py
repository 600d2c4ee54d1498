"""Event streams: a cursor on the journal, turned into SSE or WebSocket frames page by page.

A stream that has nothing to say for `HEARTBEAT` seconds says so, which keeps proxies from closing it and finds out dead
peers. Sources: WHATWG HTML, Server-sent events; JSON-RPC 2.0.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import trio

from sandbox_actors.envelope import notification
from sandbox_actors.journal import Gap, Origin, Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from sandbox_actors.journal import Cursor, SessionLog

__all__ = ["HEARTBEAT", "HEARTBEAT_COMMENT", "HIDDEN", "Streams", "gap_notice", "server_sent_events", "stopping_notice"]

HEARTBEAT = 10.0
"""Seconds. The public wire has 15; common proxies give up after 30 to 60."""

HEARTBEAT_COMMENT = b": heartbeat\n\n"

HIDDEN = Origin.CLIENT.value + Origin.DAEMON.value
"""What the raw stream does not show: it tells what the agent's side says. Its numbers are skipped."""

CACHED_PAGE = 256 << 10
"""Bytes of the largest page whose frames are kept for the next subscriber."""

LEVEL_WITHIN = 0.05
"""Seconds that an answer waits for the streams of its session: a reader that has stalled must not hold it up."""

LAGS = 200
"""Events behind which a stream is not about to catch up."""


class Streams:
    """All open streams, so that they can be told of the shutdown before they are cut."""

    def __init__(self) -> None:
        self._cursors: set[Cursor] = set()
        self._others: set[Callable[[], None]] = set()
        self.draining = False
        self._sent: dict[Cursor, int] = {}
        self._went = trio.lowlevel.ParkingLot()

    def add(self, cursor: Cursor) -> None:
        self._cursors.add(cursor)
        if self.draining:
            cursor.close()

    def remove(self, cursor: Cursor) -> None:
        self._cursors.discard(cursor)
        self._sent.pop(cursor, None)
        self._went.unpark_all()

    @contextmanager
    def told(self, close: Callable[[], None]) -> Generator[None]:
        """What runs in the block is no cursor's stream, and is told by this call."""
        self._others.add(close)
        try:
            if self.draining:
                close()
            yield
        finally:
            self._others.discard(close)

    def sent(self, cursor: Cursor) -> None:
        """All that the cursor has handed out is on its way to the client."""
        self._sent[cursor] = cursor.position
        self._went.unpark_all()

    async def level(self, log: SessionLog) -> None:
        """Wait, not for long, until the event streams of a session have sent what it has by now.

        A stream that lags is not waited for: its reader has stalled, or is reading the past.
        """
        head = log.head
        with trio.move_on_after(LEVEL_WITHIN):
            while any(head - LAGS <= sent < head for cursor, sent in self._sent.items() if cursor.log is log):
                await self._went.park()

    def drain(self) -> None:
        """End every stream, now and from now on."""
        self.draining = True
        for cursor in self._cursors:
            cursor.close()
        for close in list(self._others):
            close()


def gap_notice(gap: Gap, epoch: str) -> bytes:
    """Events that were asked for are not there."""
    params = {"from": gap.first, "to": gap.last, "reason": gap.reason, "next": gap.next, "epoch": epoch}
    return notification("_sandboxagent/journal/gap", params)


def stopping_notice() -> bytes:
    """The daemon is shutting down; connect again later and go on where you were."""
    return notification("_sandboxagent/daemon/stopping", {})


async def server_sent_events(cursor: Cursor, streams: Streams, epoch: str) -> AsyncIterator[bytes]:
    """The body of an SSE response, from a cursor's position to the end of the session or of the daemon."""
    streams.add(cursor)
    try:
        # Hypercorn sends the head of a response together with the first piece of its body.
        yield HEARTBEAT_COMMENT
        while True:
            streams.sent(cursor)
            read: list[Page] | Gap | None = None
            with trio.move_on_after(HEARTBEAT):
                try:
                    read = await anext(cursor)
                except StopAsyncIteration:
                    break
            if read is None:
                yield HEARTBEAT_COMMENT
            elif isinstance(read, Gap):
                yield _unnumbered(gap_notice(read, epoch))
            elif frames := b"".join([_frames(page) for page in read]):
                yield frames
        if streams.draining:
            yield _unnumbered(stopping_notice())
    finally:
        streams.remove(cursor)


def _unnumbered(envelope: bytes) -> bytes:
    return b"event: message\ndata: %b\n\n" % envelope


def _frames(page: Page) -> bytes:
    return _cached_frames(page) if len(page.body) <= CACHED_PAGE else _rendered(page)


def _rendered(page: Page) -> bytes:
    return b"".join([b"event: message\nid: %d\ndata: %b\n\n" % event for event in page.numbered(skip=HIDDEN)])


# Subscribers that are level with each other read the same pages: rendered once, sent to each.
_cached_frames = lru_cache(maxsize=8)(_rendered)
