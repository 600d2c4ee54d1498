"""The helpers for tests are part of the library, so they are tested, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sandbox_supervisor import RestartPolicy, supervise
from sandbox_supervisor.testing import InjectedCrash, Run, ScriptedChild

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_each_incarnation_follows_its_step_of_the_script(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash", Run("crash", after=10), "end"])
    with pytest.raises(InjectedCrash):
        await child(1)
    with pytest.raises(InjectedCrash):
        await child(2)
    await child(3)
    start = child.started[0]
    assert [time - start for time in child.started] == [0, 0, 10]
    assert child.incarnations == [1, 2, 3]


async def test_past_the_end_of_its_script_it_blocks(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["end"])
    await child(1)
    with trio.move_on_after(1e6) as scope:
        await child(2)
    assert scope.cancelled_caught
    assert child.cancelled == 1


async def test_a_crash_on_demand_is_for_the_incarnation_that_blocks_now(autojump_clock: MockClock) -> None:
    child = ScriptedChild()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, child, RestartPolicy())
        await wait_all_tasks_blocked()
        child.crash()
        await trio.sleep(60)
        assert child.incarnations == [1, 2]
        child.crash()
        await trio.sleep(60)
        assert child.incarnations == [1, 2, 3]
        nursery.cancel_scope.cancel()
    assert child.cancelled == 1


async def test_hours_of_virtual_time_take_none(autojump_clock: MockClock) -> None:
    child = ScriptedChild([Run("crash", after=3600)] * 24)
    with trio.move_on_after(24 * 3600):
        await supervise(child, RestartPolicy())
    assert len(child.started) == 24
