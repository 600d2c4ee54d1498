"""`GET /v1/fs/watch`: what happens in a tree, as Server-sent events or, on the same path, as frames of a WebSocket.

    ready       from now on everything is told; a client that shows the tree looks at it now
    created, modified, deleted, moved
    overflow    more has happened than could be kept, or than the system lets us watch: look at the tree again
    gone        the folder itself is not there any more: the end
    stopping    the daemon is shutting down: the end

The data of an event, and a frame, is one JSON object with the kind as its member `type`. There are no ids: what happens
while nobody listens is not known, so a client that comes back begins with `ready` again.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Blueprint, Response, request, websocket

from sandbox_actors.watching import open_watch

from .closing import close_socket
from .requests import flag, required
from .streams import HEARTBEAT, HEARTBEAT_COMMENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.envelope import Json
    from sandbox_actors.files import FileSystem
    from sandbox_actors.watching import Batch, Change, Watch

    from .streams import Streams

__all__ = ["watch_routes"]

GOING_AWAY = 1001
FOLDER_GONE = 4404

LOST = {
    "queue": "more has happened than could be kept",
    "watches": "there are more folders than the system allows to be watched (fs.inotify.max_user_watches)",
}


def watch_routes(files: FileSystem, streams: Streams) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("watching", __name__)

    async def begun() -> Watch:
        return await open_watch(files, required("path"), recursive=flag("recursive", default=True))

    @routes.get("/v1/fs/watch")
    async def events() -> Response:
        watch = await begun()
        if request.method == "HEAD":
            watch.close()
        body = b"" if request.method == "HEAD" else _events(watch, streams)
        response = Response(body, content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"
        response.timeout = None
        return response

    @routes.websocket("/v1/fs/watch")
    async def frames() -> None:
        watch = await begun()
        with closing(watch), streams.told(watch.stop):
            await websocket.accept()  # pyright: ignore[reportUnknownMemberType]  # Quart's `headers: dict`
            async with trio.open_nursery() as nursery:
                # Without a reader a disconnect goes unnoticed once some frames lie unread.
                nursery.start_soon(_ignore)
                await _tell(watch)
                nursery.cancel_scope.cancel()

    return routes


async def _events(watch: Watch, streams: Streams) -> AsyncIterator[bytes]:
    with closing(watch), streams.told(watch.stop):
        yield _event(_ready(watch))
        while not watch.stopped:
            with trio.move_on_after(HEARTBEAT) as silence:
                await watch.wait()
            if silence.cancelled_caught:
                yield HEARTBEAT_COMMENT
            elif not watch.stopped:
                batch = await watch.take()
                if messages := _messages(batch, watch):
                    yield b"".join([_event(message) for message in messages])
                if batch.gone:
                    return
        yield _event({"type": "stopping"})


async def _tell(watch: Watch) -> None:
    await _send(_ready(watch))
    while True:
        await watch.wait()
        if watch.stopped:
            await _send({"type": "stopping"})
            await close_socket(GOING_AWAY, "the daemon is shutting down")
            return
        batch = await watch.take()
        for message in _messages(batch, watch):
            await _send(message)
        if batch.gone:
            await close_socket(FOLDER_GONE, "the folder is not there any more")
            return


async def _ignore() -> None:
    while True:
        await websocket.receive()


async def _send(message: dict[str, Json]) -> None:
    await websocket.send(msgspec.json.encode(message).decode())
    # Hypercorn's send returns without a checkpoint once the peer is gone.
    await trio.lowlevel.checkpoint()


def _messages(batch: Batch, watch: Watch) -> list[dict[str, Json]]:
    messages = [_change(change) for change in batch.changes]
    if batch.lost is not None:
        messages.append({"type": "overflow", "reason": batch.lost, "message": LOST[batch.lost]})
    if batch.gone:
        messages.append({"type": "gone", "path": watch.path})
    return messages


def _ready(watch: Watch) -> dict[str, Json]:
    return {"type": "ready", "path": watch.path, "folders": watch.folders}


def _change(change: Change) -> dict[str, Json]:
    message: dict[str, Json] = {
        "type": change.kind,
        "path": change.path,
        "entryType": "directory" if change.folder else "file",
    }
    if change.source is not None:
        message["from"] = change.source
    return message


def _event(message: dict[str, Json]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(message["type"]).encode(), msgspec.json.encode(message))
