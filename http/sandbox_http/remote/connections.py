"""All connections of the remote transport: found by id, and ended when nobody uses them any more."""

from __future__ import annotations

import math
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from sandbox_actors.errors import SessionNotFound

from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sandbox_actors.session import Session
    from sandbox_actors.sessions import Sessions

__all__ = ["IDLE_LIMIT", "Connections", "new_id", "open_connections"]

IDLE_LIMIT = 600.0
"""Seconds without an open stream or a request, after which a connection ends: its client has gone without a word."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
ID_LENGTH = 20


def new_id(kind: str) -> str:
    """An id that nobody can guess: `acp_...`, `acpc_...`."""
    return f"{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


class Connections:
    """See the module. Made by `open_connections` only."""

    def __init__(self, sessions: Sessions, idle_limit: float, nursery: trio.Nursery) -> None:
        self._sessions = sessions
        self._idle_limit = idle_limit
        self._nursery = nursery
        self._connections: dict[str, Connection] = {}
        self._lull = trio.Event()

    def open(self, owner: str | None = None) -> Connection:
        """A new connection. It is known as soon as it has come to a session.

        Args:
          owner: the name of the token that it belongs to: one that replaces it has the same.
        """
        return Connection(new_id("acpc"), new_id("by"), owner, self._sessions, self._idle)

    def enter(self, connection: Connection, session: Session, *, made: bool) -> None:
        """Have a connection come to its first session.

        Args:
          made: whether the session was made for this connection alone.
        """
        connection.made = session.log.row.id if made else None
        connection.attach(session)
        self._connections[connection.id] = connection
        self._idle()

    def get(self, id: str) -> Connection | None:
        return self._connections.get(id)

    def end(self, connection: Connection) -> None:
        """End a connection. Its sessions stay, but for one that was made for it and was never used."""
        if connection.ended:
            return
        connection.end()
        self._connections.pop(connection.id, None)
        if connection.made is not None and self._is_unused(connection.made):
            self._nursery.start_soon(self._sessions.delete, connection.made)

    def _is_unused(self, server: str) -> bool:
        used = {attachment.server for other in self._connections.values() for attachment in other.attachments}
        try:
            return server not in used and not self._sessions.get(server).memory.sessions
        except SessionNotFound:
            return False

    def _idle(self) -> None:
        self._lull.set()

    async def expire(self) -> None:
        """End connections that nobody uses, for ever."""
        while True:
            self._lull = trio.Event()
            soonest = min((one.idle_since for one in self._connections.values()), default=math.inf)
            if soonest == math.inf:
                await self._lull.wait()
                continue
            await trio.sleep_until(soonest + self._idle_limit)
            for connection in list(self._connections.values()):
                if connection.idle_since + self._idle_limit <= trio.current_time():
                    self.end(connection)


@asynccontextmanager
async def open_connections(sessions: Sessions, *, idle_limit: float = IDLE_LIMIT) -> AsyncGenerator[Connections]:
    """All connections, for as long as the block runs."""
    async with trio.open_nursery() as nursery:
        connections = Connections(sessions, idle_limit, nursery)
        nursery.start_soon(connections.expire)
        yield connections
        nursery.cancel_scope.cancel()
