"""A port of a pod, forwarded to a port of this machine's loopback, as `kubectl port-forward` does.

Each connection gets a tunnel of its own through the API server. A tunnel cannot be closed by half: it ends with the
first side that does.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx
import httpx_ws
from wsproto.utilities import LocalProtocolError

from ...errors import ProviderError
from ...scope import open_tasks
from .cluster import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import SocketStream

__all__ = ["open_forward"]

PIECE = 64 << 10
"""Bytes of a message: what is in between has no need to hold more."""

DATA, ERRORS = 0, 1
"""Channels. The first message on each has the number of the port, and nothing else."""

_log = logging.getLogger("sandbox_agent")


@asynccontextmanager
async def open_forward(
    connect: Callable[[], AbstractAsyncContextManager[httpx_ws.AsyncWebSocketSession]],
) -> AsyncGenerator[str]:
    """The URL of the forwarded port, which takes connections while the block runs.

    Args:
      connect: makes a tunnel.

    Raises:
      Refused: we may not forward ports.
    """
    try:
        async with connect():
            pass
    except Refused as error:
        # Anything else may be better with the next connection: its client sees how that ends, and tries again.
        if error.status == httpx.codes.FORBIDDEN.value:
            raise

    async def carry(client: SocketStream) -> None:
        async with client:
            try:
                async with connect() as tunnel, open_tasks() as tasks:
                    tasks.start_soon(_out, client, tunnel, tasks.cancel_scope)
                    await _back(client, tunnel)
            except (ProviderError, anyio.BrokenResourceError, httpx_ws.HTTPXWSException) as error:
                _log.debug("a forwarded connection ended: %s", error)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, open_tasks() as tasks:
        tasks.start_soon(listener.serve, carry)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"


async def _out(client: SocketStream, tunnel: httpx_ws.AsyncWebSocketSession, scope: anyio.CancelScope) -> None:
    """What the client says, until it says no more."""
    try:
        while True:
            await tunnel.send_bytes(bytes([DATA]) + await client.receive(PIECE))
    except (anyio.EndOfStream, anyio.BrokenResourceError, httpx_ws.HTTPXWSException, LocalProtocolError):
        # The last of these: the tunnel is being closed by the other side. Nobody would hear more.
        scope.cancel()


async def _back(client: SocketStream, tunnel: httpx_ws.AsyncWebSocketSession) -> None:
    """What the pod says, until it says no more."""
    begun: set[int] = set()
    while True:
        try:
            message = await tunnel.receive_bytes()
        except httpx_ws.WebSocketDisconnect:
            return
        channel = message[0] if message else DATA
        if channel not in begun:
            begun.add(channel)
        elif channel == ERRORS:
            raise ProviderError(message[1:].decode(errors="replace").strip())
        elif message[1:]:
            await client.send(message[1:])
