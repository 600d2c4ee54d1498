from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_supervisor import (
    PERMANENT,
    TEMPORARY,
    TRANSIENT,
    Crash,
    Node,
    RestartLimitReached,
    RestartPolicy,
    supervise,
)
from sandbox_supervisor.testing import InjectedCrash, Run, ScriptedChild

if TYPE_CHECKING:
    from trio.testing import MockClock

    from sandbox_supervisor import Child
    from sandbox_supervisor.policy import Restart

HOUR = 3600.0


async def watched(
    child: Child, policy: RestartPolicy, *, seconds: float = HOUR, first: int = 1
) -> tuple[list[Crash], BaseException | None]:
    """Supervise for so long at most; tell the crashes and how it ended."""
    crashes: list[Crash] = []

    async def crashed(crash: Crash) -> None:
        crashes.append(crash)

    try:
        with trio.move_on_after(seconds):
            await supervise(child, policy, name="worker", first=first, crashed=crashed)
    except RestartLimitReached as error:
        return crashes, error
    return crashes, None


@pytest.mark.parametrize(
    ("restart", "runs"),
    [pytest.param(PERMANENT, 3, id="permanent"), pytest.param(TRANSIENT, 1, id="transient"), (TEMPORARY, 1)],
)
async def test_after_an_end_only_a_permanent_child_is_started_again(
    restart: Restart, runs: int, autojump_clock: MockClock
) -> None:
    child = ScriptedChild(["end", Run("end", after=5)])
    crashes, error = await watched(child, RestartPolicy(restart=restart))
    assert len(child.started) == runs
    assert (crashes, error) == ([], None)


@pytest.mark.parametrize("restart", [PERMANENT, TRANSIENT])
async def test_after_a_crash_a_child_is_started_again(restart: Restart, autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash", Run("crash", after=3)])
    crashes, error = await watched(child, RestartPolicy(restart=restart))
    assert child.incarnations == [1, 2, 3]
    assert [crash.crashes for crash in crashes] == [1, 2]
    assert error is None


async def test_a_temporary_child_is_given_up_at_its_first_crash(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash"])
    crashes, error = await watched(child, RestartPolicy(restart=TEMPORARY))
    assert len(child.started) == 1
    assert [crash.delay for crash in crashes] == [None]
    assert isinstance(error, RestartLimitReached)


async def test_one_crash_more_than_the_intensity_gives_the_child_up(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash"] * 10)
    crashes, error = await watched(child, RestartPolicy(intensity=3, period=60))
    assert len(child.started) == 4
    assert [crash.delay is None for crash in crashes] == [False, False, False, True]
    assert isinstance(error, RestartLimitReached)
    assert (error.name, error.crashes, error.period) == ("worker", 4, 60)
    assert isinstance(error.__cause__, InjectedCrash)
    assert str(error) == "worker crashed 4 times within 60 s"


async def test_a_quiet_period_forgets_crashes_and_the_delay_falls_back(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash", "crash", *[Run("crash", after=120)] * 8])
    crashes, error = await watched(child, RestartPolicy(intensity=2, period=60, backoff=1, backoff_limit=100))
    assert error is None
    assert [crash.crashes for crash in crashes] == [1, 2, *[1] * 8]
    assert all(crash.delay is not None and crash.delay <= 1 for crash in crashes[2:])


async def test_backoff_doubles_is_jittered_and_limited(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash"] * 7)
    crashes, _ = await watched(child, RestartPolicy(intensity=10, period=HOUR, backoff=1, backoff_limit=20))
    pauses = [after - before for before, after in zip(child.started, child.started[1:], strict=False)]
    assert pauses == pytest.approx([crash.delay for crash in crashes])
    for pause, full in zip(pauses, [1, 2, 4, 8, 16, 20, 20], strict=True):
        assert full / 2 <= pause <= full


async def test_a_permanent_child_that_returns_at_once_does_not_starve_the_others() -> None:
    runs = 0

    async def hasty(incarnation: int) -> None:
        nonlocal runs
        runs += 1

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, hasty, RestartPolicy(restart=PERMANENT))
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert 0 < runs < 100


async def test_incarnations_are_counted_from_the_number_given(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash", "crash"])
    crashes, _ = await watched(child, RestartPolicy(), first=41)
    assert child.incarnations == [41, 42, 43]
    assert [crash.incarnation for crash in crashes] == [41, 42]


async def test_cancellation_passes_through_a_running_child_without_counting(autojump_clock: MockClock) -> None:
    child = ScriptedChild()
    crashes, error = await watched(child, RestartPolicy(restart=PERMANENT), seconds=5)
    assert (child.cancelled, crashes, error) == (1, [], None)


async def test_cancellation_passes_through_the_backoff(autojump_clock: MockClock) -> None:
    child = ScriptedChild(["crash"])
    started = trio.current_time()
    crashes, error = await watched(child, RestartPolicy(backoff=100, backoff_limit=100), seconds=5)
    assert trio.current_time() - started == 5
    assert (len(child.started), len(crashes), error) == (1, 1, None)


async def test_cancellation_passes_through_the_report_of_a_crash(autojump_clock: MockClock) -> None:
    async def hangs(crash: Crash) -> None:
        await trio.sleep_forever()

    child = ScriptedChild(["crash"])
    with trio.move_on_after(5) as scope:
        await supervise(child, RestartPolicy(), crashed=hangs)
    assert scope.cancelled_caught
    assert len(child.started) == 1


async def test_cancellation_at_once_never_starts_a_second_incarnation() -> None:
    child = ScriptedChild(["crash"] * 5)
    with trio.CancelScope() as scope:
        scope.cancel()
        await supervise(child, RestartPolicy(backoff=0))
    assert scope.cancelled_caught
    assert child.incarnations == [1]


async def test_a_child_that_crashes_while_it_is_cancelled_is_not_started_again(
    autojump_clock: MockClock,
) -> None:
    runs = []

    async def clumsy(incarnation: int) -> None:
        runs.append(incarnation)
        try:
            await trio.sleep_forever()
        finally:
            raise InjectedCrash("in cleanup")

    with trio.move_on_after(1) as scope:
        await supervise(clumsy, RestartPolicy())
    assert scope.cancelled_caught
    assert runs == [1]


async def test_an_exception_group_is_one_crash(autojump_clock: MockClock) -> None:
    async def falls() -> None:
        raise InjectedCrash

    async def with_a_nursery(incarnation: int) -> None:
        if incarnation > 2:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(falls)
            nursery.start_soon(falls)

    crashes, error = await watched(with_a_nursery, RestartPolicy())
    assert error is None
    assert [crash.crashes for crash in crashes] == [1, 2]
    assert all(isinstance(crash.error, ExceptionGroup) for crash in crashes)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_is_no_crash(end: type[BaseException]) -> None:
    async def child(incarnation: int) -> None:
        raise end

    with pytest.raises(end):
        await supervise(child, RestartPolicy(restart=PERMANENT))


async def test_an_error_out_of_the_report_ends_the_supervision(autojump_clock: MockClock) -> None:
    async def refuses(crash: Crash) -> None:
        raise LookupError("no more")

    child = ScriptedChild(["crash"] * 3)
    with pytest.raises(LookupError, match="no more"):
        await supervise(child, RestartPolicy(), crashed=refuses)
    assert len(child.started) == 1


async def test_siblings_go_on_when_one_child_is_given_up(autojump_clock: MockClock) -> None:
    weak, strong = ScriptedChild(["crash"] * 10), ScriptedChild(["crash"])
    given_up: list[str] = []

    async def keep(name: str, child: ScriptedChild) -> None:
        try:
            await supervise(child, RestartPolicy(intensity=2), name=name)
        except RestartLimitReached as error:
            given_up.append(error.name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, "weak", weak)
        nursery.start_soon(keep, "strong", strong)
        await trio.sleep(HOUR)
        assert given_up == ["weak"]
        assert (len(weak.started), len(strong.started), strong.cancelled) == (3, 2, 0)
        nursery.cancel_scope.cancel()
    assert strong.cancelled == 1


async def test_the_node_tells_what_the_child_does(autojump_clock: MockClock) -> None:
    node = Node("worker", "test")
    child = ScriptedChild([Run("crash", after=10), Run("end", after=10)])
    seen: list[tuple[str, int, int]] = []

    async def look() -> None:
        for pause in (5, 6, 10, 20):
            await trio.sleep(pause)
            seen.append((node.state, node.incarnation, node.crashes))

    policy = RestartPolicy(backoff=10, backoff_limit=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(partial(supervise, child, policy, node=node))
    assert seen == [("running", 1, 0), ("restarting", 1, 1), ("running", 2, 1), ("ended", 2, 1)]


async def test_the_node_of_a_child_that_was_given_up_says_so(autojump_clock: MockClock) -> None:
    node = Node("worker", "test")
    with pytest.raises(RestartLimitReached):
        await supervise(ScriptedChild(["crash"] * 2), RestartPolicy(intensity=1), node=node)
    assert (node.state, node.incarnation, node.crashes) == ("failed", 2, 2)
