"""What becomes of headers on their way through the proxy (RFC 9110, section 7.6).

Towards the application: what is for one connection only and what is for us is left out, and it is told who asks, in
`X-Forwarded-*`. Towards the client: what speaks for a whole origin is left out or narrowed down to the port's own path,
since the origin is the daemon's, and other ports share it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..guard import Scope
    from ..tokens import Tokens

__all__ = ["Headers", "Target", "has", "request_headers", "response_headers"]

Headers: TypeAlias = list[tuple[bytes, bytes]]

FOR_ONE_CONNECTION = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

NOT_ASKED_ON = frozenset(
    {
        b"expect",  # Hypercorn has answered it
        b"host",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-sandbox-agent-token",
    }
)
"""Beside those: what we say ourselves, and our own token."""

NOT_ANSWERED_ON = frozenset(
    {
        b"alt-svc",
        b"clear-site-data",
        b"date",  # Hypercorn says it
        b"service-worker-allowed",
        b"strict-transport-security",
    }
)
"""Beside those, and `Access-Control-*`, which is the guard's: what would hold for all of the daemon's origin."""

SANDBOX = (b"content-security-policy", b"sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads")
"""Without a token every page of our own origin may use the whole API. A page in a sandbox has an origin of its own."""

PLACE = re.compile(rb"(?i)(?:(?:https?:)?//(?P<host>[^/?#]*))?(?P<rest>(?:/(?!/)|[?#]|\Z).*)", re.DOTALL)
"""A URL without a host, or with one."""

COOKIE_SCOPE = re.compile(rb"(?i)\s*(path|domain)\s*=\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request is to go.

    Attributes:
      prefix: what the path of every request to this port begins with.
      path: what follows, with the query, as it came.
      known_as: the host, as the client knows it.
    """

    port: int
    prefix: bytes
    path: bytes
    known_as: bytes

    @property
    def host(self) -> bytes:
        """The name that development servers take without being told to."""
        return b"localhost:%d" % self.port

    @property
    def own_hosts(self) -> tuple[bytes, ...]:
        """What the application may call itself."""
        names = (b"localhost", b"127.0.0.1", b"[::1]")
        return tuple(b"%b:%d" % (name, self.port) for name in names) + (names if self.port == 80 else ())


def request_headers(scope: Scope, target: Target, tokens: Tokens | None) -> Headers:
    """What the application gets.

    Args:
      tokens: the daemon's own, which are none of the application's business.
    """
    given: Headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    chunked = has(given, b"transfer-encoding")
    left_out = FOR_ONE_CONNECTION | NOT_ASKED_ON | _named_in_connection(given)
    headers: Headers = [(b"host", target.host)]
    for name, value in given:
        if name in left_out or (name == b"content-length" and chunked):
            continue
        if name == b"authorization" and tokens is not None and tokens.knows(value.partition(b" ")[2].strip()):
            continue
        headers.append((name, _origin(value, given, target) if name == b"origin" else value))
    return [*headers, *_forwarded(scope, given, target)]


def response_headers(given: Iterable[tuple[bytes, bytes]], target: Target, *, sandboxed: bool) -> Headers:
    """What the client gets.

    Args:
      sandboxed: whether pages must not be of our own origin.
    """
    given = [(bytes(name).lower(), bytes(value)) for name, value in given]
    chunked = has(given, b"transfer-encoding")
    left_out = FOR_ONE_CONNECTION | NOT_ANSWERED_ON | _named_in_connection(given)
    headers: Headers = []
    for name, value in given:
        if name in left_out or name.startswith(b"access-control-") or (name == b"content-length" and chunked):
            continue
        if name in (b"location", b"content-location"):
            headers.append((name, _location(value, target)))
        elif name == b"set-cookie":
            headers.append((name, _cookie(value, target)))
        else:
            headers.append((name, value))
    return [*headers, SANDBOX] if sandboxed else headers


def has(headers: Headers, wanted: bytes) -> bool:
    """Whether a header is there."""
    return any(name == wanted for name, _ in headers)


def _named_in_connection(headers: Headers) -> frozenset[bytes]:
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    return frozenset(named - {b"content-length"})  # without it the end of the body would be another one


def _first(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)


def _forwarded(scope: Scope, given: Headers, target: Target) -> Headers:
    """Who asks for what. What a proxy in front of us has said stays: it knows the client, and we know the proxy."""
    client: tuple[str, int] | None = scope.get("client")
    chain = [value for name, value in given if name == b"x-forwarded-for"]
    if client is not None:
        chain.append(client[0].encode())
    secure = scope["scheme"] in ("https", "wss")
    before = _first(given, b"x-forwarded-prefix") or b""
    forwarded = [
        (b"x-forwarded-for", b", ".join(chain)),
        (b"x-forwarded-host", target.known_as),
        (b"x-forwarded-proto", _first(given, b"x-forwarded-proto") or (b"https" if secure else b"http")),
        (b"x-forwarded-prefix", before.rstrip(b"/") + target.prefix),
        (b"via", b"%b sandbox-agent" % scope["http_version"].encode()),
    ]
    return [(name, value) for name, value in forwarded if value]


def _origin(origin: bytes, given: Headers, target: Target) -> bytes:
    """Our own page stands for the application's; any other that the guard lets in is told as it is."""
    scheme, _, place = origin.partition(b"://")
    return scheme + b"://" + target.host if place and place == _first(given, b"host") else origin


def _location(location: bytes, target: Target) -> bytes:
    """Where a place in the same application is for our client; any other is left alone."""
    match = PLACE.fullmatch(location)
    if match is None or match["host"] not in (None, target.known_as, *target.own_hosts):
        return location
    rest: bytes = match["rest"]
    if match["host"] is None and not rest.startswith(b"/"):
        return location
    return _below(rest if rest.startswith(b"/") else b"/" + rest, target)


def _below(path: bytes, target: Target) -> bytes:
    """A path of the application as our client knows it; one that heeds `X-Forwarded-Prefix` has told it so already."""
    return path if path == target.prefix or path.startswith(target.prefix + b"/") else target.prefix + path


def _cookie(cookie: bytes, target: Target) -> bytes:
    """A cookie that comes back to this port alone."""
    value, *attributes = cookie.split(b";")
    kept = [value]
    for attribute in attributes:
        match = COOKIE_SCOPE.fullmatch(attribute)
        if match is None:
            kept.append(attribute)
        elif match[1].lower() == b"path" and match[2].startswith(b"/"):
            kept.append(b" Path=" + _below(match[2], target))
        # A path that is none means the folder of the request (RFC 6265, section 5.2.4), and so does none at all. A
        # domain would give the cookie to other hosts.
    return b";".join(kept)
