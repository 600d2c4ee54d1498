"""The event streams of a connection: one for what belongs to no ACP session, and one for each of its ACP sessions.

A stream is a cursor, so what happens before it is opened, or while it is cut, is not lost: it goes on where the last
one of the same name was told, or where `Last-Event-ID` says. Opening it again ends the one before.

On an ACP session's stream the id of an event is its number. The connection's own stream may read several logs, and the
id tells how far it is in each: `120-33`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import trio

from sandbox_actors.errors import InvalidRequest

from ..numbers import LARGEST
from ..streams import HEARTBEAT, HEARTBEAT_COMMENT, stopping_notice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..streams import Streams
    from .connection import Connection
    from .feed import Batch, Feed
    from .lens import Sight

__all__ = ["events_of", "go_on_at"]

MARKS = re.compile(r"\d{1,20}(-\d{1,20})*")

BEHIND_WITHIN = 2.0
"""Seconds that the answer to a load waits until what was replayed is told: its stream may never be opened."""


def go_on_at(connection: Connection, last_event_id: str) -> None:
    """Have the connection's own next stream begin behind an event. Raises `InvalidRequest` if this is no id of one."""
    if not MARKS.fullmatch(last_event_id):
        raise InvalidRequest("Last-Event-ID must be an id of this stream")
    for attachment, mark in zip(connection.attachments, last_event_id.split("-"), strict=False):
        attachment.told = min(int(mark), LARGEST)


async def events_of(connection: Connection, feed: Feed, streams: Streams) -> AsyncIterator[bytes]:
    """The body of the response, until the connection, its sessions or the daemon end."""
    with connection.telling(feed), streams.told(feed.close):
        # Hypercorn sends the head of a response together with the first piece of its body.
        yield HEARTBEAT_COMMENT
        due = trio.current_time() + HEARTBEAT
        while True:
            batch: Batch | None = None
            with trio.move_on_at(due) as waiting:
                batch = await feed.read()
            if waiting.cancelled_caught:
                yield HEARTBEAT_COMMENT
                due = trio.current_time() + HEARTBEAT
                continue
            if batch is None:
                break
            frames: list[bytes] = []
            for sight in batch.sights:
                if sight.behind is not None and frames:
                    yield b"".join(frames)
                    frames.clear()
                await _wait_behind(connection, batch, sight)
                frames.append(_frame(connection, feed, batch, sight))
            if frames:
                yield b"".join(frames)
                due = trio.current_time() + HEARTBEAT
            _went(connection, feed, batch)
        if streams.draining:
            yield b"event: message\ndata: %b\n\n" % stopping_notice()


async def _wait_behind(connection: Connection, batch: Batch, sight: Sight) -> None:
    if sight.behind is not None and sight.seq is not None:
        with trio.move_on_after(BEHIND_WITHIN):
            await connection.caught_up(sight.behind, batch.attachment, sight.seq)


def _frame(connection: Connection, feed: Feed, batch: Batch, sight: Sight) -> bytes:
    if sight.seq is None:
        return b"event: message\ndata: %b\n\n" % sight.envelope
    marks = [sight.seq]
    if not isinstance(feed.scope, str):
        marks = [attachment.told for attachment in connection.attachments]
        marks[batch.place] = sight.seq
    id = "-".join(map(str, marks)).encode()
    return b"event: message\nid: %b\ndata: %b\n\n" % (id, sight.envelope)


def _went(connection: Connection, feed: Feed, batch: Batch) -> None:
    """What was read is on its way to the client: a stream that comes after this one begins behind it."""
    if feed.closed:
        return
    if isinstance(feed.scope, str):
        batch.attachment.opened[feed.scope] = batch.position
    else:
        batch.attachment.told = batch.position
    connection.went()
