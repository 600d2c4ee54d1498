"""Scopes: what a token is good for, and what each route asks for.

    read      look: sessions, events, files, processes, what is configured
    prompt    take part in sessions: open them, prompt, answer permissions; by WebSocket also to read along
    exec      act on the machine: files, processes, terminals, Git, ports, agents, what is configured for a directory
    admin     the daemon itself: tokens, limits

None holds another: a token has what it lists. A route that no row names asks for `admin`, so that one which is added
later is closed until somebody has thought of it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, get_args

__all__ = ["EVERY", "PUBLIC", "SCOPES", "WEBSOCKET", "ScopeName", "is_listed", "needed"]

ScopeName: TypeAlias = Literal["read", "prompt", "exec", "admin"]

SCOPES: tuple[ScopeName, ...] = get_args(ScopeName)

Need: TypeAlias = frozenset[ScopeName]
"""Each of these is enough."""

PUBLIC: Need = frozenset()
"""No token at all."""

EVERY: Need = frozenset(SCOPES)
"""Any token."""

READ: Need = frozenset({"read"})
PROMPT: Need = frozenset({"prompt"})
EXEC: Need = frozenset({"exec"})
ADMIN: Need = frozenset({"admin"})

WEBSOCKET = "WEBSOCKET"
"""Stands for the method of a handshake, which is GET as well."""


class _Row(NamedTuple):
    """What a path asks for: to look at it (GET, HEAD), to change it (all else), and for its WebSocket."""

    path: str
    look: Need
    act: Need
    socket: Need


TABLE = (
    _Row("/", PUBLIC, ADMIN, ADMIN),
    _Row("/v1/init", PUBLIC, PUBLIC, PUBLIC),
    # Whoever may do anything here may know how; it says nothing of this machine.
    _Row("/openapi.json", EVERY, EVERY, EVERY),
    _Row("/v1/health", EVERY, EVERY, EVERY),
    _Row("/v1/ready", EVERY, EVERY, EVERY),
    # A ticket is worth no more than the token that it was made with.
    _Row("/v1/tickets", EVERY, EVERY, EVERY),
    _Row("/v1/tokens/**", ADMIN, ADMIN, ADMIN),
    _Row("/v1/acp/**", READ, PROMPT, PROMPT),
    _Row("/v1/sessions/**", READ, PROMPT, PROMPT),
    _Row("/acp/**", READ, PROMPT, PROMPT),
    _Row("/v1/agents/**", READ, EXEC, EXEC),
    # Stored MCP servers are programs that sessions start.
    _Row("/v1/config/**", READ, EXEC, EXEC),
    # The one WebSocket there only tells of changes.
    _Row("/v1/fs/**", READ, EXEC, READ),
    _Row("/v1/git/**", READ, EXEC, EXEC),
    # What listens on a port takes whatever it takes: a GET may do anything there.
    _Row("/v1/ports/*/proxy/**", EXEC, EXEC, EXEC),
    _Row("/v1/ports/**", READ, EXEC, EXEC),
    _Row("/v1/processes/config", READ, ADMIN, ADMIN),
    _Row("/v1/processes/**", READ, EXEC, EXEC),
    _Row("/v1/supervisor", READ, ADMIN, ADMIN),
)
"""The first row that fits counts. `*` is one part of a path; `/**` the path itself and all below it."""


def needed(method: str, path: str) -> Need:
    """What a request asks for.

    Args:
      method: `WEBSOCKET` for a handshake.
      path: percent-encoded, as routes see it.
    """
    row = _row(path)
    if row is None:
        return ADMIN
    if method == WEBSOCKET:
        return row.socket
    return row.look if method in ("GET", "HEAD") else row.act


def is_listed(path: str) -> bool:
    """Whether a row of the table is about this path."""
    return _row(path) is not None


@lru_cache(maxsize=512)
def _row(path: str) -> _Row | None:
    return next((row for pattern, row in _PATTERNS if pattern.fullmatch(path)), None)


def _pattern(path: str) -> re.Pattern[str]:
    below = path.endswith("/**")
    literal = re.escape(path.removesuffix("/**")).replace(r"\*", "[^/]+")
    return re.compile(literal + ("(/.*)?" if below else ""), re.DOTALL)


_PATTERNS = tuple((_pattern(row.path), row) for row in TABLE)
