"""The server is killed and begun again while events are missing: what became of a turn is still known."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent import SandboxAgent
from sandbox_agent.events import Gap
from support.daemon import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from sandbox_agent import Session
    from sandbox_agent.turn_stream import TurnStream
    from support.daemon import Daemon

# Between a daemon and the next, which listens where it did, another test might take the port.
pytestmark = pytest.mark.alone

WITHIN = 60
"""Seconds for one test."""


@asynccontextmanager
async def lagging(home: Path) -> AsyncGenerator[tuple[Daemon, Session, TurnStream]]:
    """A turn that has ended, whose events are gone before its reader reads the first."""
    with anyio.fail_after(WITHIN):
        async with (
            running(home, "--retention-events", "20") as daemon,
            SandboxAgent.connect(daemon.url, daemon.token) as sandbox,
        ):
            session = await sandbox.create_session("mock")
            async with session.stream("hello") as stream:
                while (await session.refresh()).floor <= stream.turn.seq + 10:
                    await session.prompt("/stream 20")
                yield daemon, session, stream


async def test_a_turn_whose_events_are_gone_has_its_result_after_a_restart(tmp_path: Path) -> None:
    async with lagging(tmp_path) as (daemon, session, stream):
        await session.prompt("/error -32000 no such thing")
        async with session.stream("/sleep 60") as cut:
            await anext(cut)
            before = await session.turns()
            await daemon.kill()
            await daemon.start()
            assert [type(event) for event in [event async for event in stream]] == [Gap]
            assert (stream.result.outcome, stream.result.stop_reason) == ("completed", "end_turn")
            assert stream.result.text_truncated
            async for _ in cut:
                pass
            assert cut.result.outcome == "failed"
            assert cut.result.error is not None
            assert cut.result.error["type"].endswith(":daemon_died")
        after = await session.turns()
        assert after[:-1] == before[:-1]
        assert (after[-1].turn_id, after[-1].seq, after[-1].outcome) == (before[-1].turn_id, before[-1].seq, "failed")
        assert (after[-1].created_at, after[-1].started_at) == (before[-1].created_at, before[-1].started_at)
        assert [await session.turn(turn.turn_id) for turn in after] == after


async def test_a_turn_that_nobody_knows_any_more_is_a_result_and_no_error(tmp_path: Path) -> None:
    async with lagging(tmp_path) as (daemon, session, stream):
        for _ in range(101):
            await session.transport.request("POST", session.path("/prompt?wait=true"), json={"content": "/silent"})
        await daemon.kill()
        await daemon.start()
        assert [type(event) for event in [event async for event in stream]] == [Gap]
        assert stream.result.outcome == "failed"
        assert stream.result.error is not None
        assert stream.result.error["type"].endswith(":turn_not_found")
