"""An event stream that is opened again wherever it breaks off, until its reader leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx

from .backoff import Backoff
from .errors import ConnectionFailed, SandboxAgentError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from httpx_sse import ServerSentEvent

    from .incoming import Incoming
    from .transport import Params, Transport

__all__ = ["Following"]


class Following:
    """The frames of an event stream, over as many connections as it takes.

    Use it as an async context manager, and iterate over it in one task. Each connection but the first says by
    `Last-Event-ID` behind which frame to go on. A stream that ends cleanly is opened again, too: the reader knows which
    frame is the last one, and leaves. Reading may be cancelled and begun again: that costs a connection, and no frame.

    Args:
      where: asked before each connection: the path and the query.

    Attributes:
      headers: of the newest connection's answer.

    Raises:
      ApiError: the server refuses the stream.
      ConnectionFailed: for `retry_within` seconds after a break nothing came, but for the time of a recovery.
      ProviderError: the server was given up.
    """

    def __init__(self, transport: Transport, where: Callable[[], tuple[str, Params]]) -> None:
        self.headers = httpx.Headers()
        self._transport = transport
        self._where = where
        self._backoff = Backoff()
        self._connection: AbstractAsyncContextManager[Incoming] | None = None
        self._incoming: Incoming | None = None
        self._last_id = ""
        self._deadline: float | None = None

    async def __aenter__(self) -> Following:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    def __aiter__(self) -> Following:
        return self

    async def __anext__(self) -> ServerSentEvent:
        while True:
            wait: float | None = None
            try:
                if self._incoming is None:
                    self._incoming = await self._open()
                frame = await self._incoming.frame()
                if frame is not None:
                    self._last_id = frame.id or self._last_id
                    self._backoff.reset()
                    self._deadline = None
                    return frame
                failure: SandboxAgentError = ConnectionFailed("the stream has ended before its last event")
            except Unavailable as error:
                failure, wait = error, error.retry_after
                self._transport.doubt(error)
            except ConnectionFailed as error:
                failure = error
            except httpx.TransportError as error:
                self._transport.health.suspect()
                failure = ConnectionFailed(f"the stream broke off: {str(error) or type(error).__name__}")
            except BaseException:
                # Cancelled, say by a deadline for the next frame. What read has ended with that: connect again.
                await self._close()
                raise
            await self._close()
            await self._wait(wait, failure)

    async def _wait(self, at_least: float | None, failure: SandboxAgentError) -> None:
        """Wait before the next connection. Raises the failure where there is no time left."""
        delay, now = self._backoff.next(at_least), anyio.current_time()
        deadline = now + self._transport.timeouts.retry_within if self._deadline is None else self._deadline
        if now + delay > deadline:
            raise failure
        await anyio.sleep(delay)
        try:
            self._deadline = await self._transport.health.settled(deadline)
        except TimeoutError:
            raise failure from None

    async def _open(self) -> Incoming:
        path, params = self._where()
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        connection = self._transport.stream(
            "GET", path, params=params, headers=headers, silence=self._transport.timeouts.heartbeat
        )
        incoming = await connection.__aenter__()
        self._connection = connection
        self.headers = incoming.headers
        return incoming

    async def _close(self) -> None:
        connection, self._connection, self._incoming = self._connection, None, None
        if connection is not None:
            await connection.__aexit__(None, None, None)
