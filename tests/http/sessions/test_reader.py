"""A reader of events that has nothing to tell says so, and how far it has come."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sandbox_actors.journal import Origin, SessionLog, open_journal
from sandbox_actors.kinds import Kinds
from sandbox_http.sessions.reader import Reader
from sandbox_http.sessions.selection import Selection
from sandbox_http.streams import HEARTBEAT, Streams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from sandbox_actors.journal import Journal

Json = Any


@asynccontextmanager
async def a_log(home: Path) -> AsyncGenerator[tuple[Journal, SessionLog]]:
    async with open_journal(home / "journal.db", synchronous="NORMAL") as journal:
        yield journal, await journal.create("s", "mock")


async def say(journal: Journal, log: SessionLog, *methods: str) -> None:
    """Append, and wait until it is durable."""
    envelopes = [b'{"method":"%b"}' % method.encode() for method in methods]
    journal.append(log, 1, Origin.AGENT.value * len(envelopes), envelopes)
    while log.head < log.next_seq - 1:
        await log.park()


def reader_of(log: SessionLog, *kinds: str, follow: bool = True) -> Reader:
    selection = Selection(log.cursor(0), 0, Kinds(kinds), None, everything=not kinds)
    return Reader(selection, Streams(), "epoch", follow=follow)


async def frames(reader: Reader) -> list[Json]:
    return [json.loads(frame.text) for frame in await reader.read()]


async def test_what_is_filtered_out_does_not_keep_a_heartbeat_back(tmp_path: Path, autojump_clock: Any) -> None:
    async with a_log(tmp_path) as (journal, log):
        reader = reader_of(log, "wanted")
        assert await frames(reader) == [{"type": "replay_complete", "seq": 0}]
        await say(journal, log, "noise", "noise")
        start = autojump_clock.current_time()
        (heartbeat,) = await frames(reader)
        assert (heartbeat["type"], heartbeat["seq"]) == ("heartbeat", 2)
        assert autojump_clock.current_time() - start >= HEARTBEAT
        await say(journal, log, "noise", "wanted")
        (event,) = await frames(reader)
        assert (event["seq"], event["kind"]) == (4, "wanted")


async def test_a_reader_that_does_not_follow_ends_at_the_head(tmp_path: Path, autojump_clock: Any) -> None:
    async with a_log(tmp_path) as (journal, log):
        await say(journal, log, "a")
        reader = reader_of(log, follow=False)
        told = [await frames(reader), await frames(reader), await frames(reader)]
        assert [[frame["type"] for frame in some] for some in told] == [["event"], ["replay_complete"], []]
