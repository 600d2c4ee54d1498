"""More sessions than agents may run: what becomes of those for which there is no room. See `test_berths`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from actors.natively import cancel, created, ended, prompt, said, text
from actors.talking import LIMIT, Client, Watch
from actors.talking import prompt as raw_prompt
from sandbox_actors.berths import Berths
from sandbox_actors.errors import AgentLimitReached, AgentStartFailed
from sandbox_actors.messages import AgentHeard, CloseSession, Hibernate, Prompt, Restart
from sandbox_actors.native import Setup
from sandbox_supervisor import ActorError, RestartPolicy

if TYPE_CHECKING:
    from actors.talking import OpenHouse
    from sandbox_actors.session import Session


async def test_another_session_makes_the_one_that_is_idle_longest_hibernate(open_house: OpenHouse) -> None:
    berths = Berths(2)
    async with open_house(limits={"berths": berths}) as house:
        first, watch = await created(house)
        second, _ = await created(house)
        await said(first, "the word is plum")
        await said(second, "the word is pear")
        third, _ = await created(house)
        assert (first.state, second.state, third.state) == ("stopped", "ready", "ready")
        hibernated = await watch.until("_sandboxagent/agent/hibernated")
        assert hibernated.params["reason"] == "room"
        assert len(house.processes()) == 2
        # And back: what was ended for another one knows all that was said.
        assert "plum" in await said(first, "/recite")
        assert (first.state, second.state, third.state) == ("ready", "stopped", "ready")
        assert "pear" in await said(second, "/recite")
        assert len(house.processes()) == 2


@pytest.mark.parametrize("native", [True, False])
async def test_where_nobody_is_idle_a_new_session_is_refused_and_leaves_nothing_behind(
    open_house: OpenHouse, native: bool
) -> None:
    berths = Berths(1)
    async with open_house(limits={"berths": berths}) as house:
        first, _ = await created(house)
        hangs = await prompt(first, "/hang")
        with pytest.raises(AgentLimitReached) as refused:
            await (house.sessions.create("new", "mock", Setup()) if native else house.sessions.obtain("new", "mock"))
        assert refused.value.retry_after == 5
        assert house.sessions.all() == [first]
        assert list(house.journal.sessions) == [first.log.row.id]
        assert not house.sessions.was_deleted("new")  # it never was
        await cancel(first)
        await ended(hangs)
        await (house.sessions.create("new", "mock", Setup()) if native else house.sessions.obtain("new", "mock"))


async def test_where_nobody_is_idle_a_session_that_sleeps_takes_no_requests(open_house: OpenHouse) -> None:
    berths = Berths(1)
    async with open_house(limits={"berths": berths}) as house:
        first, _ = await created(house)
        second, watch = await created(house)
        hangs = await prompt(second, "/hang")
        watch = Watch(first, first.log.head)
        for refused in (Prompt(text("hello")), Restart()):
            with pytest.raises(AgentLimitReached):
                await first.ref.ask(refused)
        with pytest.raises(AgentLimitReached):
            await Client(first).start("session/prompt", **raw_prompt(str(first.memory.main), "hello"))
        assert (first.state, first.turns.open, first.memory.turns) == ("stopped", (), [])
        await cancel(second)
        await ended(hangs)
        await said(first, "hello")
        assert "_sandboxagent/turn/failed" not in [told.method for told in watch.told]


async def test_a_session_that_never_hibernates_is_not_ended_for_others(open_house: OpenHouse) -> None:
    berths = Berths(2)
    async with open_house(limits={"berths": berths}) as house:
        first, _ = await created(house, Setup(idle_limit=0))
        second, _ = await created(house)
        third, _ = await created(house)
        assert (first.state, second.state, third.state) == ("ready", "stopped", "ready")


async def test_one_that_gets_work_before_it_has_made_room_stays_and_the_other_is_refused(
    open_house: OpenHouse,
) -> None:
    berths = Berths(1)
    async with open_house(limits={"berths": berths}) as house:
        asleep, _ = await created(house)
        idle, _ = await created(house)
        asleep.wake()  # which asks for the berth at once
        taken = asleep.ref.request(Prompt(text("hello")))
        work = idle.ref.request(Prompt(text("hello")))
        with trio.fail_after(LIMIT):
            refused = await ended(await taken.wait())
            done = await ended(await work.wait())
        assert (done.outcome, refused.outcome) == ("completed", "failed")
        assert refused.error is not None
        assert str(refused.error["type"]).endswith("agent_limit")
        assert (asleep.state, idle.state) == ("stopped", "ready")
        assert (berths.occupied, berths.waiting) == (1, 0)


async def test_a_create_that_is_cancelled_while_it_waits_for_a_berth_leaves_nothing_behind(
    open_house: OpenHouse,
) -> None:
    berths = Berths(1)
    async with open_house(limits={"berths": berths}) as house:
        stubborn, watch = await created(house)
        await said(stubborn, "/ignore-sigterm")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.create, "new", "mock", Setup())
            await watch.until("_sandboxagent/agent/hibernated")
            while not berths.waiting:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert (house.sessions.all(), berths.waiting) == ([stubborn], 0)
        await watch.until("_adapter/agent_exited")
        assert "pid" not in stubborn.node.details
        assert berths.occupied == 0


async def test_closing_or_deleting_a_session_gives_its_berth_to_the_next(open_house: OpenHouse) -> None:
    berths = Berths(1)
    async with open_house(limits={"berths": berths}) as house:
        first, _ = await created(house, Setup(idle_limit=0))
        await first.ref.ask(CloseSession())
        second, _ = await created(house, Setup(idle_limit=0))
        await house.sessions.delete(second.log.row.id)
        with pytest.raises(AgentStartFailed):
            await house.sessions.obtain("third", "missing")
        fourth, _ = await created(house)
        assert fourth.state == "ready"
        assert berths.occupied == 1


async def test_an_agent_in_backoff_keeps_its_berth(open_house: OpenHouse) -> None:
    berths = Berths(1)
    async with open_house(RestartPolicy(backoff=60, backoff_limit=60), limits={"berths": berths}) as house:
        first, watch = await created(house)
        await prompt(first, "/crash")
        await watch.until("_sandboxagent/agent/restarting")
        with pytest.raises(AgentLimitReached):
            await created(house)
        await first.ref.ask(Restart())
        await watch.until("_sandboxagent/agent/restarted")
        assert berths.occupied == 1


async def test_an_agent_that_is_given_up_has_none(open_house: OpenHouse) -> None:
    berths = Berths(1)
    async with open_house(RestartPolicy(intensity=0), limits={"berths": berths}) as house:
        first, watch = await created(house)
        await prompt(first, "/crash")
        await watch.until("_sandboxagent/agent/failed")
        second, _ = await created(house)
        await prompt(second, "/hang")
        with pytest.raises(AgentLimitReached):
            await first.ref.ask(Restart())
        assert (first.state, second.state) == ("failed", "ready")


async def test_a_bug_in_our_own_actor_costs_no_berth(open_house: OpenHouse, capsys: pytest.CaptureFixture[str]) -> None:
    berths = Berths(1)
    async with open_house(limits={"berths": berths}) as house:
        sick, _ = await created(house)
        # No agent can make us say this; it stands for the bug that we do not know.
        await sick.ref.tell(AgentHeard(cast("Any", [None]), trio.Event()))
        with trio.fail_after(LIMIT):
            await sick.closed.wait()
        assert (berths.occupied, house.processes()) == (0, [])
        assert "session crashed" in capsys.readouterr().out
        await created(house)


@pytest.mark.parametrize("seed", range(2))
async def test_after_any_operations_and_faults_every_berth_is_there_again(open_house: OpenHouse, seed: int) -> None:
    chance = random.Random(seed)
    berths = Berths(3)
    async with open_house(limits={"berths": berths, "cancel_within": 0.05}) as house:
        turns = 0

        async def operate(session: Session) -> None:
            nonlocal turns
            match chance.choice(["say", "say", "say", "crash", "hang", "sleep", "restart", "delete", "close", "raw"]):
                case "say":
                    await ended(await prompt(session, "hello"))
                    turns += 1
                case "crash":
                    await ended(await prompt(session, "/crash"))
                case "hang":
                    await ended_when_cancelled(session)
                case "sleep":
                    await session.ref.ask(Hibernate())
                case "restart":
                    await session.ref.ask(Restart())
                case "delete":
                    await house.sessions.delete(session.log.row.id)
                case "close":
                    await session.ref.ask(CloseSession())
                case _:
                    asked = raw_prompt(str(session.memory.main), "hello")
                    await (await Client(session).start("session/prompt", **asked))()

        async def client() -> None:
            done = 0
            while done < 12:
                sessions = [session for session in house.sessions.all() if session.state != "closed"]
                with trio.move_on_after(chance.choice([0.02, 0.2, LIMIT])):
                    try:
                        if len(sessions) < 6 or chance.random() < 0.1:
                            await house.sessions.create(None, "mock", Setup())
                        else:
                            await operate(chance.choice(sessions))
                        done += 1
                    except ActorError:
                        await trio.sleep(0.01)  # who is refused tries again a little later
                assert berths.occupied <= 3

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(client)
            for session in house.sessions.all():
                await house.sessions.delete(session.log.row.id)
        assert (berths.occupied, berths.waiting) == (0, 0)
        assert turns


async def ended_when_cancelled(session: Session) -> None:
    turn = await prompt(session, "/hang")
    await cancel(session, turn.id)
    await ended(turn)
