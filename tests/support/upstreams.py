"""Servers on loopback that a daemon is to pass requests on to."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from .serving import Resources
from .wire import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .serving import Local

__all__ = ["free_port", "port_of", "settled", "through", "upstream"]


def through(port: int, path: str = "/") -> str:
    """Where the daemon passes a path on to a port."""
    return f"/v1/ports/{port}/proxy{path}"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def upstream(
    serve: Callable[[trio.SocketStream], Awaitable[None]], host: str = "127.0.0.1"
) -> AsyncGenerator[int]:
    """A server of our own making; gives its port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host=host), serve, 0)
        yield int(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def settled(daemon: Local) -> Resources:
    """What is held once all that belongs to the daemon runs."""
    await exchange(daemon.port, "GET", "/v1/health")
    return Resources.now()
