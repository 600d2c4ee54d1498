"""A program that writes a journal as fast as it can and says which events it has seen. It is made to be killed.

    python journal_writer.py FILE SEED

Before it appends an event it knows its number, and what it says follows from the number alone.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from sandbox_actors.journal import Gap, open_journal

if TYPE_CHECKING:
    from sandbox_actors.journal import Cursor


def text(number: int) -> bytes:
    """What the event of a number says."""
    size = 20_000 if number % 50 == 0 else number % 300
    return b'{"n":%d}' % number + b"." * size


async def say_what_is_seen(cursor: Cursor) -> None:
    async for pages in cursor:
        assert not isinstance(pages, Gap)
        os.write(1, b"%d\n" % pages[-1].last)


async def main(file: Path, seed: int) -> None:
    randomly = random.Random(seed)
    async with open_journal(file, synchronous="NORMAL") as journal, trio.open_nursery() as nursery:
        log = journal.sessions.get("s") or await journal.create("s", "mock")
        nursery.start_soon(say_what_is_seen, log.cursor(log.head))
        while True:
            await journal.room()
            first = log.next_seq
            batch = [text(number) for number in range(first, first + randomly.randint(1, 20))]
            journal.append(log, 1, b"a" * len(batch), batch)
            journal.remember(log, b"%d" % (log.next_seq - 1))
            await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
