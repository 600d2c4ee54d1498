"""Hypercorn round the application, on a socket of our own.

We bind the socket ourselves: a port in use is a plain error before anything runs, and `TCP_USER_TIMEOUT` on it buries
peers that have stopped reading. Hypercorn sends under a shield, so without that one stalled client would hold up the
shutdown for as long as it likes.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from .config import BadConfig
from .early_ends import ending_early

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .guard import ASGIApp, Receive, Scope, Send

__all__ = ["listen", "serving"]

log = structlog.get_logger()

BACKLOG = 1024

PEER_TIMEOUT_MS = 30_000
"""A peer that takes nothing for so long is dead: reset, and whoever sends to it goes on."""

LARGEST_FRAME = 16 << 20
"""Bytes of a WebSocket message: Hypercorn buffers up to twenty of them a connection."""

MESSAGE_TOO_BIG = b"\x88\x02\x03\xf1"
"""A server's frame that closes a WebSocket with 1009 (RFC 6455, section 5.5.1), as nobody but Hypercorn sends it."""

DISCARD_WITHIN = 2.0
"""Seconds for which the rest of a message that is too large is read and dropped."""

PING_EVERY = 15.0

RECEIVE_SIZE = 256 << 10
"""Bytes of one read. With Hypercorn's own 64 KiB an upload takes a third longer."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
      BadConfig: the address is in use, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it. It covers the peer that acknowledges and never reads, too.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_MS)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise BadConfig(f"cannot listen on {host} port {port}: {error.strerror}") from None
    except UnicodeError:
        raise BadConfig(f"cannot listen on {host}: this is no name of a host") from None
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, *, largest_frame: int, grace: float) -> AsyncGenerator[None]:
    """Serve until the block ends, then let requests end for `grace` seconds, then cut them."""
    config = HypercornConfig()
    config.accesslog = config.errorlog = None
    config.websocket_max_message_size = min(largest_frame, LARGEST_FRAME)
    config.websocket_ping_interval = PING_EVERY
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1 << 31  # on HTTP/2 it cuts streams in flight
    config.include_server_header = False
    context = WorkerContext(None)
    connections: set[trio.SocketStream] = set()
    served = trio.Event()

    async def serve_one(stream: trio.SocketStream) -> None:
        connections.add(stream)
        try:
            await _Connection(
                ASGIWrapper(_uncompressed(ending_early(app))),
                config,
                context,
                ConnectionState({}),
                stream,  # type: ignore[arg-type]  # its own code takes a stream without TLS as well
            )
        except* Exception as errors:
            # Hypercorn lets some broken input out as an exception: a path on HTTP/2 that is not ASCII, a malformed
            # HTTP2-Settings. Nobody's connection may end the daemon. Its texts quote headers, and so tokens.
            log.warning("connection failed", error=_names(errors))
        finally:
            connections.discard(stream)

    async def cut() -> None:
        # Shielded, because a send that a stalled client holds up is so as well, in Hypercorn: only its socket ends it.
        with trio.move_on_after(grace, shield=True):
            await served.wait()
        for stream in connections:
            with suppress(OSError):
                stream.socket.shutdown(socket.SHUT_RDWR)
        handlers.cancel_scope.cancel()

    # A copy: closing a Trio listener closes its socket, and this one is the caller's.
    accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
    async with trio.open_nursery() as nursery:
        try:
            async with trio.open_nursery() as handlers, accepting, trio.open_nursery() as listening:
                listening.start_soon(partial(trio.serve_listeners, serve_one, [accepting], handler_nursery=handlers))
                try:
                    yield
                finally:
                    nursery.start_soon(cut)
                    await context.terminated.set()  # idle connections are closed, and each after its request
                    listening.cancel_scope.cancel()
        finally:
            served.set()


def _uncompressed(app: ASGIApp) -> ASGIApp:
    """The application, none of whose WebSockets are compressed, for which Hypercorn has no setting.

    Compression costs more time than it saves on the way to a sandbox. And Node's WebSocket inflates beside its reading:
    the last messages before a close are lost there, and the close is none to it (1006).
    """

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        stream = getattr(send, "__self__", None)
        if isinstance(stream, WSStream):
            stream.handshake.extensions = None
        await app(scope, receive, send)

    return call


class _Connection(TCPServer):
    """Hypercorn's connection, over as soon as its peer has gone.

    Hypercorn itself goes on until the next ping would be due, and after broken input until the keep-alive timeout:
    minutes of work for others who open connections and close them.
    """

    async def run(self) -> None:
        with trio.CancelScope() as self._open:
            await super().run()

    async def _read_data(self) -> None:
        while True:
            try:
                data = await self.stream.receive_some(RECEIVE_SIZE)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            await self.protocol.handle(RawData(bytes(data)))
            if not data:
                break
        await self.protocol.handle(Closed())
        self._open.cancel()

    async def protocol_send(self, event: Event) -> None:
        # The task that ends a response is cancelled with the end of its request, and would leave the connection open.
        with trio.CancelScope(shield=isinstance(event, Closed)):
            await super().protocol_send(event)
        if isinstance(event, RawData) and event.data == MESSAGE_TOO_BIG:
            # Hypercorn would go on to keep what the client goes on to send, without any bound. This is its reader's
            # task, so nobody else takes what is thrown away here, to let the client read why.
            with trio.move_on_after(DISCARD_WITHIN), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.stream.send_eof()
                while await self.stream.receive_some(1 << 16):
                    pass
            await self.stream.aclose()


def _names(errors: BaseExceptionGroup[Exception]) -> str:
    """The classes of the errors in a group, however deep."""
    return ", ".join(
        _names(error) if isinstance(error, BaseExceptionGroup) else type(error).__name__ for error in errors.exceptions
    )
