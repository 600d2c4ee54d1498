"""The journal's file: SQLite in WAL mode. Everything here blocks and runs in a worker thread.

A session's numbers are never used twice: its row stays when the session is deleted, with the number to go on from.
Deleting and retention only raise the `floor`; the pages below it are garbage and collected a slice at a time, so that
no transaction is long.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .page import Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DamagedPage", "Retention", "SessionRow", "Store", "Trimmed", "UnknownVersion"]

SCHEMA_VERSION = 1

OPEN_WITHIN = 30.0
"""Seconds to wait for another process that has the file locked when it is opened."""

WRITE_WITHIN = 1.0
"""Seconds to wait for such a lock later. A thread that waits cannot be cancelled, so it is short; the journal tries
again."""

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    floor INTEGER NOT NULL DEFAULT 1,
    head INTEGER NOT NULL DEFAULT 0,
    incarnation INTEGER NOT NULL DEFAULT 0,
    memory BLOB NOT NULL DEFAULT X''
);
CREATE TABLE pages (
    session INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    origins BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX pages_by_number ON pages (session, last);
"""

GARBAGE_SLICE = 256
"""Pages deleted in one transaction: some milliseconds of work."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a session's past is kept. None is no limit; the newest page is always kept.

    Attributes:
      max_age: seconds.
      max_events: how many events, rounded up to whole pages.
      max_bytes: bytes of envelopes, rounded up to whole pages.
    """

    max_age: float | None = None
    max_events: int | None = None
    max_bytes: int | None = 1 << 30


@dataclass(slots=True)
class SessionRow:
    """A session as the file has it: see `SessionLog` for what the members mean."""

    key: int
    id: str
    agent: str
    created_ms: int
    floor: int
    head: int
    incarnation: int
    memory: bytes


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A session after its floor was raised: the floor, and what is kept from there."""

    floor: int
    events: int
    bytes: int


class DamagedPage(Exception):
    """A page cannot be read. `last` is the number of its last event."""

    def __init__(self, last: int) -> None:
        super().__init__(f"the page that ends with event {last} is damaged")
        self.last = last


class UnknownVersion(Exception):
    """The file was written by another version of this program. It is not touched."""


class Store:
    """The file, with one connection that writes and as many as needed that read.

    Attributes:
      found: the sessions that were there when it was opened, without those that have been deleted.
    """

    def __init__(self, path: Path, *, synchronous: str) -> None:
        """Open or make the file.

        Args:
          synchronous: SQLite's word: `FULL` survives a power cut, `NORMAL` only the death of the process.

        Raises:
          UnknownVersion: see there.
          sqlite3.Error, OSError: the file is no journal or damaged, or cannot be opened.
        """
        self._path = path
        self._suspect = path.with_name(path.name + ".suspect")
        # Prompts and answers are private: nobody else on the machine may read them.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._writer = self._connect()
        self._idle_readers: list[sqlite3.Connection] = []
        try:
            self._writer.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute(f"PRAGMA synchronous={synchronous}")
            self._writer.execute(f"PRAGMA journal_size_limit={64 << 20}")
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                epoch = f"INSERT INTO meta VALUES ('epoch', '{secrets.token_hex(8)}');"
                self._writer.executescript(f"BEGIN; {SCHEMA} {epoch} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise UnknownVersion(f"{path} has version {version}, this program reads version {SCHEMA_VERSION}")
            if self._suspect.exists():
                (sound,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
                self._suspect.unlink()
                if sound != "ok":
                    raise sqlite3.DatabaseError(sound)
            self.epoch: str = self._writer.execute("SELECT value FROM meta WHERE name='epoch'").fetchone()[0]
            self.found = list(self._rows("deleted=0"))
            self._writer.execute(f"PRAGMA busy_timeout={round(WRITE_WITHIN * 1000)}")
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=OPEN_WITHIN)
        # Pages are read once and sent: a big page cache would only be memory that grows with every reader.
        connection.execute("PRAGMA cache_size=-512")
        return connection

    def close(self) -> None:
        for connection in (*self._idle_readers, self._writer):
            connection.close()
        self._idle_readers.clear()

    def distrust(self) -> None:
        """Have the file checked when it is opened next: it is damaged at a place that opening does not see."""
        self._suspect.touch()

    # -- transactions of the writer

    def begin(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._writer.execute("COMMIT")

    def rollback(self) -> None:
        """End a transaction that failed; harmless where SQLite has ended it itself (as on a full disk)."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def insert(self, session: int, page: Page) -> None:
        self._writer.execute(
            "INSERT INTO pages (session, last, first, at_ms, incarnation, origins, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (session, page.last, page.first, page.at_ms, page.incarnation, page.origins, page.body),
        )

    def update(self, row: SessionRow) -> None:
        """Keep a session's row as it was; numbers never go back, whatever came in between."""
        self._writer.execute(
            "UPDATE sessions SET floor=MAX(floor, ?), head=MAX(head, ?), incarnation=?, memory=? WHERE key=?",
            (row.floor, row.head, row.incarnation, row.memory, row.key),
        )

    def create(self, id: str, agent: str, created_ms: int, memory: bytes) -> SessionRow:
        """Make a session, or make one again under an id that was deleted: its numbers go on."""
        self._writer.execute(
            "INSERT INTO sessions (id, agent, created_ms, memory) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET agent=excluded.agent, created_ms=excluded.created_ms, deleted=0, memory=excluded.memory",
            (id, agent, created_ms, memory),
        )
        return next(self._rows("id=?", id))

    def delete(self, row: SessionRow) -> None:
        """Forget a session's events, not its number."""
        self._writer.execute(
            "UPDATE sessions SET deleted=1, memory=X'', floor=?, head=?, incarnation=? WHERE key=?",
            (row.head + 1, row.head, row.incarnation, row.key),
        )

    def _rows(self, where: str, *values: object) -> Iterator[SessionRow]:
        # The head is in the row only since the last update of the row: a crash may have come between.
        query = (
            "SELECT key, id, agent, created_ms, floor,"
            " MAX(head, COALESCE((SELECT MAX(last) FROM pages WHERE session=key), 0)), incarnation, memory"
            f" FROM sessions WHERE {where} ORDER BY key"
        )
        for values_ in self._writer.execute(query, values):
            yield SessionRow(*values_)

    # -- retention

    def trim(self, row: SessionRow, retention: Retention, known: tuple[int, int] | None) -> Trimmed:
        """Raise a session's floor as far as the retention says.

        Args:
          row: the session; its newest page is kept.
          known: how many events and bytes there are from its floor to its head; counted where that is None.
        """
        events, size = known or self._count(row)
        oldest = 0 if retention.max_age is None else int((time.time() - retention.max_age) * 1000)
        floor = row.floor
        pages = self._writer.execute(
            "SELECT first, last, at_ms, LENGTH(body) FROM pages WHERE session=? AND last>=? AND last<? ORDER BY last",
            (row.key, row.floor, row.head),
        )
        with closing(pages):
            for first, last, at_ms, length in pages:
                # Rounded up: a page goes only where the limit is still reached without it.
                too_many = retention.max_events is not None and events - (last - first + 1) >= retention.max_events
                too_big = retention.max_bytes is not None and size - length >= retention.max_bytes
                if not (too_many or too_big or at_ms < oldest):
                    break
                floor = last + 1
                events -= last - first + 1
                size -= length
        if floor > row.floor:
            self._writer.execute("UPDATE sessions SET floor=MAX(floor, ?) WHERE key=?", (floor, row.key))
        return Trimmed(floor, events, size)

    def _count(self, row: SessionRow) -> tuple[int, int]:
        events, size = self._writer.execute(
            "SELECT COALESCE(SUM(last - first + 1), 0), COALESCE(SUM(LENGTH(body)), 0)"
            " FROM pages WHERE session=? AND last>=? AND last<=?",
            (row.key, row.floor, row.head),
        ).fetchone()
        return events, size

    def garbage(self) -> list[tuple[int, int]]:
        """The sessions with pages below their floor, with the floor."""
        return self._writer.execute(
            "SELECT key, floor FROM sessions WHERE EXISTS (SELECT 1 FROM pages WHERE session=key AND last<floor)"
        ).fetchall()

    def collect(self, session: int, floor: int) -> bool:
        """Delete a slice of a session's pages below its floor; tell whether there may be more."""
        gone = self._writer.execute(
            "DELETE FROM pages WHERE rowid IN (SELECT rowid FROM pages WHERE session=? AND last<? LIMIT ?)",
            (session, floor, GARBAGE_SLICE),
        ).rowcount
        if gone:
            self._writer.execute("PRAGMA incremental_vacuum(1024)").fetchall()
        return gone == GARBAGE_SLICE

    # -- reading, beside the writer

    def read(self, session: int, after: int, limit: int) -> list[Page]:
        """The pages behind an event, oldest first, at least one where there is one, then up to `limit` bytes.

        Raises:
          DamagedPage: the next page cannot be read.
          sqlite3.Error: nothing can.
        """
        connection = self._idle_readers.pop() if self._idle_readers else self._connect()
        pages: list[Page] = []
        size = 0
        try:
            rows = connection.execute(
                "SELECT first, last, at_ms, incarnation, origins, body FROM pages"
                " WHERE session=? AND last>? ORDER BY last",
                (session, after),
            )
            with closing(rows):
                for row in rows:
                    page = Page(*row)
                    pages.append(page)
                    size += len(page.body)
                    if size >= limit:
                        break
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise
            if not pages:
                # The index alone tells where the page ends.
                query = "SELECT last FROM pages WHERE session=? AND last>? ORDER BY last LIMIT 1"
                raise DamagedPage(connection.execute(query, (session, after)).fetchone()[0]) from error
        finally:
            self._idle_readers.append(connection)
        return pages
