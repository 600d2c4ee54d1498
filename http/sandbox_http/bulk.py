"""Bodies that are too large to be held: their handlers take them piece by piece, at the pace of the disk.

Quart would pour a body into memory as fast as it comes. For a few routes this layer keeps it back: Quart is told that
the body is empty, and the handler finds the real one with `bulk_body`. It reads, and only then the next piece is read
from the connection, so a client is as fast as what it writes to.

A client that is answered before it has sent all gets to read the answer: the rest is thrown away for a while, and the
connection is closed then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from quart import request

from .body import DISCARD_WITHIN, STALLED_AFTER
from .problems import Problem

if TYPE_CHECKING:
    from .guard import ASGIApp, AsgiMessage, Receive, Scope, Send

__all__ = ["BULK", "Bulk", "BulkBody", "bulk_body"]

BULK = {("PUT", "/v1/fs/file"), ("POST", "/v1/fs/upload-batch")}
"""Methods and paths whose bodies are streamed."""

_KEY = "sandbox_http.bulk_body"


class BulkBody:
    """The body of one request.

    Attributes:
      complete: whether all of it was read.
      over: nothing more will come: it is complete, or the client has gone.
    """

    def __init__(self, receive: Receive, declared: int, limit: int) -> None:
        self.complete = False
        self.over = trio.Event()
        self._receive = receive
        self._limit = limit
        self._size = declared
        self._read = 0

    async def receive_some(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
          Problem: it is too large, or its sender has stalled.
        """
        while not self.complete:
            if self._limit and self._size > self._limit:
                raise _too_large(self._limit)
            piece: bytes | None = None
            with trio.move_on_after(STALLED_AFTER):
                piece = await self._next()
            if piece is None:
                raise Problem(
                    "timeout", f"nothing of the body came for {STALLED_AFTER:g} s", status=408, title="Request Timeout"
                )
            self._read += len(piece)
            self._size = max(self._size, self._read)
            if piece and not (self._limit and self._size > self._limit):
                return piece
        return b""

    async def discard(self) -> None:
        """Read and drop what is left."""
        while not self.complete:
            await self._next()

    async def _next(self) -> bytes:
        message: AsgiMessage = await self._receive()
        if message["type"] == "http.disconnect":
            self.over.set()
            await trio.sleep_forever()  # the request is cancelled: whoever serves it hears of this by `over`
        if not message.get("more_body", False):
            self.complete = True
            self.over.set()
        piece: bytes = message.get("body", b"")
        return piece


class Bulk:
    """ASGI middleware between the guard and the body limit.

    Args:
      app: what serves the routes whose bodies are streamed.
      others: what serves the rest.
      limit: bytes of the largest body that is streamed; 0: no limit.
    """

    def __init__(self, app: ASGIApp, others: ASGIApp, limit: int) -> None:
        self._app = app
        self._others = others
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("method"), scope.get("path")) not in BULK:
            await self._others(scope, receive, send)
            return
        body = BulkBody(receive, _declared(scope), self._limit)
        told = False

        async def receiving() -> AsgiMessage:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await body.over.wait()
            return await receive() if body.complete else {"type": "http.disconnect"}

        async def sending(message: AsgiMessage) -> None:
            if body.complete:
                await send(message)
            elif message["type"] == "http.response.start":
                close = [] if scope["http_version"] == "2" else [(b"connection", b"close")]
                await send({**message, "headers": [*message.get("headers", ()), *close]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await _last(body, message, send)

        await self._app({**scope, _KEY: body}, receiving, sending)


def bulk_body() -> BulkBody:
    """The body of the present request, which is to one of the routes in `BULK`."""
    scope: Scope = request.scope  # with a member of our own
    body: BulkBody = scope[_KEY]
    return body


async def _last(body: BulkBody, message: AsgiMessage, send: Send) -> None:
    """End an answer whose client may still be sending: closing the connection at once would take the answer with it."""
    with trio.move_on_after(DISCARD_WITHIN):
        await body.discard()
    # Shielded: as soon as Hypercorn tells us that the connection is closed, Quart cancels what is about to close it.
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body.discard)  # and to tell us, it waits for room in the queue
            await send(message)
            nursery.cancel_scope.cancel()


def _declared(scope: Scope) -> int:
    """The length that the client says the body has; 0 where it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(limit: int) -> Problem:
    return Problem(
        "invalid_request",
        f"the body is larger than {limit} bytes; raise --max-upload, or send less",
        status=413,
        title="Payload Too Large",
    )
