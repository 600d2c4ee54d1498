"""`/v1/ports/{port}/proxy/...`: to the application that listens on a port of this sandbox.

It stands in front of Quart, which would buffer what is streamed here. The target is a number: there is no host that a
request could name, only loopback. Our own port is refused: whoever came in by it would not be asked for a token again
by an application that trusts loopback, and a request could go round in circles.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..guard import answer
from ..problems import Problem
from .exchange import Exchange, refuse
from .headers import Target
from .socket import Relay

if TYPE_CHECKING:
    from ..guard import ASGIApp, Receive, Scope, Send
    from ..streams import Streams
    from ..tokens import Tokens

__all__ = ["Proxy", "is_proxied"]

ROUTE = re.compile(r"(?P<prefix>/v1/ports/(?P<port>\d+)/proxy)(?P<path>/.*)?", re.DOTALL | re.ASCII)

MOST_AT_ONCE = 256
"""Requests and WebSockets under way. Each takes two descriptors, of which many systems give 1024 to a process."""

LARGEST_PORT = 65535


def is_proxied(path: str) -> bool:
    """Whether a path is for an application behind a port."""
    return ROUTE.fullmatch(path) is not None


class Proxy:
    """ASGI middleware below the guard.

    Args:
      tokens: the daemon's own; None: none is needed.
      largest_message: bytes of the largest message of a WebSocket.
      streams: tells of the shutdown.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens | None, largest_message: int, streams: Streams) -> None:
        self._app = app
        self._tokens = tokens
        self._largest_message = largest_message
        self._streams = streams
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = None if scope["type"] == "lifespan" else ROUTE.fullmatch(scope["path"])
        if match is None:
            await self._app(scope, receive, send)
            return
        port = int(match["port"][:6])
        problem = self._refuses(port, scope)
        if problem is not None:
            await self._pass(_target(match, port, scope), problem, scope, receive, send)
        elif match["path"] is None and scope.get("method") in ("GET", "HEAD"):
            # Without the slash, links of the page that are relative would lead elsewhere.
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            await answer(scope, send, 308, [(b"location", match["prefix"].encode() + b"/" + query)], b"")
        else:
            self._under_way += 1
            try:
                await self._pass(_target(match, port, scope), None, scope, receive, send)
            finally:
                self._under_way -= 1

    async def _pass(self, target: Target, problem: Problem | None, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Exchange(target, self._tokens, scope, receive, send).run(problem)
        elif problem is not None:
            await refuse(scope, send, problem)
        else:
            await Relay(target, self._tokens, self._largest_message, self._streams, scope, receive, send).run()

    def _refuses(self, port: int, scope: Scope) -> Problem | None:
        if not 1 <= port <= LARGEST_PORT:
            return Problem("invalid_request", f"a port is a number from 1 to {LARGEST_PORT}")
        if port == scope["server"][1]:
            return Problem("permission_denied", f"port {port} is this server's own")
        if self._under_way >= MOST_AT_ONCE:
            message = f"{MOST_AT_ONCE} requests to ports are under way; try again later"
            return Problem("overloaded", message, headers={"Retry-After": "1"})
        return None


def _target(match: re.Match[str], port: int, scope: Scope) -> Target:
    headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    return Target(
        port,
        match["prefix"].encode(),
        (match["path"] or "/").encode() + query,
        headers.get(b"x-forwarded-host") or headers.get(b"host", b""),
    )
