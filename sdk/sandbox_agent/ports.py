"""What listens in the sandbox, and the way through the server to it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["Listener", "Ports"]

TOKEN_HEADER = "X-Sandbox-Agent-Token"
"""For the server's token, so that `Authorization` is free for the application's own."""

MARGIN = 30.0
"""Seconds that an answer may take beyond what was asked for."""

SAFE = "/:@!$&'()*+,;=~?%"
"""What a path and its query are given with: they may be percent-encoded already."""


class Listener(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Who listens on a port.

    Attributes:
      on_loopback: it is reached through the server.
      pid, command: None where the server may not look into the process.
    """

    port: int
    addresses: list[str]
    on_loopback: bool
    pid: int | None = None
    command: str | None = None


class _Listed(msgspec.Struct, frozen=True):
    ports: list[Listener]


class Ports:
    """The ports of a sandbox. Reached as `sandbox.ports`.

    listener = await sandbox.ports.wait(3000)
    async with httpx.AsyncClient(headers=sandbox.ports.headers()) as client:
        page = await client.get(sandbox.ports.url(3000, "/index.html"))
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> list[Listener]:
        """Who listens, by port, without the server itself. Raises `ApiError`, `ConnectionFailed`."""
        return (await self._transport.ask(_Listed, "GET", "/v1/ports")).ports

    async def wait(self, port: int, *, timeout: float = 30.0) -> Listener:
        """Wait until somebody listens.

        Args:
          timeout: seconds, up to 600; 0 only looks.

        Raises:
          ServerTimeout: nobody does.
          ApiError, ConnectionFailed.
        """
        params = {"timeoutMs": round(timeout * 1000)}
        return await self._transport.ask(
            Listener, "GET", f"/v1/ports/{port}/wait", params=params, silence=timeout + MARGIN
        )

    def url(self, port: int, path: str = "/") -> str:
        """Where an application on a port is reached, with any method, by any HTTP client: with `headers()`.

        It holds for as long as the sandbox's server stays where it is. With `ws` for `http` it is that of a WebSocket.

        Args:
          path: at the application, with a query if there is one.
        """
        return self._transport.url(f"/v1/ports/{port}/proxy/{quote(path.removeprefix('/'), safe=SAFE)}")

    def headers(self) -> dict[str, str]:
        """What each request through the server needs. The server's token is in it, and is not passed on."""
        endpoint = self._transport.endpoint
        headers = dict(endpoint.headers)
        if endpoint.token is not None:
            headers[TOKEN_HEADER] = endpoint.token
        return headers
