"""Answers that end before their requests do, over HTTP/2: a refused upload above all, or a stream that is cut.

Hypercorn forgets a stream with its answer. What the client had still under way for it would be an error that ends the
connection, with all its other streams; and as long as nobody takes what is queued for one stream, it reads for none.
So the rest of a request is thrown away while its answer ends and after that, and a stream whose answer never ends is
reset (RFC 9113, sections 8.1 and 8.1.1).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.events import RawData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.protocol.events import Event
    from hypercorn.protocol.ws_stream import WSStream

    from .guard import ASGIApp, AsgiMessage, Receive, Scope, Send

__all__ = ["ending_early"]


def ending_early(app: ASGIApp) -> ASGIApp:
    """The application, whose answers may end as early as they like."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        stream = getattr(send, "__self__", None)
        protocol = getattr(getattr(stream, "send", None), "__self__", None)
        if not isinstance(stream, HTTPStream) or not isinstance(protocol, H2Protocol):
            await app(scope, receive, send)
            return
        if not isinstance(protocol.streams, _Streams):
            protocol.streams = _Streams(protocol.streams)
        begun = ended = False

        async def sending(message: AsgiMessage) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if ended:
                await _discarding(receive, partial(send, message))
            else:
                await send(message)

        await app(scope, receive, sending)
        if ended or stream.closed:
            return
        if begun:
            with suppress(ProtocolError):  # it was closed meanwhile
                protocol.connection.reset_stream(stream.stream_id, ErrorCodes.INTERNAL_ERROR)
                await protocol.send(RawData(protocol.connection.data_to_send()))
        await _discarding(receive, partial(send, None))

    return call


async def _discarding(receive: Receive, ending: Callable[[], Awaitable[None]]) -> None:
    """Do something while what comes is thrown away."""

    async def discard() -> None:
        while True:
            await receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(discard)
        await ending()
        nursery.cancel_scope.cancel()


class _Gone:
    """Stands for each stream that is there no more."""

    async def handle(self, event: Event) -> None:
        """Nobody waits for this any more."""


class _Streams(dict[int, "HTTPStream | WSStream"]):
    """Streams by number; one that is there no more takes what comes and does nothing."""

    def __missing__(self, stream_id: int) -> _Gone:
        return _Gone()
