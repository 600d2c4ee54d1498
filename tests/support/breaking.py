"""A way to a server that can be cut, as a network does: whatever goes through it breaks off, and the next may pass."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Way", "open_way"]


class Way:
    """See the module.

    Attributes:
      port: where it begins.
      cuts: how often it was cut.
    """

    def __init__(self, to: int) -> None:
        self.port = 0
        self.cuts = 0
        self._to = to
        self._open: list[trio.SocketStream] = []

    async def cut(self) -> None:
        """Break off what goes through it now."""
        self.cuts += 1
        streams, self._open = self._open, []
        for stream in streams:
            await trio.aclose_forcefully(stream)

    async def serve(self, client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", self._to) as server:
            self._open += [client, server]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pass, client, server)
                nursery.start_soon(_pass, server, client)


@asynccontextmanager
async def open_way(to: int) -> AsyncGenerator[Way]:
    """A way to a port of this machine, for as long as the block runs."""
    way = Way(to)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), way.serve, 0)
        way.port = listener.socket.getsockname()[1]
        yield way
        nursery.cancel_scope.cancel()


async def _pass(source: trio.SocketStream, to: trio.SocketStream) -> None:
    try:
        async for data in source:
            await to.send_all(data)
        await to.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
