"""One WebSocket through the proxy: message by message, since both sides have a handshake and framing of their own.

The application is asked first: the client's WebSocket is accepted once the application's is, with the subprotocol that
it chose, or refused in the application's own words. Of a client's end Hypercorn does not tell the code: to the
application it is always 1001.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from ..closing import ANSWER_WITHIN
from ..problems import Problem
from .exchange import refuse
from .headers import request_headers, response_headers
from .upstream import connect, give

if TYPE_CHECKING:
    from wsproto.events import Event

    from ..guard import Receive, Scope, Send
    from ..streams import Streams
    from ..tokens import Tokens
    from .headers import Target

__all__ = ["Relay"]

READ_SIZE = 64 << 10

SHAKES_WITHIN = 30.0
"""Seconds for the application to answer the handshake."""

GOODBYE_WITHIN = 1.0
"""Seconds for the application to hear that the client has gone."""

GOING_AWAY = 1001
TOO_BIG = 1009
FAILED = 1011
NO_STATUS = 1005
CUT = 1006


class Relay:
    """See the module.

    Args:
      largest_message: bytes of a message to the client, which is held until it is whole.
    """

    def __init__(
        self,
        target: Target,
        tokens: Tokens | None,
        largest_message: int,
        streams: Streams,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._target = target
        self._tokens = tokens
        self._largest = largest_message
        self._streams = streams
        self._scope = scope
        self._receive = receive
        self._send = send
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._giving = trio.Lock()
        self._running = trio.CancelScope()
        self._end: tuple[int, str] | None = None
        """How the client is told that it is over; None where it has gone itself."""

    async def run(self) -> None:
        """Serve the WebSocket."""
        await self._receive()  # websocket.connect, always
        try:
            stream = await connect(self._target.port)
        except Problem as problem:
            await refuse(self._scope, self._send, problem)
            return
        async with stream:
            try:
                accepted = await self._shake_hands(stream)
                if isinstance(accepted, RejectConnection):
                    await self._pass_refusal(stream, accepted)
                    return
            except Problem as problem:
                await refuse(self._scope, self._send, problem)
                return
            await self._accept(accepted)
            try:
                with self._streams.told(self._stop), self._running:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._to_application, stream)
                        await self._to_client(stream)
                        nursery.cancel_scope.cancel()
            finally:
                await self._take_leave(stream)
        if self._end is not None:
            await self._close(*self._end)

    def _stop(self) -> None:
        self._finish(GOING_AWAY, "the daemon is shutting down")

    def _finish(self, code: int, reason: str) -> None:
        self._end = (code, reason)
        self._running.cancel()

    # The handshake.

    async def _shake_hands(self, stream: trio.SocketStream) -> AcceptConnection | RejectConnection:
        request = Request(
            host=self._target.host.decode(),
            target=self._target.path.decode(),
            subprotocols=[name for name in self._scope["subprotocols"] if name],
            extra_headers=request_headers(self._scope, self._target, self._tokens)[1:],  # without the host
        )
        name = f"port {self._target.port}"
        try:
            with trio.fail_after(SHAKES_WITHIN):
                await stream.send_all(self._socket.send(request))
                while True:
                    for event in self._socket.events():
                        if isinstance(event, AcceptConnection):
                            return event
                        if isinstance(event, RejectConnection) and event.status_code >= 200:
                            return event
                        raise Problem("port_unreachable", f"{name} does not answer the handshake of a WebSocket")
                    data = await stream.receive_some(READ_SIZE)
                    if not data:
                        raise Problem("port_unreachable", f"{name} closed the connection during the handshake")
                    self._socket.receive_data(data)
        except trio.BrokenResourceError:
            raise Problem("port_unreachable", f"{name} closed the connection during the handshake") from None
        except ProtocolError as error:
            raise Problem("port_unreachable", f"{name} does not answer in HTTP: {error}") from None
        except h11.LocalProtocolError as error:
            raise Problem("invalid_request", f"the request cannot be passed on: {error}") from None
        except trio.TooSlowError:
            raise Problem("timeout", f"{name} has not answered the handshake within {SHAKES_WITHIN:g} s") from None

    async def _pass_refusal(self, stream: trio.SocketStream, refusal: RejectConnection) -> None:
        headers = response_headers(refusal.headers, self._target, sandboxed=self._tokens is None)
        start = {"type": "websocket.http.response.start", "status": refusal.status_code, "headers": headers}
        await self._send(start)
        with suppress(trio.BrokenResourceError, ProtocolError):
            while True:
                for event in self._socket.events():
                    if isinstance(event, RejectData):
                        body, more = bytes(event.data), not event.body_finished
                        await self._send({"type": "websocket.http.response.body", "body": body, "more_body": more})
                        if not more:
                            return
                data = await stream.receive_some(READ_SIZE)
                self._socket.receive_data(data)
                if not data:
                    return  # cut in the middle, and so is the client's

    async def _accept(self, accepted: AcceptConnection) -> None:
        headers = response_headers(accepted.extra_headers, self._target, sandboxed=False)
        await self._send({"type": "websocket.accept", "subprotocol": accepted.subprotocol, "headers": headers})

    # Messages.

    async def _to_application(self, stream: trio.SocketStream) -> None:
        while (message := await self._receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            event = BytesMessage(message.get("bytes") or b"") if text is None else TextMessage(text)
            await self._give(stream, event)
        self._running.cancel()

    async def _to_client(self, stream: trio.SocketStream) -> None:
        parts: list[str | bytes] = []
        size = 0
        while True:
            for event in self._socket.events():
                match event:
                    case TextMessage() | BytesMessage():
                        parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                        size += len(event.data)
                        if size > self._largest:
                            self._finish(TOO_BIG, f"a message is larger than {self._largest} bytes")
                            return
                        if event.message_finished:
                            await self._send(_whole(event, parts))
                            parts.clear()
                            size = 0
                    case Ping():
                        await self._give(stream, event.response())
                    case CloseConnection():
                        self._finish(*_told(event))
                        return
                    case _:
                        pass
            try:
                data = await stream.receive_some(READ_SIZE)
            except trio.BrokenResourceError:
                data = b""
            self._socket.receive_data(data or None)

    async def _give(self, stream: trio.SocketStream, event: Event) -> None:
        async with self._giving:
            if self._socket.state is not ConnectionState.OPEN:
                return  # it is closing, which the other task finds out
            try:
                await give(stream, self._socket.send(event))
            except trio.BrokenResourceError:
                self._finish(FAILED, "the application has gone")
            except trio.TooSlowError:
                self._finish(FAILED, "the application takes no more")

    # The end.

    async def _take_leave(self, stream: trio.SocketStream) -> None:
        """Say goodbye to the application, or answer its own."""
        if self._socket.state not in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            return
        data = self._socket.send(CloseConnection(*(self._end or (GOING_AWAY, ""))))
        with trio.move_on_after(GOODBYE_WITHIN, shield=True), suppress(trio.BrokenResourceError):
            await stream.send_all(data)

    async def _close(self, code: int, reason: str) -> None:
        """As `closing` does it for sockets of Quart's: it is over once the client has answered."""
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
        with trio.move_on_after(ANSWER_WITHIN):
            while (await self._receive())["type"] != "websocket.disconnect":
                pass


def _whole(event: TextMessage | BytesMessage, parts: list[str | bytes]) -> dict[str, str | bytes]:
    if isinstance(event, TextMessage):
        return {"type": "websocket.send", "text": "".join(part for part in parts if isinstance(part, str))}
    return {"type": "websocket.send", "bytes": b"".join(part for part in parts if isinstance(part, bytes))}


def _told(event: CloseConnection) -> tuple[int, str]:
    """The code for the client: two of them may not be sent (RFC 6455, section 7.4.1)."""
    if event.code == CUT:
        return FAILED, "the application has gone"
    return (1000 if event.code == NO_STATUS else event.code), event.reason or ""
