"""Hypercorn round the application, on a socket of our own.

We bind the socket ourselves: a port in use is a plain error before anything runs, and `TCP_USER_TIMEOUT` on it buries
peers that have stopped reading. Hypercorn sends under a shield, so without that one stalled client would hold up the
shutdown for as long as it likes.
"""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]  # a bare `dict` in its WSGI half

from .config import BadConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .guard import ASGIApp

__all__ = ["listen", "serving"]

BACKLOG = 1024

PEER_TIMEOUT_MS = 30_000
"""A peer that takes nothing for so long is dead: reset, and whoever sends to it goes on."""

LARGEST_FRAME = 16 << 20
"""Bytes of a WebSocket message: Hypercorn buffers up to twenty of them a connection."""

PING_EVERY = 15.0


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
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, *, largest_frame: int, grace: float) -> AsyncGenerator[None]:
    """Serve until the block ends, then let requests end for `grace` seconds, then cut them."""
    config = HypercornConfig()
    # Hypercorn closes the descriptor it is given.
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.graceful_timeout = grace
    config.accesslog = config.errorlog = None
    config.websocket_max_message_size = min(largest_frame, LARGEST_FRAME)
    config.websocket_ping_interval = PING_EVERY
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1 << 31  # on HTTP/2 it cuts streams in flight
    config.include_server_header = False
    stop, ended = trio.Event(), trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        # Without the mode Hypercorn guesses, and takes an object with an async `__call__` for WSGI.
        await serve(app, config, shutdown_trigger=stop.wait, mode="asgi", task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield
        finally:
            stop.set()
            nursery.start_soon(_cut, listener.getsockname()[1], grace)
            await ended.wait()
            nursery.cancel_scope.cancel()


async def _cut(port: int, after: float) -> None:
    """Shut the connections down that are still there after so many seconds.

    Hypercorn does not hand them out, so they are found among our descriptors: sockets on our port that have a peer.
    A send that a stalled client holds up fails then, and with it ends the task that nothing else could end.
    """
    await trio.sleep(after)
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == port:
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # no socket, not connected, or gone by now
