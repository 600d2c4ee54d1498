"""What Modal's wire is made of, whatever it says: gRPC services, tokens, and tunnels."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from grpclib import GRPCError, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["close_connections", "jwt", "service", "tunnel_to"]

TURNS = 10
"""Of the event loop, after which aborted connections are closed: it takes two."""

PIECE = 1 << 16
"""Bytes that are handed on at once."""


def service(base: Any, methods: dict[str, Any]) -> Any:
    """A service that has these methods, and says of the others that it has not."""

    def missing(name: str) -> Any:
        async def method(self: Any, stream: Any) -> None:
            raise GRPCError(Status.UNIMPLEMENTED, f"the fake has no {name}")

        return method

    return type("Service", (base,), {name: missing(name) for name in base.__abstractmethods__} | methods)()


def tunnel_to(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    """Hands on to a port of this machine."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inside, within = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # nobody listens
            writer.close()
            return
        await asyncio.gather(_pump(reader, within), _pump(inside, writer))

    return connected


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(PIECE):
            sink.write(data)
            await sink.drain()
    sink.close()


def jwt() -> str:
    """A token for an hour, which nobody has signed."""
    parts = [{"alg": "none"}, {"exp": int(time.time()) + 3600}]
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*coded, "signature"])


async def close_connections() -> None:
    """End what is left of connections: clients keep theirs, and the server closes none by itself."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    loop: Any = asyncio.get_running_loop()
    for transport in list(loop._transports.values()):
        transport.abort()
    for _ in range(TURNS):
        await asyncio.sleep(0)
