"""Whatever an agent starts and however it is stopped: no process of it is left, and nobody waits long."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio

from support.clients import Session, method_of, pid_in, refused, texts
from support.daemon import running
from support.processes import alive, eventually, zombies_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json

DELETED_WITHIN = 2.5
SWEPT_WITHIN = 3.0
STOPPED_WITHIN = 10.0

STRAY = re.compile(r"(?:grandchild|orphan) pid (\d+)")
TREES = {
    "nothing special": "",
    "ignores SIGTERM": "/ignore-sigterm",
    "grandchild on its pipes": "/grandchild",
    "orphan outside its group": "/orphan",
    "orphan on its pipes": "/orphan 60 pipes",
    "all at once": "/ignore-sigterm\n/grandchild\n/grandchild\n/orphan\n/orphan 60 pipes",
}


async def grow_tree(session: Session, script: str) -> list[int]:
    """Open a session whose agent starts processes; gives the pids of the whole tree."""
    await session.open()
    async with session.subscribed(0) as subscriber:
        answer = await session.prompt(f"/state\n{script}")
        assert answer["result"]["stopReason"] == "end_turn"
        await subscriber.until(lambda event: b'"stopReason"' in event.data)
        agent = next(pid for event in subscriber.events if (pid := pid_in(event)))
        strays = [int(pid) for pid in STRAY.findall(texts(subscriber.events))]
    assert len(strays) == len(re.findall("grandchild|orphan", script))
    tree = [agent, *strays]
    assert all(map(alive, tree))
    return tree


@pytest.mark.parametrize("script", TREES.values(), ids=TREES.keys())
async def test_deletion_is_prompt_and_takes_the_whole_tree(tmp_path: Path, script: str) -> None:
    async with running(tmp_path) as daemon:
        with trio.fail_after(30):
            for mid_turn in (False, True):
                await delete_whole_tree(Session(daemon), script, mid_turn=mid_turn)
                assert zombies_of(daemon.pid) == []
                assert len(daemon.processes()) == 2, "the daemon and its sentinel"


async def delete_whole_tree(session: Session, script: str, *, mid_turn: bool) -> None:
    answers: list[Json] = []

    async def prompt() -> None:
        answers.append(await session.prompt("/think on and on\n/hang"))

    tree = await grow_tree(session, script)
    async with session.subscribed() as subscriber, trio.open_nursery() as nursery:
        if mid_turn:
            nursery.start_soon(prompt)
            await subscriber.until(lambda event: b'"text":"on and on"' in event.data)
        began = time.monotonic()
        assert await session.delete() == 204
        seconds = time.monotonic() - began
        # All dead when the answer is there, not some time later.
        assert [pid for pid in tree if alive(pid)] == []
        await subscriber.ended.wait()
        assert not subscriber.cut
    assert seconds < DELETED_WITHIN
    assert [refused(answer) for answer in answers] == ["session_closed"] * mid_turn
    assert await session.delete() == 204, "there is nothing to delete, which is fine"
    print(f"deleted in {seconds:.2f} s")


async def test_sigterm_of_the_daemon_leaves_no_process_of_many_stubborn_sessions(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with trio.fail_after(60):
            for number, script in enumerate(TREES.values()):
                await grow_tree(Session(daemon, f"s{number}"), script)
            assert len(daemon.processes()) >= 2 + len(TREES) + 7
            seconds = await daemon.stop()
        # No waiting here: when the daemon has ended, so has everything.
        assert daemon.processes() == []
        assert seconds < STOPPED_WITHIN
        print(f"stopped in {seconds:.2f} s")


async def test_sentinel_ends_everything_when_the_daemon_is_killed_and_never_begun_again(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with trio.fail_after(60):
            for number, script in enumerate(TREES.values()):
                await grow_tree(Session(daemon, f"s{number}"), script)
            assert len(daemon.processes()) >= 2 + len(TREES) + 7
            began = time.monotonic()
            await daemon.kill()
            with trio.fail_after(SWEPT_WITHIN):
                await eventually(lambda: not daemon.processes())
        print(f"gone in {time.monotonic() - began:.2f} s")


async def test_second_signal_ends_the_daemon_at_once_and_still_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with trio.fail_after(60):
            await grow_tree(Session(daemon), TREES["all at once"])
            daemon.process.send_signal(signal.SIGTERM)
            await eventually(lambda: "shutting down" in daemon.said)
            began = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.process.wait() == 1
            assert time.monotonic() - began < 1
            with trio.fail_after(SWEPT_WITHIN):
                await eventually(lambda: not daemon.processes())


async def test_agent_that_dies_takes_its_tree_along_before_the_next_one_starts(tmp_path: Path) -> None:
    async with running(tmp_path, "--restart-backoff-ms", "0") as daemon:
        session = Session(daemon)
        with trio.fail_after(30):
            tree = await grow_tree(session, TREES["all at once"])
            async with session.subscribed() as subscriber:
                os.kill(tree[0], signal.SIGKILL)
                await subscriber.until_method("_sandboxagent/agent/restarted")
            assert not any(map(alive, tree))
            assert len(daemon.processes()) == 3, "the daemon, its sentinel and the next agent"
            assert zombies_of(daemon.pid) == []


async def test_numbers_go_on_when_an_id_is_deleted_and_made_again(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(30):
            await session.open()
            async with session.subscribed(0) as first:
                await session.prompt("/stream 500")
                await first.until(lambda event: b'"stopReason"' in event.data)
                await session.delete()
                await first.ended.wait()
            assert first.events[0].id is not None
            await session.open()
            async with session.subscribed() as fresh:
                await fresh.until(lambda event: b'"sessionId":"' in event.data)
            assert all(event.id is not None and event.id > first.last for event in fresh.events)

            # A number of the first life, whatever it is, never names an event of the second.
            async with session.subscribed(7) as stale:
                await stale.until(lambda event: event.id == fresh.last)
            gap, *rest = stale.events
            assert gap.id is None
            assert method_of(gap) == "_sandboxagent/journal/gap"
            params = gap.message["params"]
            assert params["reason"] == "retention"
            assert (params["from"], params["to"]) == (8, params["next"] - 1)
            assert params["next"] > first.last
            assert rest == fresh.events

            # Whoever had seen all of the first life has missed nothing.
            async with session.subscribed(first.last) as exact:
                await exact.until(lambda event: event.id == fresh.last)
            assert exact.events == fresh.events

            # Also when the daemon was killed in between.
            await session.delete()
            await daemon.kill()
            await daemon.start()
            await session.open()
            async with session.subscribed() as third:
                await third.until(lambda event: b'"sessionId":"' in event.data)
            assert all(event.id is not None and event.id > fresh.last for event in third.events)


# Too much waits for the agent, or, where the disk is slow, for the journal.
REFUSALS = {"agent_busy", "overloaded"}

FLOOD = """
import os
line = b'{"jsonrpc":"2.0","method":"session/update","params":{"flood":"%b"}}\\n' % (b"x" * 120)
while True:
    os.write(1, line * 200)
"""


async def test_agent_that_floods_and_never_reads_blocks_nobody(tmp_path: Path) -> None:
    agents = tmp_path / "agents.json"
    agents.write_text(json.dumps({"agents": {"flood": {"command": [sys.executable, "-c", FLOOD]}}}))
    large = "x" * (15 << 20)
    async with running(tmp_path, "--agents", str(agents)) as daemon:
        session, other = Session(daemon, "flood"), Session(daemon, "other")
        answers: list[Json] = []
        busy = trio.Event()

        async def prompt() -> None:
            answer = await session.request("session/prompt", {"text": large}, "flood")
            answers.append(answer)
            if refused(answer) in REFUSALS:
                busy.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                # The first fill the agent's pipe and all that may wait behind it; one of the next is refused, loudly.
                for _ in range(10):
                    nursery.start_soon(prompt)
                await busy.wait()
                async with session.subscribed() as subscriber:
                    await subscriber.until(lambda event: b'"flood"' in event.data)
                # The flood goes on, and the neighbour does not notice.
                await other.open()
                with trio.fail_after(5):
                    assert (await other.prompt("hello"))["result"]["stopReason"] == "end_turn"
                began = time.monotonic()
                assert await session.delete() == 204
                seconds = time.monotonic() - began
            assert {refused(answer) for answer in answers} - REFUSALS == {"session_closed"}
            assert len(answers) == 10
            print(f"deleted in {seconds:.2f} s")
            assert seconds < DELETED_WITHIN
            assert len(daemon.processes()) == 3, "the daemon, its sentinel and the neighbour's agent"
