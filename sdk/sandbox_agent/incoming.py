"""An answer whose body is read as it comes, and may be left anywhere.

The body comes through a chain of async generators, of httpx and below. One that is dropped half-way is ended by the
garbage collector, at some time, in no task. So the end of the chain is held here, and when the reader leaves, the chain
is run into a cancellation, which ends each of its links in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx
from httpx_sse import EventSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from httpx_sse import ServerSentEvent

__all__ = ["Incoming"]


class Incoming:
    """See the module: an async iterator over the bytes. Made by `Transport.stream`.

    Attributes:
      status_code, headers: of the answer.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self._response = response
        self._bytes: AsyncGenerator[bytes] | None = None
        self._frames: AsyncGenerator[ServerSentEvent] | None = None

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> bytes:
        if self._bytes is None:
            self._bytes = _generator(self._response.aiter_bytes())
        return await anext(self._bytes)

    async def read(self) -> bytes:
        """All that is left."""
        return b"".join([piece async for piece in self])

    async def frame(self) -> ServerSentEvent | None:
        """The next frame of an event stream; None at its end.

        Raises:
          httpx.TransportError: the connection broke, or this is no event stream.
        """
        if self._frames is None:
            self._frames = EventSource(self._response).aiter_sse()
        try:
            return await anext(self._frames, None)
        except httpx.DecodingError as error:  # something on the way has compressed it, badly
            raise httpx.RemoteProtocolError(str(error)) from error

    async def close(self) -> None:
        """Nothing more is read."""
        with anyio.CancelScope() as scope:
            scope.cancel()
            for reading in (self._frames, self._bytes):
                if reading is not None:
                    await _exhaust(reading)
        with anyio.CancelScope(shield=True):
            await self._response.aclose()


def _generator(pieces: object) -> AsyncGenerator[bytes]:
    return pieces  # type: ignore[return-value]  # httpx declares it an iterator


async def _exhaust(reading: AsyncGenerator[object]) -> None:
    try:
        async for _ in reading:
            pass
    except (httpx.HTTPError, httpx.StreamError):
        return  # the connection had broken, and the chain has ended with that
