"""A WebSocket over the connections of an HTTP client.

The handshake is made here, since a server that refuses says why in the answer's body. What is written has its time: the
closing frame is written even while we are being cancelled, and must not wait for a peer that reads no more. A peer that
is gone without a word is noticed by TCP: pings would take a reader that is slow for one that is gone.
"""

from __future__ import annotations

import base64
import secrets
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import httpcore
import httpx
from httpx_ws import AsyncWebSocketSession

from .scope import plainly

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

__all__ = ["open_websocket"]

PIECE = 256 << 10
"""Bytes that are read at once; messages may be longer."""

WRITTEN_WITHIN = 20.0
"""Seconds until a peer must have taken something of what is written."""

KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that is gone is noticed after 50 seconds. Not every system has each of these."""


@asynccontextmanager
async def open_websocket(
    client: httpx.AsyncClient,
    url: str,
    params: httpx.QueryParams | None,
    headers: Mapping[str, str],
    timeout: httpx.Timeout,
    check: Callable[[httpx.Response], None],
) -> AsyncGenerator[AsyncWebSocketSession]:
    """A WebSocket, which is closed at the end of the block.

    Args:
      timeout: of the handshake.
      check: raises for an answer that is another one than 101.

    Raises:
      httpx.TransportError, httpx_ws.HTTPXWSException: the connection failed.
    """
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    async with client.stream("GET", url, params=params, headers={**headers, **upgrade}, timeout=timeout) as response:
        if response.status_code != httpx.codes.SWITCHING_PROTOCOLS.value:
            await response.aread()
            check(response)
        stream = response.extensions["network_stream"]
        _keep_alive(stream.get_extra_info("socket"))
        session = AsyncWebSocketSession(
            cast("httpcore.AsyncNetworkStream", _Written(stream)),
            max_message_size_bytes=PIECE,
            keepalive_ping_interval_seconds=None,
            response=response,
        )
        async with plainly(cast("AbstractAsyncContextManager[AsyncWebSocketSession]", session)) as opened:
            yield opened


class _Written:
    """A stream on which a write that takes too long has failed."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer, timeout or WRITTEN_WITHIN)
        except httpcore.WriteTimeout as error:
            raise httpcore.WriteError("the peer reads no more") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


def _keep_alive(connection: Any) -> None:
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
