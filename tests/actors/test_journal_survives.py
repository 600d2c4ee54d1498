"""What the journal is for: a writer that is killed, a disk that is full."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from actors import journal_writer
from actors.reading import append, read
from sandbox_actors.errors import JournalUnavailable
from sandbox_actors.journal import open_journal

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sandbox_actors.journal import Journal

open_quickly = partial(open_journal, synchronous="NORMAL")

# No wait in here is longer, even on a busy machine.
LIMIT = 20.0


@contextmanager
def full_disk(path: Path, room: int) -> Generator[None]:
    """No file of this process grows beyond the journal's write-ahead log as it is now, and a little room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = path.with_name(path.name + "-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def trouble(journal: Journal) -> str:
    with trio.fail_after(LIMIT):
        while journal.trouble is None:  # noqa: ASYNC110 (the journal sets no event for it)
            await trio.sleep(0.005)
    return journal.trouble


async def test_what_anybody_has_seen_is_there_after_the_writer_was_killed(path: Path) -> None:
    randomly, epochs, head = random.Random(), set(), 0
    for round in range(6):
        argv = [sys.executable, journal_writer.__file__, str(path), str(round)]
        writer = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        said = b""
        with trio.fail_after(LIMIT):
            enough = randomly.randint(1, 40)
            while said.count(b"\n") < enough:
                chunk = await writer.stdout.receive_some(100)
                assert chunk, "the writer has ended by itself"
                said += chunk
            writer.kill()
            async for rest in writer.stdout:
                said += rest
            assert await writer.wait() == -signal.SIGKILL
        seen = int(said.split()[-1])
        assert seen > head
        async with open_quickly(path) as journal:
            epochs.add(journal.epoch)
            log = journal.sessions["s"]
            assert log.head >= seen
            events = await read(log)
            assert [event.seq for event in events] == list(range(1, log.head + 1))
            assert all(event.envelope == journal_writer.text(event.seq) for event in events)
            # What is remembered was written after the events that it is about.
            assert int(log.row.memory) <= log.head
            head = log.head
    assert len(epochs) == 1


async def test_a_full_disk_is_told_and_nothing_is_lost(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_quickly(path) as journal:
        log, other = await journal.create("s", "mock"), await journal.create("other", "mock")
        events = append(journal, log, [100] * 10)
        await journal.flush()
        before = log.head
        told = trio.Event()
        with full_disk(path, room=64 << 10):
            for _ in range(100):
                events += append(journal, log, [5000])
            journal.append(other, 1, b"a", [b"{}"], told.set)
            assert await trouble(journal)
            # What was there is still read, what was not written is not seen, and nobody is told that it was.
            assert log.head == before
            assert await read(log) == events[:before]
            assert not told.is_set()
            with trio.fail_after(LIMIT):
                with pytest.raises(JournalUnavailable, match="free some space"):
                    await journal.create("new", "mock")
                await journal.delete(other)
            assert "new" not in journal.sessions
        with trio.fail_after(LIMIT):
            await journal.flush()
            await told.wait()
        assert journal.trouble is None
        assert await read(log) == events
        await journal.create("new", "mock")
    async with open_quickly(path) as journal:
        assert sorted(journal.sessions) == ["new", "s"]
        assert await read(journal.sessions["s"]) == events
    printed = capsys.readouterr().out
    assert printed.count("journal cannot write") == 1
    assert printed.count("journal writes again") == 1


async def test_a_disk_that_stays_full_does_not_hold_up_the_end(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack, trio.fail_after(LIMIT):
        async with open_quickly(path, flush_within=0.1) as journal:
            log = await journal.create("s", "mock")
            written = append(journal, log, [0] * 3)
            await journal.flush()
            stack.enter_context(full_disk(path, room=0))
            append(journal, log, [100_000])
    assert "journal could not write its last events" in capsys.readouterr().out
    async with open_quickly(path) as journal:
        assert await read(journal.sessions["s"]) == written
