"""`GET /v1/sessions/{id}/events`: a page as JSON, or from there on as it comes, as Server-sent events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from quart import Response, request

from sandbox_actors.journal import Gap

from ..numbers import event_number
from ..problems import Problem
from ..process_bodies import number
from ..requests import accepts, flag
from ..streams import HEARTBEAT_COMMENT
from .frames import gap_members
from .reader import Reader
from .selection import select

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.envelope import Json
    from sandbox_actors.session import Session

    from ..streams import Streams
    from .selection import Selection

__all__ = ["events_response", "page_of"]

SSE = "text/event-stream"

LIMIT, MOST = 500, 10_000
"""Events of a page."""

PAGE_BYTES = 4 << 20
"""Bytes of events after which a page ends, though more were asked for."""

SCANNED_BYTES = 32 << 20
"""Bytes that one page looks through for events that are wanted: then the reader asks again, from where it ended."""


async def events_response(session: Session, streams: Streams, epoch: str) -> Response:
    """The answer to the present request for a session's events.

    Raises:
      Problem: a parameter makes no sense, or the client accepts neither form.
    """
    limit, follow = number("limit"), flag("follow", default=True)
    if limit is not None and not 1 <= limit <= MOST:
        raise Problem("invalid_request", f"the query parameter 'limit' must be between 1 and {MOST}")
    selection = select(session, event_number(request.headers.get("Last-Event-ID", ""), "Last-Event-ID"))
    if SSE in request.headers.get("Accept", ""):
        reader = Reader(selection, streams, epoch, follow=follow)
        body = _server_sent_events(selection, reader, streams) if request.method == "GET" else b""
        response = Response(body, content_type=SSE)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"
        response.headers["Sandbox-Agent-Epoch"] = epoch
        response.timeout = None
        return response
    if not accepts("application/json"):
        raise Problem("not_acceptable", "accept must allow application/json or text/event-stream")
    return Response(await page_of(selection, limit or LIMIT, epoch), content_type="application/json")


async def page_of(selection: Selection, limit: int, epoch: str) -> bytes:
    """A page of the events that are wanted, as JSON."""
    cursor, log = selection.cursor, selection.cursor.log
    texts: list[bytes] = []
    gap: Gap | None = None
    size = scanned = 0
    next = selection.position
    while len(texts) < limit and size < PAGE_BYTES and scanned < SCANNED_BYTES and (cursor.behind or cursor.astray):
        try:
            read = await anext(cursor)
        except StopAsyncIteration:
            break
        if isinstance(read, Gap):
            if texts or gap is not None:
                break  # the next page comes to it, and tells it
            gap = read
            selection.skipped()
            next = selection.position
            continue
        next = selection.position
        for page in read:
            if page.last > selection.after:  # behind which all begins: a turn may have begun long before
                scanned += len(page.body)
            for frame in selection.frames(page):
                if len(texts) == limit or size >= PAGE_BYTES:
                    break
                texts.append(frame.text)
                size += len(frame.text)
                next = frame.seq or next
            else:
                continue
            break
        else:
            next = selection.position
    members: dict[str, Json] = {"next": next, "head": log.head, "floor": log.floor, "epoch": epoch}
    if gap is not None:
        members["gap"] = gap_members(gap, epoch)
    return b'{"events":[%b],%b' % (b",".join(texts), msgspec.json.encode(members)[1:])


async def _server_sent_events(selection: Selection, reader: Reader, streams: Streams) -> AsyncIterator[bytes]:
    cursor = selection.cursor
    streams.add(cursor)
    try:
        # Hypercorn sends the head of a response together with the first piece of its body.
        yield HEARTBEAT_COMMENT
        while True:
            streams.sent(cursor)
            if not (frames := await reader.read()):
                break
            yield b"".join([frame.as_sse for frame in frames])
    finally:
        streams.remove(cursor)
