"""A store in a PostgreSQL database: for backends on several machines."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import LeaseHeld, LeaseLost, MissingExtra, PersistenceError
from .ledger import check_owner, new_records
from .rows import PAGE_BYTES, entry_of, row_of
from .store import Lease, Position, SessionKey, StoredSession

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from .connections import Connection, Connections
    from .store import Entry, Record

__all__ = ["PostgresStore"]

VERSION = 1

MAKING = 0x53_61_6E_64_41_67_6E_74
"""The advisory lock of who makes the tables: any number that nobody else uses."""

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sandbox_agent_sessions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sandbox TEXT COLLATE "C" NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    entries BIGINT NOT NULL DEFAULT 0,
    epoch TEXT,
    generation BIGINT NOT NULL DEFAULT 0,
    owner TEXT,
    expires_at TIMESTAMPTZ,
    UNIQUE (sandbox, session)
);
CREATE TABLE IF NOT EXISTS sandbox_agent_epochs (
    session BIGINT NOT NULL,
    epoch TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (session, epoch)
);
CREATE TABLE IF NOT EXISTS sandbox_agent_entries (
    session BIGINT NOT NULL,
    number BIGINT NOT NULL,
    epoch TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    reason TEXT,
    at_ms BIGINT,
    kind TEXT,
    direction TEXT,
    incarnation BIGINT,
    envelope BYTEA,
    PRIMARY KEY (session, number)
);
CREATE TABLE IF NOT EXISTS sandbox_agent_version AS SELECT {VERSION} AS version;
"""

COLUMNS = "number, e.epoch, first, last, reason, at_ms, kind, direction, incarnation, envelope"

HELD = "sandbox=%s AND session=%s AND owner=%s AND generation=%s"

NEW_ENTRIES = "INSERT INTO sandbox_agent_entries VALUES "
ENTRY = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"

STATEMENT_ROWS, STATEMENT_BYTES = 512, 4 << 20
"""Of one statement, but for one row that is larger. Not as a pipeline: a process that is stopped in the middle is
not idle for the server, which would wait for it, and hold the lock, for ever."""

NEW_POSITION = """
INSERT INTO sandbox_agent_epochs VALUES (%s, %s, %s)
ON CONFLICT (session, epoch) DO UPDATE SET seq=excluded.seq
"""


class PostgresStore:
    """See `Store`. Its clock is the server's. What breaks off is tried again once, on a new connection.

    async with PostgresStore.open("postgresql://me@db/sandboxes") as store: ...
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncGenerator[PostgresStore]:
        """The store in a database, whose tables `sandbox_agent_…` are made where they are not there.

        Args:
          dsn: as libpq takes it: a URL, or `host=… dbname=…`; variables as PGPASSWORD hold, too.

        Raises:
          MissingExtra: the package for it is not installed.
          StoreUnavailable: the server cannot be reached, or lets us not in.
          PersistenceError: the tables are of another version, or may not be made.
        """
        try:
            from .connections import open_connections
        except ModuleNotFoundError:
            raise MissingExtra('for PostgreSQL: pip install "trio-sandbox-agent[postgres]"') from None
        async with open_connections(dsn) as connections:
            await connections.run(_make)
            yield cls(connections)

    # -- events

    async def append(
        self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None
    ) -> int:
        def run(connection: Connection) -> int:
            id, entries, newest = _session(connection, key)
            check_owner(key, generation, newest)
            query = "SELECT seq FROM sandbox_agent_epochs WHERE session=%s AND epoch=%s"
            known = connection.execute(query, (id, epoch)).fetchone()
            if not (new := new_records(key, epoch, records, known[0] if known else 0)):
                return 0
            rows = [(id, number, epoch, *row_of(one)) for number, one in enumerate(new, entries + 1)]
            for some in _statements(rows):
                values = [value for row in some for value in row]
                connection.execute((NEW_ENTRIES + ", ".join([ENTRY] * len(some))).encode(), values)
            connection.execute(NEW_POSITION, (id, epoch, new[-1].last))
            update = "UPDATE sandbox_agent_sessions SET entries=%s, epoch=%s WHERE id=%s"
            connection.execute(update, (entries + len(new), epoch, id))
            return len(new)

        return await self._connections.run(run)

    async def position(self, key: SessionKey) -> Position | None:
        query = (
            "SELECT s.epoch, seq FROM sandbox_agent_sessions s"
            " JOIN sandbox_agent_epochs p ON p.session=s.id AND p.epoch=s.epoch WHERE sandbox=%s AND s.session=%s"
        )

        def run(connection: Connection) -> Position | None:
            row = connection.execute(query, (key.sandbox, key.session)).fetchone()
            return Position(*row) if row else None

        return await self._connections.run(run)

    async def events(self, key: SessionKey, after: int = 0, limit: int = 500) -> list[Entry]:
        # The lengths are known without reading the envelopes; the page ends behind the one that is too much.
        query = f"""
            WITH page AS (
                SELECT e.session, number, COALESCE(octet_length(envelope), 0) AS size
                FROM sandbox_agent_entries e JOIN sandbox_agent_sessions s ON e.session=s.id
                WHERE sandbox=%s AND s.session=%s AND number>%s ORDER BY number LIMIT %s
            ), summed AS (
                SELECT session, number, SUM(size) OVER (ORDER BY number) - size AS before FROM page
            )
            SELECT {COLUMNS} FROM summed JOIN sandbox_agent_entries e USING (session, number)
            WHERE before < %s ORDER BY number
        """

        def run(connection: Connection) -> list[Entry]:
            rows = connection.execute(query, (key.sandbox, key.session, after, limit, PAGE_BYTES), binary=True)
            return [entry_of(row) for row in rows]

        return await self._connections.run(run)

    async def sessions(self, after: SessionKey | None = None, limit: int = 500) -> list[StoredSession]:
        query = (
            "SELECT sandbox, s.session, s.epoch, seq, entries, generation FROM sandbox_agent_sessions s"
            " LEFT JOIN sandbox_agent_epochs p ON p.session=s.id AND p.epoch=s.epoch"
            " WHERE (sandbox, s.session) > (%s, %s) ORDER BY sandbox, s.session LIMIT %s"
        )

        def run(connection: Connection) -> list[StoredSession]:
            behind = (after.sandbox, after.session) if after else ("", "")
            return [
                StoredSession(SessionKey(sandbox, session), None if seq is None else Position(epoch, seq), *rest)
                for sandbox, session, epoch, seq, *rest in connection.execute(query, (*behind, limit))
            ]

        return await self._connections.run(run)

    async def forget(self, key: SessionKey) -> None:
        def run(connection: Connection) -> None:
            update = "UPDATE sandbox_agent_sessions SET entries=0, epoch=NULL"
            query = f"{update} WHERE sandbox=%s AND session=%s RETURNING id"
            if (row := connection.execute(query, (key.sandbox, key.session)).fetchone()) is not None:
                connection.execute("DELETE FROM sandbox_agent_entries WHERE session=%s", row)
                connection.execute("DELETE FROM sandbox_agent_epochs WHERE session=%s", row)

        await self._connections.run(run)

    # -- leases

    async def acquire(self, key: SessionKey, owner: str, ttl: float, above: int = 0) -> Lease:
        def run(connection: Connection) -> Lease:
            id, _, newest = _session(connection, key)
            # Only now, behind the lock: `now()` would be when the transaction began.
            query = (
                "SELECT owner, EXTRACT(EPOCH FROM expires_at - clock_timestamp())::float8"
                " FROM sandbox_agent_sessions WHERE id=%s"
            )
            held, left = connection.execute(query, (id,)).fetchone() or (None, 0.0)
            if held not in (None, owner) and left > 0:
                raise LeaseHeld(f"{key}: {held} has the lease", held, left)
            generation = max(newest, above) + 1
            connection.execute(
                "UPDATE sandbox_agent_sessions SET generation=%s, owner=%s,"
                " expires_at=clock_timestamp() + make_interval(secs => %s) WHERE id=%s",
                (generation, owner, ttl, id),
            )
            return Lease(key, owner, generation)

        return await self._connections.run(run)

    async def renew(self, lease: Lease, ttl: float) -> None:
        query = (
            "UPDATE sandbox_agent_sessions SET expires_at=clock_timestamp() + make_interval(secs => %s)"
            f" WHERE {HELD} AND expires_at>clock_timestamp()"
        )

        def run(connection: Connection) -> None:
            if not connection.execute(query, (ttl, *_held(lease))).rowcount:
                raise LeaseLost(f"{lease.key}: the lease of {lease.owner} has run out")

        await self._connections.run(run)

    async def release(self, lease: Lease) -> None:
        query = f"UPDATE sandbox_agent_sessions SET owner=NULL, expires_at=NULL WHERE {HELD}"

        def run(connection: Connection) -> None:
            connection.execute(query, _held(lease))

        await self._connections.run(run)


def _make(connection: Connection) -> None:
    """Make the tables, if they are not there. Several who come at once do it one after the other."""
    if connection.execute("SELECT to_regclass('sandbox_agent_version')").fetchone() == (None,):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
        for statement in SCHEMA.split(";")[:-1]:
            connection.execute(statement.encode())
    row = connection.execute("SELECT version FROM sandbox_agent_version").fetchone()
    if row is None or row[0] != VERSION:
        raise PersistenceError(f"the store has version {row and row[0]}, this program reads version {VERSION}")


def _session(connection: Connection, key: SessionKey) -> tuple[int, int, int]:
    """Its id, how many entries there are, and the newest generation; locked until the end of the transaction."""
    query = "SELECT id, entries, generation FROM sandbox_agent_sessions WHERE sandbox=%s AND session=%s FOR UPDATE"
    if (row := connection.execute(query, (key.sandbox, key.session)).fetchone()) is None:
        insert = "INSERT INTO sandbox_agent_sessions (sandbox, session) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        connection.execute(insert, (key.sandbox, key.session))
        row = connection.execute(query, (key.sandbox, key.session)).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])


def _statements(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The rows in portions, each for one statement."""
    start = size = 0
    for at, row in enumerate(rows):
        if at > start and (at - start == STATEMENT_ROWS or size + len(row[-1] or b"") > STATEMENT_BYTES):
            yield rows[start:at]
            start, size = at, 0
        size += len(row[-1] or b"")
    yield rows[start:]


def _held(lease: Lease) -> tuple[str, str, str, int]:
    return lease.key.sandbox, lease.key.session, lease.owner, lease.generation
