"""A connection on a WebSocket: every text frame is one JSON-RPC envelope, and all that it is told comes on it.

It begins with `initialize`, as on any transport. Its sessions outlive it; to go on, connect again and load or resume.

    1000, 1001, ...  as the client or the shutting down daemon (1001) has it
    1000             the connection was ended, by DELETE
    1009             a frame was larger than the server takes
    4404             the session was deleted
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Raw
from quart import websocket

from sandbox_actors.envelope import InvalidEnvelope, as_line, decode, error_response
from sandbox_actors.errors import InvalidRequest, as_refusal
from sandbox_supervisor import ActorError

from ..closing import close_socket
from ..sockets import GOING_AWAY, SESSION_DELETED, parse_error
from ..streams import stopping_notice
from .feed import Feed
from .scope import ALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..streams import Streams
    from .connection import Connection

__all__ = ["converse"]

NORMAL = 1000


async def converse(connection: Connection, streams: Streams, epoch: str, headers: Mapping[str, str]) -> None:
    """Serve one WebSocket until either side ends it.

    Args:
      headers: of the answer to the handshake.
    """
    feed = Feed(connection, ALL, epoch)
    conversation = _Conversation(connection, feed)
    with connection.telling(feed), streams.told(feed.close):
        await websocket.accept(headers=dict(headers))  # pyright: ignore[reportUnknownMemberType]  # Quart's `headers: dict`
        async with trio.open_nursery() as nursery:
            # Without a reader a disconnect goes unnoticed once some frames lie unread.
            nursery.start_soon(conversation.listen)
            await conversation.tell()
            nursery.cancel_scope.cancel()
        if streams.draining:
            await conversation.send(stopping_notice())
            await close_socket(GOING_AWAY, "the daemon is shutting down")
        elif connection.ended:
            await close_socket(NORMAL, "the connection was ended")
        else:
            await close_socket(SESSION_DELETED, "the session was deleted")


class _Conversation:
    def __init__(self, connection: Connection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed
        self._sending = trio.Lock()
        self._introduced = False

    async def send(self, envelope: bytes) -> None:
        async with self._sending:
            await websocket.send(envelope.decode())

    async def listen(self) -> None:
        while True:
            frame: object = await websocket.receive()
            if isinstance(frame, str):  # a binary frame says nothing here
                await self._hear(as_line(frame.encode(errors="surrogatepass")))

    async def _hear(self, envelope: bytes) -> None:
        try:
            head = decode(envelope)
        except InvalidEnvelope as error:
            await self.send(parse_error(str(error)))
            return
        self._introduced |= head.method_name == "initialize"
        try:
            if not self._introduced:
                raise InvalidRequest("send initialize first")
            await self._connection.say(envelope, head)
        except ActorError as error:
            await self.send(error_response(head.request_id or Raw(b"null"), as_refusal(error)))

    async def tell(self) -> None:
        while (batch := await self._feed.read()) is not None:
            for sight in batch.sights:
                await self.send(sight.envelope)
                # Hypercorn's send returns without a checkpoint once the peer is gone.
                await trio.lowlevel.checkpoint()
