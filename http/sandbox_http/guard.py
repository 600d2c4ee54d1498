"""The guard: before anything else, who may come in, and for what. Host, Origin and token, for HTTP and WebSocket alike.

A daemon on loopback runs commands for whoever reaches it, and every web page that its user opens can try:

1. *Another origin's page* calls us: it always says so in `Origin`. Only listed origins, and our own page, may.
2. *A page whose name was re-bound to 127.0.0.1* calls "itself": it says its own name in `Host`. Without a token only
   names that nobody can register are taken: addresses, `localhost`, names without a dot. (With a token the page has
   no token, and proxies may use whatever name they like.)
3. *Anybody else*: needs a token wherever one is set, see `admission`, with the scope that the route asks for, see
   `scopes`. Compared in constant time. A stream that was opened with a token ends with it.

Paths are judged and handed on as they came, percent-encoded, so that the guard and the routes never read two paths out
of one: an id may hold an encoded slash.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import structlog

from .admission import PROTOCOL, forbidden, method_of
from .problems import Cut, Problem, endpoint_not_found
from .scopes import PUBLIC, needed

if TYPE_CHECKING:
    from .admission import Admission, Admitted
    from .config import Cors
    from .tokens import Tokens

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

POLICY_VIOLATION = 1008
"""RFC 6455, section 7.4.1."""

CUT = "the token holds no more"

TOKENS = re.compile(r"/v1/tokens(/.*)?", re.DOTALL)

VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")


class Guard:
    """ASGI middleware, the outermost.

    Args:
      app: what is guarded.
      tokens: who may come in.
      admission: finds out who comes.
      any_host: whether `Host` may be any name.
      exists: whether there is a route for a path: an unknown one is 404 for everybody, as on the public wire.
      is_proxied: whether a path is another application's, which answers OPTIONS itself but for preflights.
    """

    def __init__(
        self,
        app: ASGIApp,
        cors: Cors,
        tokens: Tokens,
        admission: Admission,
        *,
        any_host: bool,
        exists: Callable[[str], bool],
        is_proxied: Callable[[str], bool],
    ) -> None:
        self._app = app
        self._cors = cors
        self._tokens = tokens
        self._admission = admission
        self._any_host = any_host
        self._exists = exists
        self._is_proxied = is_proxied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": _path(scope)}
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        started = perf_counter()
        status: int | None = None
        over = False
        admitted: Admitted | None = None

        async def sending(message: AsgiMessage) -> None:
            nonlocal status, over
            if message["type"] == "websocket.close":
                over = True
            elif message["type"] == "websocket.accept" and admitted is not None and admitted.chooses:
                message = {**message, "subprotocol": message.get("subprotocol") or PROTOCOL}
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                if message["type"] != "websocket.accept":
                    message = {**message, "headers": [*message.get("headers", ()), *self._cors_headers(origin)]}
            await send(message)

        try:
            verdict = self._judge(scope, headers)
            if isinstance(verdict, Problem):
                await _refuse(scope, headers, sending, verdict)
            elif self._is_preflight(scope, headers):
                await answer(scope, sending, 200, self._preflight(), b"")
            elif verdict is None:
                await self._app(scope, receive, sending)
            else:
                admitted = verdict
                if await self._cut(admitted, receive, sending) and not over:
                    if status is None:
                        await _refuse(scope, headers, sending, _unauthorized())
                    elif scope["type"] == "websocket":
                        await sending({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": CUT})
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

    async def _cut(self, admitted: Admitted, receive: Receive, send: Send) -> bool:
        """Serve a request; gives whether it was cut off because its token holds no more."""
        scope, grant, _ = admitted
        if TOKENS.fullmatch(scope["path"]):
            # Taking back one's own token is answered. Those routes ask once more whether it holds, see there.
            await self._app(scope, receive, send)
            return False
        with self._tokens.lasting(grant) as lasting:
            await self._app(scope, receive, send)
        return lasting.cancelled_caught

    def _judge(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | Admitted | None:
        """Why a request is refused, or as whose it goes on; None: it goes on as it is, being for everybody."""
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._any_host and not _is_safe_host(host):
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
        need = needed(method_of(scope), scope["path"])
        if need == PUBLIC:
            return None
        admitted = self._admission.admit(scope, headers)
        if admitted is not None and admitted.grant.may(need):
            return admitted
        if not self._exists(scope["path"]):
            return endpoint_not_found()
        return _unauthorized() if admitted is None else forbidden(admitted.grant, need)

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


async def _refuse(scope: Scope, headers: dict[bytes, bytes], send: Send, problem: Problem) -> None:
    told = [*_items(problem.headers), PROBLEM_TYPE, *_closing(scope, headers)]
    await answer(scope, send, problem.status, told, problem.body)


def _unauthorized() -> Problem:
    return Problem("token_invalid", "missing or invalid bearer token")


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
