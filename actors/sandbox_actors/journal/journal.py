"""The journal: the durable log of every session's events, and the only way to a subscriber.

Durable before visible: one task takes everything that has been appended, writes it in one transaction (group commit),
and only then lets readers see it and answers those who wait for it. So what anybody has seen, no crash can take back.
While the disk is behind by more than `PENDING_LIMIT` bytes, `room` waits: that is the backpressure which reaches an
agent through its pipe. A disk that refuses to write loses nothing: the batch is kept and tried again, and `trouble`
says why.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import structlog
import trio

from ..errors import JournalUnavailable
from .housekeeping import Housekeeper
from .log import RecentPages, SessionLog
from .page import Page
from .store import Retention, Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

__all__ = ["Journal", "open_journal"]

log = structlog.get_logger()

T = TypeVar("T")

PENDING_LIMIT = 512 << 10
"""Bytes that may wait for the disk before appends wait, too. A commit of this size takes a few milliseconds."""

RECENT_LIMIT = 2 << 20
"""Bytes of the newest pages kept in memory, over all sessions."""

PAGE_LIMIT = 64 << 10
"""Bytes up to which the batches of one commit are joined to one page."""

RETRY_AFTER = 1.0
"""Seconds between two tries to write to a disk that refused."""

READERS = 4
"""Threads that read pages from the disk at once, so that one slow disk cannot take all of Trio's threads."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events of one session on their way to the disk."""

    log: SessionLog
    page: Page
    committed: Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class _Job:
    """Anything else that the writer does within a transaction, in order with the batches."""

    run: Callable[[Store], object]
    done: Callable[[object], None]
    failed: Callable[[str], bool] | None = None
    """Called with the trouble whenever the disk refuses; whether the job is given up, and not tried again."""

    def gives_up(self, trouble: str) -> bool:
        return self.failed is not None and self.failed(trouble)


class Journal:
    """See the module. Made by `open_journal` only.

    Attributes:
      epoch: changes when the journal was lost or replaced: a cursor of another epoch means nothing here.
      sessions: the log of every session that has not been deleted, by its id.
      trouble: why the disk takes no writes at present, None while all is well.
    """

    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = store
        self._housekeeper = Housekeeper(
            retention, lambda run, done: self._submit(_Job(run, done)), lambda: self.trouble is not None
        )
        self.epoch = store.epoch
        self.sessions = {row.id: SessionLog(self, row) for row in store.found}
        self.trouble: str | None = None
        self._pending: list[_Batch | _Job] = []
        self._pending_bytes = 0
        self._work = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._recent = RecentPages(RECENT_LIMIT)
        self._writer_seat = trio.CapacityLimiter(1)
        self._reader_seats = trio.CapacityLimiter(READERS)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for the disk."""
        return self._pending_bytes

    async def room(self) -> None:
        """Wait while the disk is too far behind. For those who append as much as somebody else makes them."""
        while self._pending_bytes >= PENDING_LIMIT:
            await self._room.park()

    def append(
        self,
        session: SessionLog,
        incarnation: int,
        origins: bytes,
        envelopes: Sequence[bytes],
        committed: Callable[[], None] | None = None,
    ) -> int:
        """Number the envelopes and hand them to the writer, which makes them durable and then visible, together.

        Args:
          origins: the letter of an `Origin` for each envelope.
          envelopes: at least one, none with a line feed in it.
          committed: called once all of them are visible; it must neither wait nor raise.

        Returns:
          The number of the last one.
        """
        body = envelopes[0] if len(envelopes) == 1 else b"\n".join(envelopes)
        if body.count(b"\n") >= max(1, len(envelopes)):
            raise ValueError("an envelope has a line feed in it")  # a page could never be taken apart again
        first = session.next_seq
        session.next_seq = first + len(envelopes)
        session.row.incarnation = incarnation
        page = Page(first, session.next_seq - 1, time.time_ns() // 1_000_000, incarnation, origins, body)
        self._pending_bytes += len(body)
        self._submit(_Batch(session, page, committed))
        return page.last

    async def create(self, id: str, agent: str, memory: bytes = b"") -> SessionLog:
        """Make a session. Under an id that was deleted the numbers go on.

        Args:
          id: not the id of a session that is there.
          memory: kept with it from the beginning, see `remember`.

        Raises:
          JournalUnavailable: the disk takes no writes; there is no session.
        """
        created_ms = time.time_ns() // 1_000_000
        row = await self._run(lambda store: store.create(id, agent, created_ms, memory), give_up=True)
        if row is None:
            raise JournalUnavailable(self.trouble or "the disk refused")
        session = self.sessions[id] = SessionLog(self, row)
        self._housekeeper.look(session)
        return session

    async def delete(self, session: SessionLog) -> None:
        """Forget a session's events. Its cursors end, its number is kept for a session of the same id.

        While the disk takes no writes this does not wait for it; the events go when it does.
        """
        del self.sessions[session.row.id]
        session.close()
        # The job runs behind the batches before it, so that the head it keeps is the last number ever given.
        last = replace(session.row, head=session.next_seq - 1)
        await self._run(lambda store: store.delete(last), give_up=False)
        self._housekeeper.collect(last.key, last.head + 1)

    def remember(self, session: SessionLog, memory: bytes, committed: Callable[[], None] | None = None) -> None:
        """Keep some bytes with the session: what a later incarnation must know. Written in order with its events.

        Args:
          committed: called once they are kept; it must neither wait nor raise.
        """
        session.row.memory = memory
        row = replace(session.row)

        def done(_: object) -> None:
            if committed is not None:
                committed()

        # The head in the row is only a hint for sessions without pages; the pages know better.
        self._submit(_Job(lambda store: store.update(row), done))

    async def read(self, session: int, after: int, limit: int) -> list[Page]:
        return await trio.to_thread.run_sync(self._store.read, session, after, limit, limiter=self._reader_seats)

    # -- the writer

    def _submit(self, item: _Batch | _Job) -> None:
        self._pending.append(item)
        self._work.set()

    async def _run(self, run: Callable[[Store], T], *, give_up: bool | None = None) -> T | None:
        """Have the writer do something, and wait for it.

        Args:
          give_up: what happens when the disk refuses. None: wait on. True, False: return None, and the job is
            dropped, or stays and will be done.
        """
        finished = trio.Event()
        result: T | None = None

        def done(value: object) -> None:
            nonlocal result
            result = cast("T", value)
            finished.set()

        def failed(_trouble: str) -> bool:
            finished.set()
            return give_up is True

        self._submit(_Job(run, done, None if give_up is None else failed))
        await finished.wait()
        return result

    async def write(self) -> None:
        """The writer: commit whatever has been appended, for ever."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            taken, self._pending = self._pending, []
            pages = _join([item for item in taken if isinstance(item, _Batch)])
            jobs = [item for item in taken if isinstance(item, _Job)]
            jobs, results = await self._commit(pages, jobs)
            self._pending_bytes -= sum(len(item.page.body) for item in taken if isinstance(item, _Batch))
            self._room.unpark_all()
            for session, written in pages.items():
                session.publish(written, self._recent)
                self._housekeeper.added(session, written)
            for job, result in zip(jobs, results, strict=True):
                job.done(result)
            for item in taken:
                if isinstance(item, _Batch) and item.committed is not None:
                    item.committed()

    async def _commit(self, pages: dict[SessionLog, list[Page]], jobs: list[_Job]) -> tuple[list[_Job], list[object]]:
        """Write until the disk takes it; gives the jobs that were done, and their results."""
        while True:
            try:
                results = await trio.to_thread.run_sync(_transact, self._store, pages, jobs, limiter=self._writer_seat)
            except sqlite3.DatabaseError as error:
                # A full disk, an I/O error, a lock, a damaged page: nothing was written, so nothing is lost by trying
                # again. SQLite's other errors are bugs of ours.
                if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                    raise
                if type(error) is sqlite3.DatabaseError:
                    self._store.distrust()
                if self.trouble is None:
                    log.error("journal cannot write, sessions take no prompts", error=str(error))
                self.trouble = trouble = str(error)
                jobs = [job for job in jobs if not job.gives_up(trouble)]
                # Those that came meanwhile are told as well, not only when it is their turn.
                self._pending = [
                    item for item in self._pending if isinstance(item, _Batch) or not item.gives_up(trouble)
                ]
                await trio.sleep(RETRY_AFTER)
            else:
                if self.trouble is not None:
                    log.warning("journal writes again")
                self.trouble = None
                return jobs, results

    async def keep_house(self) -> None:
        """Apply the retention to logs that say nothing, too."""
        await self._housekeeper.run(lambda: list(self.sessions.values()))

    async def flush(self) -> None:
        """Wait until everything appended so far is on the disk."""
        await self._run(lambda store: None)


def _join(batches: list[_Batch]) -> dict[SessionLog, list[Page]]:
    """The pages to write, batches of one session and incarnation joined while the page stays small."""
    pages: dict[SessionLog, list[Page]] = {}
    runs: dict[SessionLog, list[list[Page]]] = {}
    for batch in batches:
        mine = runs.setdefault(batch.log, [])
        page = batch.page
        if mine and mine[-1][0].incarnation == page.incarnation and _size(mine[-1]) + len(page.body) <= PAGE_LIMIT:
            mine[-1].append(page)
        else:
            mine.append([page])
    for session, groups in runs.items():
        pages[session] = [
            group[0]
            if len(group) == 1
            else replace(
                group[0],
                last=group[-1].last,
                origins=b"".join([page.origins for page in group]),
                body=b"\n".join([page.body for page in group]),
            )
            for group in groups
        ]
    return pages


def _size(pages: list[Page]) -> int:
    return sum(len(page.body) for page in pages)


def _transact(store: Store, pages: dict[SessionLog, list[Page]], jobs: list[_Job]) -> list[object]:
    store.begin()
    try:
        for session, written in pages.items():
            for page in written:
                store.insert(session.row.key, page)
        results = [job.run(store) for job in jobs]
        store.commit()
    except BaseException:
        store.rollback()
        raise
    return results


@asynccontextmanager
async def open_journal(
    path: Path,
    *,
    retention: Retention | None = None,
    synchronous: Literal["FULL", "NORMAL"] = "FULL",
    flush_within: float = 3.0,
) -> AsyncGenerator[Journal]:
    """The journal in the file `path`, for as long as the block runs; what was appended is written before it ends.

    A file that is damaged or no journal is put aside, not overwritten: the new one has another epoch.

    Args:
      retention: how much of the past is kept; by default 1 GiB a session.
      synchronous: `FULL`: an event that anybody has seen survives a power cut; `NORMAL`: only any crash of a process.
      flush_within: seconds for the last writes when the block ends; a disk that is full must not hold the end up.

    Raises:
      UnknownVersion: the file was written by another version of this program.
      OSError, sqlite3.OperationalError: it cannot be opened.
    """
    open_store = partial(Store, path, synchronous=synchronous)
    try:
        store = await trio.to_thread.run_sync(open_store)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
        log.error("journal is damaged: starting a new one", error=str(error), kept_as=aside.name)
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        store = await trio.to_thread.run_sync(open_store)
    journal = Journal(store, retention or Retention())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.write)
            nursery.start_soon(journal.keep_house)
            try:
                yield journal
            finally:
                with trio.move_on_after(flush_within, shield=True) as flushing:
                    await journal.flush()
                if flushing.cancelled_caught:
                    log.error("journal could not write its last events", bytes=journal.pending_bytes)
                nursery.cancel_scope.cancel()
    finally:
        store.close()
