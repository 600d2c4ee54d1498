"""Admission: what a request came in with, and the request without it.

    Authorization: Bearer <token>
    X-Sandbox-Agent-Token: <token>                              where a proxy keeps the first for itself
    Sec-WebSocket-Protocol: sandbox-agent.token.<base64url>     a browser adds no header to a WebSocket
    ?ticket=<ticket>                                            for a URL alone: GET, and WebSockets
    ?access_token=<token>                                       for a terminal's WebSocket, as on the public wire

One that is good is enough, whatever else is there. Tickets and subprotocols of this kind are taken out: what stands
behind us, an application on a port above all, is not to see them.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from .problems import Problem
from .scopes import WEBSOCKET

if TYPE_CHECKING:
    from .guard import Scope
    from .scopes import ScopeName
    from .tickets import Tickets
    from .tokens import Grant, Tokens

__all__ = ["PROTOCOL", "Admission", "Admitted", "forbidden", "granted", "is_stranger", "method_of"]

GRANT = "sandbox_agent.grant"
"""The key of an ASGI scope under which routes find the `Grant`."""

PROTOCOL = "sandbox-agent"
"""What a client offers beside its token: a browser takes a WebSocket that chose none of its subprotocols for failed."""

PROTOCOL_TOKEN = "sandbox-agent.token."

TERMINAL = re.compile(r"/v1/processes/[^/]+/terminal/ws")
"""The one place where the public wire takes a token in the query."""


class Admitted(NamedTuple):
    """What goes on into the daemon.

    Attributes:
      chooses: whether our own subprotocol was offered, and is to be chosen if nobody chooses another.
    """

    scope: Scope
    grant: Grant
    chooses: bool


class Admission:
    """See the module."""

    def __init__(self, tokens: Tokens, tickets: Tickets) -> None:
        self._tokens = tokens
        self._tickets = tickets

    def admit(self, scope: Scope, headers: dict[bytes, bytes]) -> Admitted | None:
        """The request as it goes on; None: whoever sent it may not come in.

        Args:
          scope: with the path percent-encoded, and a query that is ASCII.
        """
        method = method_of(scope)
        grant = self._tokens.grant([*_header_tokens(headers), *_socket_tokens(scope)])
        if method in ("GET", WEBSOCKET) and b"ticket=" in scope["query_string"]:
            by_ticket = self._tickets.grant(method, scope["path"], scope["query_string"])
            if by_ticket is not None:
                grant = grant or by_ticket[0]
                scope = {**scope, "query_string": by_ticket[1]}
        if grant is None:
            return None
        scope = {**scope, GRANT: grant}
        chooses = False
        if method == WEBSOCKET:
            offered: list[str] = scope["subprotocols"]
            chooses = PROTOCOL in offered
            scope["subprotocols"] = [
                name for name in offered if name != PROTOCOL and not name.startswith(PROTOCOL_TOKEN)
            ]
        return Admitted(scope, grant, chooses)


def granted(scope: Scope) -> Grant:
    """What a request came in with; it is there for every route but the public ones."""
    grant: Grant = scope[GRANT]
    return grant


def is_stranger(scope: Scope) -> bool:
    """Whether nobody has asked who sends a request, its route being a public one."""
    return GRANT not in scope


def forbidden(grant: Grant, need: frozenset[ScopeName]) -> Problem:
    """The refusal of a request whose token is good for other things."""
    wanted = " or ".join(repr(name) for name in sorted(need))
    message = f"this needs a token of scope {wanted}; {grant.name!r} has {', '.join(sorted(grant.scopes))}"
    return Problem("forbidden_scope", message, neededScopes=sorted(need), scopes=sorted(grant.scopes))


def method_of(scope: Scope) -> str:
    """The method of a request, `WEBSOCKET` for a handshake."""
    method: str = WEBSOCKET if scope["type"] == "websocket" else scope["method"]
    return method


def _header_tokens(headers: dict[bytes, bytes]) -> list[bytes]:
    tokens: list[bytes] = []
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme == b"Bearer":
        tokens.append(token)
    if b"x-sandbox-agent-token" in headers:
        tokens.append(headers[b"x-sandbox-agent-token"])
    return tokens


def _socket_tokens(scope: Scope) -> list[bytes]:
    """The tokens that stand where a browser can put them, which adds no header to a WebSocket."""
    if scope["type"] != "websocket":
        return []
    encoded = [name.removeprefix(PROTOCOL_TOKEN) for name in scope["subprotocols"] if name.startswith(PROTOCOL_TOKEN)]
    tokens = [token for name in encoded if (token := _decoded(name)) is not None]
    if TERMINAL.fullmatch(scope["path"]) is not None:
        query = parse_qs(scope["query_string"].decode("ascii"), errors="surrogateescape")
        tokens += [token.encode(errors="surrogateescape") for token in query.get("access_token", [])]
    return tokens


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
