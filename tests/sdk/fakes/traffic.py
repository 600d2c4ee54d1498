"""What a provider's proxy does: a request to a sandbox goes on to a port of this machine, and its answer comes back."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from .cloud import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cloud import Request

__all__ = ["pass_on"]

HOP_BY_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})
"""Headers that are about a connection, and not about what is said over it."""

PIECE = 1 << 16
"""Bytes that are passed on at once."""


def pass_on(request: Request, port: int, without: frozenset[str] = frozenset()) -> Reply:
    """The answer of whoever listens there; raises `ConnectionRefusedError` where nobody does. No WebSockets.

    Args:
      without: names of headers that the proxy keeps for itself, in lower case.
    """
    upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    path = quote(request.path) + (f"?{urlencode(request.query)}" if request.query else "")
    headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP | without}
    try:
        upstream.request(request.method, path, request.body or None, headers)
        response = upstream.getresponse()
    except BaseException:
        upstream.close()
        raise
    kept = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
    return Reply(response.status, _pieces(upstream, response), kept)


def _pieces(upstream: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read1(PIECE):
            yield piece
    except (OSError, http.client.HTTPException):
        return  # the server was killed: the client sees the same end
    finally:
        response.close()
        upstream.close()
