"""Sessions and their logs where the disk refuses; readers, retention and garbage of logs that are deleted meanwhile."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from actors.reading import append, read
from actors.talking import LIMIT
from sandbox_actors.agent import LAST_WORDS_WITHIN
from sandbox_actors.errors import AgentBusy, JournalUnavailable, Overloaded
from sandbox_actors.journal import Gap, Origin, Retention, open_journal
from sandbox_actors.journal.journal import PENDING_LIMIT
from sandbox_actors.journal.store import GARBAGE_SLICE
from sandbox_actors.outbox import BYTES_LIMIT

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from actors.talking import Client, House, OpenHouse
    from sandbox_actors.journal import Journal, SessionLog

open_quickly = partial(open_journal, synchronous="NORMAL")

LADDER = 0.6
"""Seconds of the house's ladder, for agents that end on a signal."""

FLUSH_WITHIN = 3.0
"""Seconds that the journal gives its last writes."""

SLACK = 4.0
"""Seconds for one more try to write, which waits for the lock, and for a busy machine."""

FLOOD = PENDING_LIMIT // 2 + 40_000
"""Bytes that an agent can write while the disk takes none, and that are not all dealt with: the request that asks for
them takes half of what may wait for the disk, a read in hand and the pipe hold 128 KiB more."""


@contextmanager
def refusing(path: Path) -> Generator[sqlite3.Connection]:
    """Somebody else has the file locked, so that nothing can be written, until that one is closed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def trouble(journal: Journal) -> None:
    with trio.fail_after(LIMIT):
        while journal.trouble is None:  # noqa: ASYNC110 (the journal sets no event for it)
            await trio.sleep(0.01)


async def flood_and_exit(house: House, client: Client) -> list[bytes]:
    """Have the agent write more than fits and crash, on a disk that refuses; gives its lines."""
    lines = [b'{"method":"flood","params":{"n":%d,"text":"%b"}}' % (n, b"x" * 1000) for n in range(FLOOD // 1050)]
    await client.start("print", text=b"\n".join([*lines, b""]).decode())
    await client.start("exit", code=3)
    with trio.fail_after(LIMIT):
        while house.processes():  # noqa: ASYNC110 (it is to be dead before anybody stops it)
            await trio.sleep(0.01)
    await trouble(house.journal)
    return lines


async def test_an_agent_that_died_on_a_refusing_disk_does_not_hold_up_a_delete(
    open_house: OpenHouse, path: Path
) -> None:
    async with open_house() as house:
        client, _ = await house.open()
        await client.call("received")
        deleted = trio.Event()

        async def delete() -> None:
            await house.sessions.delete("s")
            deleted.set()

        async with trio.open_nursery() as nursery:
            with refusing(path):
                await flood_and_exit(house, client)
                nursery.start_soon(delete)  # a task of its own: it cannot be cancelled, only be let through
                with trio.move_on_after(LAST_WORDS_WITHIN + LADDER + SLACK) as waiting:
                    await deleted.wait()
        assert not waiting.cancelled_caught
        assert house.sessions.all() == []
        with trio.fail_after(LIMIT):
            again, _ = await house.open()
            assert len(await again.call("received")) == 1


async def test_an_agent_that_died_on_a_refusing_disk_does_not_hold_up_the_end(
    open_house: OpenHouse, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    within = LAST_WORDS_WITHIN + LADDER + FLUSH_WITHIN + SLACK

    async def let_through(disk: sqlite3.Connection) -> None:
        await trio.sleep(within)
        disk.close()

    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            async with open_house() as house:
                client, _ = await house.open()
                await client.call("received")
                head = client.session.log.head
                disk = stack.enter_context(refusing(path))
                await flood_and_exit(house, client)
                began = trio.current_time()
                nursery.start_soon(let_through, disk)
            assert trio.current_time() - began < within
            nursery.cancel_scope.cancel()
    assert "could not write its last events" in capsys.readouterr().out
    async with open_quickly(path) as journal:
        events = await read(journal.sessions["s"])
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) >= head


@pytest.mark.parametrize("stopped", [False, True], ids=["crashed", "closed"])
async def test_what_a_dead_agent_said_is_all_there_when_the_disk_writes_again(
    open_house: OpenHouse, path: Path, stopped: bool
) -> None:
    async with open_house() as house:
        client, _ = await house.open()
        await client.call("received")
        with refusing(path):
            lines = await flood_and_exit(house, client)
            if stopped:
                with trio.fail_after(LAST_WORDS_WITHIN + LADDER + SLACK):
                    await house.sessions.close()
            appended = client.session.log.next_seq
        with trio.fail_after(LIMIT):
            while client.session.log.row.incarnation < 2 and not stopped:  # noqa: ASYNC110 (the next one has come up)
                await trio.sleep(0.01)
            await house.journal.flush()
        events = await read(client.session.log)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) >= appended - 1
        said = [event.envelope for event in events if event.envelope.startswith(b'{"method":"flood"')]
        assert said == lines[: len(said)]
        # A crash waits for the disk; a stop gives up what is still in the pipe, but nothing that was appended.
        assert len(said) == len(lines) if not stopped else len(said) > len(lines) // 2


async def test_a_refusing_disk_refuses_work_bounds_what_waits_and_loses_nothing(
    open_house: OpenHouse, path: Path
) -> None:
    text = "x" * (4 << 20)
    async with open_house() as house:
        client, _ = await house.open()
        await client.call("received")
        with refusing(path):
            sent = 0
            with trio.fail_after(LIMIT), pytest.raises(Overloaded):  # noqa: PT012 (until it is full)
                while True:
                    try:
                        await client.say({"method": "note", "params": {"n": sent, "text": text}})
                        sent += 1
                    except AgentBusy:  # its pipe takes a while
                        await trio.sleep(0.01)
            assert BYTES_LIMIT <= house.journal.pending_bytes < BYTES_LIMIT + 2 * len(text)
            await trouble(house.journal)
            with trio.fail_after(SLACK):
                with pytest.raises(JournalUnavailable, match="database is locked"):
                    await client.start("received")
                with pytest.raises(JournalUnavailable, match="database is locked"):
                    await house.sessions.obtain("new", "scripted")
            assert list(house.journal.sessions) == ["s"]
        with trio.fail_after(LIMIT):
            await house.journal.flush()
            assert house.journal.pending_bytes == 0
            events = await read(client.session.log)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            notes = [event.envelope for event in events if b'"note"' in event.envelope[:100]]
            assert [json.loads(note)["params"]["n"] for note in notes] == list(range(sent))
            assert {event.origin for event in events} == {Origin.CLIENT, Origin.AGENT}
            await client.say({"method": "note", "params": {"n": sent, "text": ""}})
            await house.open("new")


# -- logs


def append_pages(journal: Journal, log: SessionLog, pages: int) -> int:
    """So many pages of one event each, in one commit: events of two incarnations never share a page."""
    for number in range(pages):
        append(journal, log, [0], incarnation=1 + number % 2)
    return log.next_seq - 1


async def test_a_cursor_on_a_deleted_log_gets_nothing_of_the_session_made_again(path: Path) -> None:
    async with open_quickly(path) as journal:
        last = append_pages(journal, await journal.create("s", "mock"), 20 * GARBAGE_SLICE)
    async with open_quickly(path) as journal:  # opened again, nothing is in memory: every read is from the disk
        log = journal.sessions["s"]
        cursors = [log.cursor(last - behind) for behind in (1, 10, 100)]
        await journal.delete(log)
        again = await journal.create("s", "mock")
        visible = trio.Event()
        journal.append(again, 1, b"a" * 10, [b"{}"] * 10, visible.set)
        with trio.fail_after(LIMIT):
            await visible.wait()
            for cursor in cursors:
                async for pages in cursor:
                    assert not isinstance(pages, Gap)
                    assert pages[-1].last <= last
            assert [event.seq for event in await read(again, last)] == list(range(last + 1, last + 11))


async def test_trimming_a_log_that_is_being_deleted_does_not_bring_its_memory_back(path: Path) -> None:
    async with open_quickly(path, retention=Retention(max_events=1, max_bytes=8)) as journal:
        log = await journal.create("s", "mock")
        journal.remember(log, b"what was said")
        append(journal, log, [0] * 9)
        await journal.flush()
        append(journal, log, [0] * 9, incarnation=2)  # visible, and so looked at, behind the delete
        with trio.fail_after(LIMIT):
            await journal.delete(log)
            await journal.flush()
            await journal.flush()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT deleted, memory, floor, head FROM sessions").fetchall() == [(1, b"", 19, 18)]
        assert other.execute("SELECT COUNT(*) FROM pages").fetchone() == (0,)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_kept_is_known_without_counting_again(path: Path, seed: int) -> None:
    randomly = random.Random(seed)
    retention = Retention(max_events=60, max_bytes=6_000)
    for _ in range(2):  # and by the next daemon
        async with open_quickly(path, retention=retention) as journal:
            logs = [journal.sessions.get(id) or await journal.create(id, "mock") for id in "abc"]
            for round in range(80):
                for log in logs:
                    sizes = [randomly.choice([0, 50, 400]) for _ in range(randomly.randint(1, 8))]
                    append(journal, log, sizes, incarnation=randomly.randint(1, 3))
                if randomly.random() < 0.4:
                    await journal.flush()
                if round == 40:
                    await journal.delete(logs[0])
                    logs[0] = await journal.create("a", "mock")
            with trio.fail_after(LIMIT):
                for _ in range(3):
                    for log in logs:
                        append(journal, log, [0])
                    for _ in range(4):
                        await journal.flush()
            for log in logs:
                assert not log.trimming
                assert log.kept is not None
                known = (log.kept[0] + log.added_events, log.kept[1] + log.added_bytes)
                with closing(sqlite3.connect(path)) as other:
                    counted = other.execute(
                        "SELECT SUM(last - first + 1), SUM(LENGTH(body)) FROM pages WHERE session=? AND last>=?",
                        (log.row.key, log.floor),
                    ).fetchone()
                    (garbage,) = other.execute(
                        "SELECT COUNT(*) FROM pages WHERE session=? AND last<?", (log.row.key, log.floor)
                    ).fetchone()
                assert known == counted
                assert garbage == 0
                # Rounded up to whole pages: without the oldest one it would be less than the limits say.
                oldest = (await log.read(log.floor - 1))[0]
                assert known[0] - len(oldest.origins) < 60
                assert known[1] - len(oldest.body) < 6_000
                assert log.floor > 1


async def test_what_an_earlier_daemon_had_no_time_to_collect_is_collected_at_the_next_start(path: Path) -> None:
    pages = 2 * GARBAGE_SLICE + 100
    async with open_quickly(path) as journal:
        for id in ("trimmed", "deleted", "whole"):
            append_pages(journal, await journal.create(id, "mock"), pages)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        # As far as one came that was killed in between.
        other.execute("UPDATE sessions SET floor=? WHERE id='trimmed'", (pages - 9,))
        other.execute("UPDATE sessions SET floor=?, head=?, deleted=1 WHERE id='deleted'", (pages + 1, pages))

        def left() -> dict[str, int]:
            query = "SELECT id, COUNT(*) FROM pages JOIN sessions ON session=key GROUP BY id"
            return dict(other.execute(query).fetchall())

        async with open_quickly(path) as journal:
            with trio.fail_after(LIMIT):
                while left() != {"trimmed": 10, "whole": pages}:
                    await journal.flush()
            assert sorted(journal.sessions) == ["trimmed", "whole"]
            trimmed = journal.sessions["trimmed"]
            assert [event.seq for event in await read(trimmed, trimmed.floor - 1)] == list(range(pages - 9, pages + 1))
            assert (await journal.create("deleted", "mock")).next_seq == pages + 1
