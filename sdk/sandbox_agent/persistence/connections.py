"""A few connections to PostgreSQL, each used by one thread at a time, and made anew where they break.

Its driver blocks, so it is called in threads. A thread that waits for a server cannot be cancelled: every wait has an
end, by the server's own timeout, and where that one does not answer, by cutting the connection under the thread.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
import anyio.to_thread
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from ..errors import PersistenceError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["Connection", "Connections", "open_connections"]

T = TypeVar("T")

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

SEATS = 4
"""Connections at most: so that the renewal of a lease need not wait for a large append."""

CONNECT_WITHIN = 10
"""Seconds, unless the address has another `connect_timeout`."""

LIMITS = b"SET LOCAL statement_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '5s'"
"""How long the server may take for one statement, waiting for locks included, and how long it waits for us within a
transaction: a process that was stopped in one must not lock out the others."""

ANSWER_WITHIN = 25.0
"""Seconds for a whole transaction, after which the server is taken for dead."""

LOST = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
"""What passes: no connection, no room, a timeout, a server that shuts down or only reads."""


class Connections:
    """See the module. Made by `open_connections` only.

    The thread itself takes a connection and gives it back: whoever waits for the thread may be cancelled, and it may
    still be at work.
    """

    def __init__(self, address: str, answer_within: float = ANSWER_WITHIN) -> None:
        self._address = address
        self._answer_within = answer_within
        self._idle: list[Connection] = []
        self._closed = False
        self._lock = threading.Lock()
        self._seats = anyio.CapacityLimiter(SEATS)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do something in one transaction. It has to bear being done twice: a commit may go unacknowledged.

        Raises:
          StoreUnavailable, PersistenceError: as `Store` says.
        """
        return await anyio.to_thread.run_sync(_translated, lambda: self._run(work), limiter=self._seats)

    def _run(self, work: Callable[[Connection], T]) -> T:
        with self._lock:
            if self._closed:
                raise PersistenceError("the store is closed")
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._use(connection, work)
            except LOST:
                if not connection.closed:
                    raise  # the server says so; else it was lost, perhaps long ago, with a server that is back
        return self._use(_connect(self._address), work)

    def _use(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        watch = threading.Timer(self._answer_within, _cut, [connection])
        watch.daemon = True
        watch.start()
        try:
            with connection.transaction():
                connection.execute(LIMITS)
                return work(connection)
        finally:
            watch.cancel()
            watch.join()  # from here on it cuts nothing, whatever the file descriptor stands for next
            with self._lock:
                # One that broke in the middle may not know it yet, and would fail for ever.
                if self._closed or connection.info.transaction_status != TransactionStatus.IDLE:
                    connection.close()
                else:
                    self._idle.append(connection)

    def close(self) -> None:
        """Close them all; those that a thread has in hand, as soon as it is done."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()


@asynccontextmanager
async def open_connections(dsn: str) -> AsyncGenerator[Connections]:
    """Connections to a server, which are closed at the end of the block; none is made yet.

    Raises:
      PersistenceError: this is no address.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:  # whose message may have the password
        raise PersistenceError("this is no address of a PostgreSQL server") from None
    connections = Connections(make_conninfo("", **{"connect_timeout": CONNECT_WITHIN, **given}))
    try:
        yield connections
    finally:
        connections.close()


def _translated(run: Callable[[], T]) -> T:
    try:
        return run()
    except LOST as error:
        raise StoreUnavailable(f"the store cannot be used now: {_said(error)}") from error
    except psycopg.Error as error:
        raise PersistenceError(f"the store refuses: {_said(error)}") from error


def _said(error: psycopg.Error) -> str:
    return str(error).strip() or type(error).__name__


def _connect(address: str) -> Connection:
    # Nothing is prepared, and nothing set but within a transaction: so a pooler may stand in between.
    connection = psycopg.connect(address, autocommit=True, prepare_threshold=None)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


def _cut(connection: Connection) -> None:
    """Have whoever waits on it fail at once."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)
