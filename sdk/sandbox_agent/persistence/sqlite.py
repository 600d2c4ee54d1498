"""A store in a file, by SQLite: for one machine, where it serves as many processes as open it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from ..backoff import Backoff
from ..errors import LeaseHeld, LeaseLost, PersistenceError, StoreUnavailable
from .ledger import check_owner, new_records
from .rows import PAGE_BYTES, entry_of, row_of, size_of
from .store import Lease, Position, SessionKey, StoredSession

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from .store import Entry, Record

__all__ = ["SqliteStore"]

T = TypeVar("T")

BUSY_WITHIN = 5.0
"""Seconds to wait for another process that writes. A thread that waits cannot be cancelled, so it is not long."""

OPEN_WITHIN = 30.0
"""Seconds to wait where several processes make the same file."""

VERSION = 1

SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    sandbox TEXT NOT NULL,
    session TEXT NOT NULL,
    entries INTEGER NOT NULL DEFAULT 0,
    epoch TEXT,
    generation INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    expires_at REAL,
    UNIQUE (sandbox, session)
);
CREATE TABLE epochs (session INTEGER, epoch TEXT, seq INTEGER NOT NULL, PRIMARY KEY (session, epoch)) WITHOUT ROWID;
CREATE TABLE entries (
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT,
    at_ms INTEGER,
    kind TEXT,
    direction TEXT,
    incarnation INTEGER,
    envelope BLOB,
    PRIMARY KEY (session, number)
);
"""


HELD = "sandbox=? AND session=? AND owner=? AND generation=?"


class SqliteStore:
    """See `Store`. Its clock is the machine's: where that is set forward, leases run out early.

    async with SqliteStore.open("sessions.db") as store: ...
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seat = anyio.CapacityLimiter(1)
        # Whoever waits for a thread may be cancelled, and the thread still be at work.
        self._in_use = threading.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str | os.PathLike[str]) -> AsyncGenerator[SqliteStore]:
        """The store in a file, which is made where it is not there; nobody else on the machine may read it.

        Raises:
          PersistenceError: the file is something else, or of another version.
          StoreUnavailable: it cannot be opened, or is locked.
        """
        store = cls(await anyio.to_thread.run_sync(_connect, os.fspath(path)))
        try:
            await store._prepare()
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await store._do(store._connection.close)

    async def _prepare(self) -> None:
        backoff, deadline = Backoff(limit=1.0), anyio.current_time() + OPEN_WITHIN
        while True:
            try:
                return await self._do(self._make)
            except StoreUnavailable:
                # The change to a write-ahead log waits for nobody: of several processes, one gets it done.
                if anyio.current_time() > deadline:
                    raise
            await anyio.sleep(backoff.next())

    def _make(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise PersistenceError(f"the store has version {version}, this program reads version {VERSION}")

    # -- events

    async def append(
        self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None
    ) -> int:
        def run() -> int:
            with self._transaction() as connection:
                id, entries, newest = self._session(key)
                check_owner(key, generation, newest)
                known = connection.execute("SELECT seq FROM epochs WHERE session=? AND epoch=?", (id, epoch)).fetchone()
                if not (new := new_records(key, epoch, records, known[0] if known else 0)):
                    return 0
                rows = [(id, number, epoch, *row_of(one)) for number, one in enumerate(new, entries + 1)]
                connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                connection.execute("REPLACE INTO epochs VALUES (?, ?, ?)", (id, epoch, new[-1].last))
                connection.execute("UPDATE sessions SET entries=?, epoch=? WHERE id=?", (entries + len(new), epoch, id))
                return len(new)

        return await self._do(run)

    async def position(self, key: SessionKey) -> Position | None:
        def run() -> Position | None:
            row = self._connection.execute(
                "SELECT sessions.epoch, seq FROM sessions"
                " JOIN epochs ON epochs.session=id AND epochs.epoch=sessions.epoch"
                " WHERE sandbox=? AND sessions.session=?",
                (key.sandbox, key.session),
            ).fetchone()
            return Position(*row) if row else None

        return await self._do(run)

    async def events(self, key: SessionKey, after: int = 0, limit: int = 500) -> list[Entry]:
        def run() -> list[Entry]:
            rows = self._connection.execute(
                "SELECT number, entries.epoch, first, last, reason, at_ms, kind, direction, incarnation, envelope"
                " FROM entries JOIN sessions ON entries.session=sessions.id"
                " WHERE sandbox=? AND sessions.session=? AND number>? ORDER BY number LIMIT ?",
                (key.sandbox, key.session, after, limit),
            )
            found: list[Entry] = []
            size = 0
            for row in rows:
                found.append(entry_of(row))
                if (size := size + size_of(found[-1])) >= PAGE_BYTES:
                    break
            rows.close()
            return found

        return await self._do(run)

    async def sessions(self, after: SessionKey | None = None, limit: int = 500) -> list[StoredSession]:
        def run() -> list[StoredSession]:
            rows = self._connection.execute(
                "SELECT sandbox, sessions.session, sessions.epoch, seq, entries, generation FROM sessions"
                " LEFT JOIN epochs ON epochs.session=id AND epochs.epoch=sessions.epoch"
                " WHERE (sandbox, sessions.session) > (?, ?) ORDER BY sandbox, sessions.session LIMIT ?",
                (*((after.sandbox, after.session) if after else ("", "")), limit),
            )
            return [
                StoredSession(SessionKey(sandbox, session), None if seq is None else Position(epoch, seq), *rest)
                for sandbox, session, epoch, seq, *rest in rows.fetchall()
            ]

        return await self._do(run)

    async def forget(self, key: SessionKey) -> None:
        def run() -> None:
            which = (key.sandbox, key.session)
            with self._transaction() as connection:
                for table in ("entries", "epochs"):
                    connection.execute(
                        f"DELETE FROM {table} WHERE session=(SELECT id FROM sessions WHERE sandbox=? AND session=?)",
                        which,
                    )
                connection.execute("UPDATE sessions SET entries=0, epoch=NULL WHERE sandbox=? AND session=?", which)

        await self._do(run)

    # -- leases

    async def acquire(self, key: SessionKey, owner: str, ttl: float, above: int = 0) -> Lease:
        def run() -> Lease:
            with self._transaction() as connection:
                id, _, newest = self._session(key)
                held, until = connection.execute("SELECT owner, expires_at FROM sessions WHERE id=?", (id,)).fetchone()
                now = time.time()
                if held not in (None, owner) and until > now:
                    raise LeaseHeld(f"{key}: {held} has the lease", held, until - now)
                generation = max(newest, above) + 1
                connection.execute(
                    "UPDATE sessions SET generation=?, owner=?, expires_at=? WHERE id=?",
                    (generation, owner, now + ttl, id),
                )
                return Lease(key, owner, generation)

        return await self._do(run)

    async def renew(self, lease: Lease, ttl: float) -> None:
        def run() -> None:
            with self._transaction() as connection:
                now = time.time()
                changed = connection.execute(
                    f"UPDATE sessions SET expires_at=? WHERE {HELD} AND expires_at>?", (now + ttl, *_held(lease), now)
                )
                if not changed.rowcount:
                    raise LeaseLost(f"{lease.key}: the lease of {lease.owner} has run out")

        await self._do(run)

    async def release(self, lease: Lease) -> None:
        def run() -> None:
            with self._transaction() as connection:
                connection.execute(f"UPDATE sessions SET owner=NULL, expires_at=NULL WHERE {HELD}", _held(lease))

        await self._do(run)

    # -- SQLite

    def _session(self, key: SessionKey) -> tuple[int, int, int]:
        """Its id, how many entries there are, and the newest generation; within a transaction."""
        query = "SELECT id, entries, generation FROM sessions WHERE sandbox=? AND session=?"
        found = self._connection.execute(query, (key.sandbox, key.session)).fetchone()
        if found is None:
            insert = "INSERT INTO sessions (sandbox, session) VALUES (?, ?)"
            return self._connection.execute(insert, (key.sandbox, key.session)).lastrowid or 0, 0, 0
        return int(found[0]), int(found[1]), int(found[2])

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise

    async def _do(self, run: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(self._run, run, limiter=self._seat)

    def _run(self, run: Callable[[], T]) -> T:
        with self._in_use:
            try:
                return run()
            except sqlite3.OperationalError as error:
                raise StoreUnavailable(f"the store cannot be used now: {error}") from error
            except sqlite3.Error as error:
                raise PersistenceError(f"the store refuses: {error}") from error


def _held(lease: Lease) -> tuple[str, str, str, int]:
    return lease.key.sandbox, lease.key.session, lease.owner, lease.generation


def _connect(path: str) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_WITHIN)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error}") from error
