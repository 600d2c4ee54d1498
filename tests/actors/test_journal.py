from __future__ import annotations

import random
import sqlite3
import stat
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.reading import append, read, read_gap, read_until
from sandbox_actors.journal import Cursor, Gap, Page, open_journal
from sandbox_actors.journal.journal import PENDING_LIMIT, RECENT_LIMIT
from sandbox_actors.journal.log import PAGE_OVERHEAD, RecentPages, SessionLog

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sandbox_actors.journal import Event

open_quickly = partial(open_journal, synchronous="NORMAL")

# No wait in here is longer, even on a busy machine.
LIMIT = 20.0


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Somebody else writes to the file, so that nobody can."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("seed", range(6))
async def test_any_cursor_at_any_time_yields_exactly_the_suffix(path: Path, seed: int) -> None:
    randomly = random.Random(seed)
    sizes = [0, 0, 0, 100, 5_000, 150_000]
    events: list[Event] = []
    suffixes: list[tuple[int, list[Event]]] = []

    async def follow(cursor: Cursor, last: int) -> None:
        after = cursor.position
        suffixes.append((after, await read_until(cursor, last)))

    with trio.fail_after(LIMIT):
        async with open_quickly(path) as journal:
            log = await journal.create("s", "mock")
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    await journal.room()
                    batch = [randomly.choice(sizes) for _ in range(randomly.randint(1, 12))]
                    events += append(journal, log, batch, incarnation=len(events) // 50)
                    if randomly.random() < 0.5:
                        cursor = log.cursor(randomly.randrange(len(events) + 1))
                        nursery.start_soon(follow, cursor, randomly.randint(cursor.position, len(events)))
                    if randomly.random() < 0.3:
                        await journal.flush()
            for after in randomly.sample(range(len(events) + 1), 20):
                await follow(log.cursor(after), len(events))
        async with open_quickly(path) as journal:
            for after in randomly.sample(range(len(events) + 1), 20):
                await follow(journal.sessions["s"].cursor(after), len(events))
    for after, suffix in suffixes:
        assert suffix == events[after : after + len(suffix)]


async def test_an_event_is_durable_before_anybody_sees_it(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        cursor = log.cursor(0)
        told = trio.Event()
        with locked(path):
            journal.append(log, 1, b"a", [b"{}"], told.set)
            with trio.move_on_after(0.1) as waiting:
                await anext(cursor)
            assert waiting.cancelled_caught
            assert (log.head, log.next_seq, told.is_set()) == (0, 2, False)
        with trio.fail_after(LIMIT):
            await read_until(cursor, 1)
            await told.wait()
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT first, last, body FROM pages").fetchall() == [(1, 1, b"{}")]


async def test_who_waits_is_told_when_the_event_is_visible(path: Path) -> None:
    heads: list[int] = []
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        for _ in range(3):
            journal.append(log, 1, b"ac", [b"{}", b"{}"], lambda: heads.append(log.head))
        await journal.flush()
        # All of one commit are visible when the first of them is told.
        assert heads == [6, 6, 6]


async def test_room_waits_while_the_disk_is_behind(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        await journal.room()
        async with trio.open_nursery() as nursery:
            with locked(path):
                append(journal, log, [PENDING_LIMIT])
                assert journal.pending_bytes > PENDING_LIMIT
                nursery.start_soon(journal.room)
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 1
            with trio.fail_after(LIMIT):
                await journal.flush()
        assert journal.pending_bytes == 0


async def test_numbers_go_on_after_the_file_was_opened_again(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        events = append(journal, log, [0] * 3, incarnation=7)
        journal.remember(log, b"memory")
    async with open_quickly(path) as journal:
        log = journal.sessions["s"]
        assert (log.row.agent, log.row.incarnation, log.row.memory, log.head) == ("mock", 7, b"memory", 3)
        events += append(journal, log, [0] * 2)
        await journal.flush()
        assert [event.seq for event in await read(log)] == [1, 2, 3, 4, 5]
        assert await read(log) == events


async def test_an_id_that_was_deleted_starts_empty_and_its_numbers_go_on(path: Path) -> None:
    for round in range(3):
        async with open_quickly(path) as journal:
            if round == 0:
                append(journal, await journal.create("s", "old"), [0] * 5)
            await journal.delete(journal.sessions["s"])
            assert journal.sessions == {}
            log = await journal.create("s", "new")
            assert (log.row.agent, log.row.memory, log.head, log.floor) == ("new", b"", 5 + round, 6 + round)
            assert await read_gap(log.cursor(0)) == Gap(1, 5 + round, "retention", 6 + round)
            events = append(journal, log, [0])
            await journal.flush()
            assert await read(log, 5 + round) == events


async def test_a_deleted_session_stays_deleted_and_its_events_leave_the_file(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        for _ in range(600):
            append(journal, log, [0])
            await journal.room()
        await journal.delete(log)
    async with open_quickly(path) as journal:
        assert journal.sessions == {}
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT COUNT(*) FROM pages").fetchone() == (0,)


async def test_a_delete_ends_every_cursor_behind_the_last_event(path: Path) -> None:
    ended: list[list[Event]] = []

    async def follow(cursor: Cursor) -> None:
        events: list[Event] = []
        async for pages in cursor:
            assert not isinstance(pages, Gap)
            events += [event for page in pages for event in page.events()]
        ended.append(events)

    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(follow, log.cursor(0))
                append(journal, log, [0] * 3)
                await journal.flush()
                await wait_all_tasks_blocked()
                append(journal, log, [0] * 2)  # not on the disk yet when the session is deleted
                await journal.delete(log)
        assert [[event.seq for event in events] for events in ended] == [[1, 2, 3, 4, 5]] * 3


async def test_a_cursor_ahead_of_the_journal_is_told_and_gets_all_there_is(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        cursor = log.cursor(2)
        assert await read_gap(cursor) == Gap(1, 0, "ahead", 1)
        events = append(journal, log, [0] * 3)
        assert await read_until(cursor, 3) == events
        cursor = log.cursor(4)
        assert await read_gap(cursor) == Gap(4, 3, "ahead", 1)
        assert await read_until(cursor, 3) == events


async def test_a_cursor_may_be_ahead_of_the_disk_by_what_is_on_its_way(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        events = append(journal, log, [0] * 2)
        cursor = log.cursor(2)
        assert (log.head, cursor.behind) == (0, False)
        events += append(journal, log, [0])
        with trio.fail_after(LIMIT):
            assert await read_until(cursor, 3) == events[2:]


async def test_a_cursor_of_another_epoch_is_told_and_gets_all_there_is(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        events = append(journal, log, [0] * 3)
        await journal.flush()
        cursor = log.cursor(1, "another")
        assert await read_gap(cursor) == Gap(4, 3, "epoch", 1)
        assert await read_until(cursor, 3) == events
        assert await read_until(log.cursor(1, journal.epoch), 3) == events[1:]


async def test_closing_a_cursor_ends_an_iteration_that_waits_and_no_other(path: Path) -> None:
    ended: list[Cursor] = []

    async def follow(cursor: Cursor) -> None:
        async for _ in cursor:
            pass
        ended.append(cursor)

    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        cursors = [log.cursor(0) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for cursor in cursors:
                nursery.start_soon(follow, cursor)
            await wait_all_tasks_blocked()
            cursors[1].close()
            await wait_all_tasks_blocked()
            assert ended == [cursors[1]]
            nursery.cancel_scope.cancel()
        with pytest.raises(StopAsyncIteration):
            await anext(cursors[1])


async def test_pages_in_memory_are_bounded_over_all_sessions(path: Path) -> None:
    async with open_quickly(path) as journal:
        logs = [await journal.create(str(number), "mock") for number in range(12)]
        written: dict[SessionLog, list[Event]] = {log: [] for log in logs}
        for round in range(60):
            for log in logs:
                written[log] += append(journal, log, [round * 50] * 20)
            await journal.flush()
            kept = [page for log in logs for page in log.recent[log.recent_start :]]
            assert sum(len(page.body) + PAGE_OVERHEAD for page in kept) <= RECENT_LIMIT
        assert sum(len(log.recent) for log in logs) < 2 * len(kept) + len(logs)
        for log in logs:
            assert await read(log) == written[log]


@pytest.mark.parametrize("attempt", range(12))  # whichever task runs first: both orders come up
async def test_pages_that_are_dropped_while_a_reader_takes_some_do_not_confuse_it(path: Path, attempt: int) -> None:
    pages = [Page(number, number, 0, 1, b"a", b"x") for number in range(1, 22)]
    taken: list[Page] = []
    async with open_quickly(path) as journal:
        log, recent = await journal.create("s", "mock"), RecentPages(10 * (PAGE_OVERHEAD + 1))
        log.publish(pages[:19], recent)

        async def take() -> None:
            taken.extend(await log.read(17))

        async def drop() -> None:
            log.publish(pages[19:], recent)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(drop)
    assert taken[:2] == pages[17:19]


async def test_nobody_else_may_read_the_file(path: Path) -> None:
    async with open_quickly(path) as journal:
        await journal.create("s", "mock")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm"), 384)


async def test_the_end_waits_for_the_disk_but_not_for_ever(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack, trio.fail_after(10):
        async with open_quickly(path, flush_within=0.1) as journal:
            log = await journal.create("s", "mock")
            stack.enter_context(locked(path))
            append(journal, log, [0])
    assert "could not write its last events" in capsys.readouterr().out
