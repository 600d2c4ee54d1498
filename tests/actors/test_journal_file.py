"""The journal's file: damage, epochs, retention."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from actors.reading import append, read, read_gap
from sandbox_actors.journal import Gap, Retention, UnknownVersion, open_journal

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.journal import Event, Journal, SessionLog

open_quickly = partial(open_journal, synchronous="NORMAL")

PAGE_SIZE = 4096


async def filled(path: Path, events: int = 3) -> str:
    """Make a journal with a session in it; gives its epoch."""
    async with open_quickly(path) as journal:
        append(journal, await journal.create("s", "mock"), [0] * events)
        return journal.epoch


def damage(path: Path, at: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * size)


def aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


async def append_pages(journal: Journal, log: SessionLog, pages: int, size: int = 0) -> list[Event]:
    """So many pages of one event each: a commit apiece."""
    events: list[Event] = []
    for _ in range(pages):
        events += append(journal, log, [size])
        await journal.flush()
    return events


async def test_the_epoch_stays_while_the_file_does(path: Path) -> None:
    epoch = await filled(path)
    async with open_quickly(path) as journal:
        assert journal.epoch == epoch
    await trio.Path(path).unlink()
    assert await filled(path) != epoch


@pytest.mark.parametrize("text", [b"no journal at all " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_what_is_no_journal_is_put_aside_and_a_new_one_started(path: Path, text: bytes) -> None:
    await trio.Path(path).write_bytes(text)
    await filled(path)
    (kept,) = aside(path)
    assert kept.read_bytes() == text


async def test_a_journal_that_is_put_aside_takes_its_sessions_along_and_changes_the_epoch(path: Path) -> None:
    epoch = await filled(path)
    damage(path, 0, 100)
    async with open_quickly(path) as journal:
        assert journal.sessions == {}
        assert journal.epoch != epoch
        log = await journal.create("s", "mock")
        assert await read_gap(log.cursor(3, epoch)) == Gap(1, 0, "epoch", 1)
    async with open_quickly(path) as journal:
        assert list(journal.sessions) == ["s"]
    assert len(aside(path)) == 1


@pytest.mark.parametrize("table", ["meta", "sessions", "pages_by_number"])
async def test_damage_anywhere_that_keeps_a_journal_from_opening_is_put_aside(path: Path, table: str) -> None:
    epoch = await filled(path)
    with closing(sqlite3.connect(path)) as other:
        (root,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (table,)).fetchone()
    damage(path, (root - 1) * PAGE_SIZE, PAGE_SIZE)
    async with open_quickly(path) as journal:
        assert journal.sessions == {}
        assert journal.epoch != epoch
    assert len(aside(path)) == 1


async def test_a_journal_of_another_version_is_refused_and_not_touched(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version=1000")
    with pytest.raises(UnknownVersion, match="version 1000"):
        await filled(path)
    assert aside(path) == []
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT COUNT(*) FROM sessions").fetchone() == (1,)


async def test_a_file_that_cannot_be_opened_is_an_error_and_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        await filled(tmp_path)
    assert aside(tmp_path) == []


async def test_retention_by_events_keeps_the_newest_and_tells_of_the_gap(path: Path) -> None:
    async with open_quickly(path, retention=Retention(max_events=5, max_bytes=80)) as journal:
        log = await journal.create("s", "mock")
        early = log.cursor(2)
        events = await append_pages(journal, log, 20)
        await journal.flush()
        assert log.floor > 1
        assert len(await read(log, log.floor - 1)) <= 6
        assert await read(log, log.floor - 1) == events[log.floor - 1 :]
        gap = await read_gap(early)
        assert gap == Gap(3, log.floor - 1, "retention", log.floor)
        assert early.position == log.floor - 1
        floor = log.floor
    async with open_quickly(path) as journal:
        log = journal.sessions["s"]
        assert log.floor == floor
        assert await read_gap(log.cursor(0)) == Gap(1, floor - 1, "retention", floor)
        assert await read(log, floor - 1) == events[floor - 1 :]


async def test_retention_by_bytes_counts_the_envelopes_of_each_session_for_itself(path: Path) -> None:
    async with open_quickly(path, retention=Retention(max_bytes=100_000)) as journal:
        big, small = await journal.create("big", "mock"), await journal.create("small", "mock")
        kept = await append_pages(journal, small, 10)
        events = await append_pages(journal, big, 30, size=10_000)
        await journal.flush()
        assert await read(small) == kept
        assert 80_000 <= sum(len(event.envelope) for event in await read(big, big.floor - 1)) <= 120_000
        assert await read(big, big.floor - 1) == events[big.floor - 1 :]
        await journal.flush()
    with closing(sqlite3.connect(path)) as other:
        (left,) = other.execute("SELECT SUM(LENGTH(body)) FROM pages").fetchone()
    assert left < 130_000


async def test_retention_by_age_comes_to_sessions_that_say_nothing_and_keeps_their_newest_page(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        events = await append_pages(journal, log, 5)
    # All of it is older than no time at all; the look at the start of the house-keeping is enough.
    async with open_quickly(path, retention=Retention(max_age=0)) as journal:
        log = journal.sessions["s"]
        for _ in range(3):
            await journal.flush()
        assert log.floor == 5
        assert await read_gap(log.cursor(0)) == Gap(1, 4, "retention", 5)
        assert await read(log, 4) == events[4:]


async def test_what_is_young_and_little_stays(path: Path) -> None:
    async with open_quickly(path, retention=Retention(max_age=3600, max_events=100, max_bytes=80)) as journal:
        log = await journal.create("s", "mock")
        events = await append_pages(journal, log, 9)
        await journal.flush()
        assert (log.floor, await read(log)) == (1, events)


async def test_without_limits_everything_stays(path: Path) -> None:
    async with open_quickly(path, retention=Retention(None, None, None)) as journal:
        log = await journal.create("s", "mock")
        events = await append_pages(journal, log, 6, size=1 << 20)
        assert await read(log) == events


async def test_a_page_is_cut_where_a_cursor_stands_inside_it(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        events = append(journal, log, [0] * 10)
        await journal.flush()
        (page,) = await log.read(0)
        assert (page.first, page.last) == (1, 10)
        for after in range(10):
            assert await read(log, after) == events[after:]
            assert [seq for seq, _ in page.after(after).numbered()] == list(range(after + 1, 11))
        assert page.after(0) is page


async def test_a_page_leaves_out_whom_nobody_asked_for(path: Path) -> None:
    async with open_quickly(path) as journal:
        log = await journal.create("s", "mock")
        events = append(journal, log, [0] * 10)
        await journal.flush()
        (page,) = await log.read(0)
        assert list(page.numbered(skip=b"dn")) == [
            (event.seq, event.envelope) for event in events if event.origin.value not in b"dn"
        ]
        assert list(page.numbered(skip=b"?")) == [(event.seq, event.envelope) for event in events]
