"""Who answers at an address: a healthy server of ours, one with another token, somebody else, or nobody."""

from __future__ import annotations

import http.client
from contextlib import closing
from http import HTTPStatus
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

__all__ = ["ANSWER_WITHIN", "Health", "look", "url_of"]

Health: TypeAlias = Literal["healthy", "other token", "stranger", "silent", "absent"]

ANSWER_WITHIN = 2.0
"""Seconds: the answer costs the server nothing."""

LARGEST = 64 << 10
"""Bytes of an answer that are looked at: who knows who answers."""

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Addresses to listen on that are none to call."""


def url_of(host: str, port: int) -> str:
    """The URL of a server that listens there."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def look(url: str, token: str | None, within: float = ANSWER_WITHIN) -> Health:
    """Ask a server for its health.

    Args:
      within: seconds; it is silent then.
    """
    address = urlsplit(url)
    # Not by httpx: to import it, and to load what the machine trusts, takes longer than all else that a command does.
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=within)
    headers = {} if token is None else {"Authorization": b"Bearer " + token.encode("utf-8", "surrogateescape")}
    with closing(connection):
        try:
            connection.connect()
        except TimeoutError:
            return "silent"
        except OSError:
            return "absent"
        try:
            connection.request("GET", "/v1/health", headers=headers)
            with connection.getresponse() as answer:
                kind, content = answer.headers.get("content-type", ""), answer.read(LARGEST)
        except TimeoutError:
            return "silent"
        except (OSError, ValueError, http.client.HTTPException):
            return "stranger"  # it speaks something else than HTTP, or the token is none that can be told by HTTP
    if answer.status == HTTPStatus.OK and kind.startswith("application/json"):
        return "healthy" if b'"ok"' in content or b'"awaiting_init"' in content else "stranger"
    return "other token" if b"urn:sandbox-agent:error:token_invalid" in content else "stranger"
