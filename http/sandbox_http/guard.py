"""The guard: before anything else, who may come in. Host, Origin and token, for HTTP and WebSocket alike.

A daemon on loopback runs commands for whoever reaches it, and every web page that its user opens can try:

1. *Another origin's page* calls us: it always says so in `Origin`. Only listed origins, and our own page, may.
2. *A page whose name was re-bound to 127.0.0.1* calls "itself": it says its own name in `Host`. Without a token only
   names that nobody can register are taken: addresses, `localhost`, names without a dot. (With a token the page has
   no token, and proxies may use whatever name they like.)
3. *Anybody else*: needs the token wherever one is set, in `Authorization: Bearer` or, where a proxy strips that, in
   `X-Sandbox-Agent-Token`; for a terminal's WebSocket, to which browsers add no header, in `access_token` of the
   query as well. Compared in constant time.

Paths are judged and handed on as they came, percent-encoded, so that the guard and the routes never read two paths out
of one: an id may hold an encoded slash.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import structlog

from .problems import Cut, Problem, endpoint_not_found

if TYPE_CHECKING:
    from .config import Config

__all__ = ["ASGIApp", "Guard", "Receive", "Scope", "Send"]

# Dictionaries that are open by the specification of ASGI 3.0; Quart and Hypercorn each type them in their own way.
Scope: TypeAlias = Any
AsgiMessage: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

log = structlog.get_logger()

HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(:\d*)?")

TERMINAL = re.compile(r"/v1/processes/[^/]+/terminal/ws")
"""The one place where the public wire takes a token in the query."""

VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")


class Guard:
    """ASGI middleware, the outermost.

    Args:
      app: what is guarded.
      exists: whether there is a route for a path: an unknown one is 404 for everybody, as on the public wire.
      is_proxied: whether a path is another application's, which answers OPTIONS itself but for preflights.
    """

    def __init__(
        self, app: ASGIApp, config: Config, exists: Callable[[str], bool], is_proxied: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._cors = config.cors
        self._exists = exists
        self._is_proxied = is_proxied
        self._token = None if config.token is None else _digest(config.token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": _path(scope)}
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        started = perf_counter()
        status: int | None = None

        async def sending(message: AsgiMessage) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                if message["type"] != "websocket.accept":
                    message = {**message, "headers": [*message.get("headers", ()), *self._cors_headers(origin)]}
            await send(message)

        try:
            problem = self._refuses(scope, headers)
            if problem is not None:
                told = [*_items(problem.headers), PROBLEM_TYPE, *_closing(scope, headers)]
                await answer(scope, sending, problem.status, told, problem.body)
            elif self._is_preflight(scope, headers):
                await answer(scope, sending, 200, self._preflight(), b"")
            else:
                await self._app(scope, receive, sending)
        except* Cut as cuts:
            log.warning("an answer was cut off", path=scope["path"], why=_messages(cuts))
        except* Exception as bugs:
            # Hypercorn's own log is off; it ends the connection, or answers 500 where nothing was sent yet.
            log.error("request failed unexpectedly", path=scope["path"], exc_info=bugs)
        finally:
            log.log(
                _level(status),
                "request",
                method=scope.get("method", "WEBSOCKET"),
                path=scope["path"],  # never the query: it may hold secrets
                status=status,
                ms=round((perf_counter() - started) * 1000, 1),
            )

    def _refuses(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self._token is None and not _is_safe_host(host):
            return Problem(
                "permission_denied",
                f"the Host {host!r} is not a name of this machine: use localhost or an address, or set a token",
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._origin_may(origin.decode("latin-1"), host):
            return Problem(
                "permission_denied",
                f"the Origin {origin.decode('latin-1')!r} may not call this server: list it with --cors-allow-origin",
            )
        if self._is_preflight(scope, headers):
            return None
        if not scope["path"]:
            return endpoint_not_found()
        if self._token is None or scope["path"] == "/":
            return None
        if any(hmac.compare_digest(_digest(given), self._token) for given in _tokens(headers) + _query_tokens(scope)):
            return None
        if not self._exists(scope["path"]):
            return endpoint_not_found()
        return Problem("token_invalid", "missing or invalid bearer token")

    def _is_preflight(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        if scope.get("method") != "OPTIONS":
            return False
        return b"access-control-request-method" in headers or not self._is_proxied(scope["path"])

    def _origin_may(self, origin: str, host: str) -> bool:
        if origin in self._cors.origins or "*" in self._cors.origins:
            return True
        # Our own page: same name and port as the request went to, and a name that stands for this machine.
        try:
            parts = urlsplit(origin)
        except ValueError:  # say, a bracket that is not closed
            return False
        return parts.scheme in ("http", "https") and parts.netloc == host and _is_loopback(parts.hostname or "")

    def _cors_headers(self, origin: bytes | None) -> Headers:
        headers: Headers = [VARY]
        if origin is not None and (origin.decode("latin-1") in self._cors.origins or "*" in self._cors.origins):
            headers.append((b"access-control-allow-origin", origin))
            headers.append((b"access-control-expose-headers", b"*"))
        if self._cors.credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers

    def _preflight(self) -> Headers:
        return [
            (b"access-control-allow-methods", ",".join(self._cors.methods or ("*",)).encode()),
            (b"access-control-allow-headers", ",".join(self._cors.headers or ("*", "authorization")).encode()),
        ]


PROBLEM_TYPE = (b"content-type", b"application/problem+json")


async def answer(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole response by hand, for HTTP and for the refusal of a WebSocket."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    length = (b"content-length", str(len(body)).encode())
    await send({"type": f"{kind}.start", "status": status, "headers": [*headers, length]})
    await send({"type": f"{kind}.body", "body": body if scope.get("method") != "HEAD" else b""})


def _level(status: int | None) -> int:
    if status is None or status < 400 or status == 404:
        return logging.DEBUG
    return logging.INFO if status < 500 else logging.WARNING


def _messages(errors: BaseExceptionGroup[Exception]) -> str:
    """What the errors in a group say, however deep."""
    return "; ".join(
        _messages(error) if isinstance(error, BaseExceptionGroup) else str(error) for error in errors.exceptions
    )


def _path(scope: Scope) -> str:
    """The path of a request as it came; empty where it is none."""
    path: str = scope["raw_path"].partition(b"?")[0].decode("latin-1")
    if path.startswith(("http://", "https://")):  # the absolute form, as for a proxy (RFC 9112, section 3.2.2)
        path = "/" + path.partition("://")[2].partition("/")[2]
    # Two leading slashes are one to the router, without any Quart fails; HTTP/2 lets bytes through that are no ASCII.
    sound = path.startswith("/") and not path.startswith("//") and path.isascii() and scope["query_string"].isascii()
    return path if sound else ""


def _closing(scope: Scope, headers: dict[bytes, bytes]) -> Headers:
    """What tells the client of a refusal that the connection ends with it: its body, if any, is not read."""
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    return [(b"connection", b"close")] if has_body and scope["http_version"] < "2" else []


def _items(headers: dict[str, str]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.lower().encode(), value.encode()) for name, value in headers.items())


def _digest(token: bytes) -> bytes:
    # Digests have one length, so that comparing them tells nothing about the token's.
    return hashlib.sha256(token).digest()


def _tokens(headers: dict[bytes, bytes]) -> list[bytes]:
    tokens: list[bytes] = []
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme == b"Bearer":
        tokens.append(token)
    if b"x-sandbox-agent-token" in headers:
        tokens.append(headers[b"x-sandbox-agent-token"])
    return tokens


def _query_tokens(scope: Scope) -> list[bytes]:
    """Tokens in the query: a browser can send none in a header with a WebSocket, and a terminal is looked at there."""
    if scope["type"] != "websocket" or TERMINAL.fullmatch(scope["path"]) is None:
        return []
    query = parse_qs(scope["query_string"].decode("ascii"), errors="surrogateescape")
    return [token.encode(errors="surrogateescape") for token in query.get("access_token", [])]


def _name(host: str) -> str:
    """The name in a Host header, without the port; empty where it is malformed."""
    match = HOST.fullmatch(host.lower())
    return "" if match is None else match["name"].strip("[]").rstrip(".")


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_safe_host(host: str) -> bool:
    """Whether no page that was re-bound to us could have this name."""
    name = _name(host)
    if _is_loopback(name):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # Nobody can register a name without a dot; `/etc/hosts` and containers' networks use such names.
        return bool(name) and "." not in name
    return True
