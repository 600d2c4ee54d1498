"""Tickets: what stands in a URL in the place of a token, for one path, and for a short time.

A browser opens a WebSocket, or a download, by a URL alone. A token in it would stay in histories and logs; a ticket is
good for nothing but this one path with this one query, and not for long. It may be used several times: a download is
resumed, a player asks for ranges.

    <expires>.<maker>.<mac>

`mac` is an HMAC over method, path, query, expiry and maker, whose key no other run of the daemon has. `maker` is a
keyed digest of the token that it was made with: with that token its tickets are dead, and none may more than it does.
"""

from __future__ import annotations

import hmac
import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tokens import Grant, Tokens

__all__ = ["PARAMETER", "Tickets", "split_query"]

PARAMETER = b"ticket="


class Tickets:
    """See the module."""

    def __init__(self, tokens: Tokens, *, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def make(self, grant: Grant, method: str, target: str, expires_in: float) -> tuple[str, int]:
        """A ticket for a path with its query, and until when it is good, in milliseconds of Unix time.

        Args:
          method: GET, or WEBSOCKET: whoever may only look on must not get to take part.
        """
        path, _, query = target.partition("?")
        expires = int((self._clock() + expires_in) * 1000)
        maker = self._maker(grant.digest)
        return f"{expires}.{maker}.{self._mac(method, path, query, str(expires), maker)}", expires

    def grant(self, method: str, path: str, query: bytes) -> tuple[Grant, bytes] | None:
        """What the ticket in a query allows, and the query without it; None where there is none that is good."""
        ticket, rest = split_query(query)
        parts = ticket.decode("ascii", "replace").split(".")
        if len(parts) != 3:
            return None
        expires, maker, mac = parts
        ours = self._mac(method, path, rest.decode("ascii"), expires, maker)
        if not hmac.compare_digest(mac.encode(), ours.encode()):
            return None
        # From here on it is known to be ours.
        if self._clock() * 1000 >= int(expires):
            return None
        grant = self._tokens.find(lambda digest: hmac.compare_digest(maker, self._maker(digest)))
        return None if grant is None else (grant, rest)

    def _maker(self, digest: bytes) -> str:
        return hmac.new(self._key, b"maker" + digest, sha256).hexdigest()[:16]

    def _mac(self, *fields: str) -> str:
        return hmac.new(self._key, msgspec.json.encode(fields), sha256).hexdigest()


def split_query(query: bytes) -> tuple[bytes, bytes]:
    """The ticket in a query, and what else is in it, as it came. Two are as good as none."""
    parts = query.split(b"&")
    tickets = [part for part in parts if part.startswith(PARAMETER)]
    rest = b"&".join(part for part in parts if not part.startswith(PARAMETER))
    return (tickets[0].removeprefix(PARAMETER) if len(tickets) == 1 else b""), rest
