"""Native prompts: one runs, the others wait, and each has one outcome."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from actors.natively import cancel, created, ended, ends, prompt, said, starts, text
from actors.talking import LIMIT, QUICK, Client, Watch, open_house
from actors.talking import prompt as raw_prompt
from sandbox_actors.errors import (
    AgentUnavailable,
    IdempotencyConflict,
    QueueFull,
    SessionClosed,
    TurnNotFound,
)
from sandbox_actors.messages import Close, CloseSession, Prompt
from sandbox_actors.native import Setup
from sandbox_supervisor import RestartPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import OpenHouse
    from sandbox_actors.native_turns import Turn
    from sandbox_actors.session import Session

PREFIX = "urn:sandbox-agent:error:"


def problem(turn: Turn) -> str:
    """The name of the error with which a turn ended."""
    assert turn.error is not None
    return str(turn.error["type"]).removeprefix(PREFIX)


def kill_agent(session: Session) -> None:
    assert session.pid is not None
    os.kill(session.pid, signal.SIGKILL)


async def test_turns_run_one_after_the_other_in_the_order_they_came(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        turns = [await prompt(session, f"/sleep 0.02\nnumber {n}") for n in range(5)]
        assert [turn.state for turn in turns] == ["running"] + 4 * ["queued"]
        for turn in turns:
            assert (await ended(turn)).outcome == "completed"
        await watch.until(lambda told: told.params.get("turnId") == turns[-1].id if "params" in told.message else False)
        await watch.until(lambda told: told.method == "_sandboxagent/turn/ended" and len(ends(watch)) == 5)
        told = [(one.method.rpartition("/")[2], one.params["turnId"]) for one in watch.told if "/turn/" in one.method]
        assert [turn for what, turn in told if what == "queued"] == [turn.id for turn in turns]
        rest = [one for one in told if one[0] != "queued"]
        assert rest == [(what, turn.id) for turn in turns for what in ("started", "ended")]
        assert [end["stopReason"] for end in ends(watch)] == 5 * ["end_turn"]
        assert [one.seq for one in watch.told if one.method == "_sandboxagent/turn/queued"] == [t.seq for t in turns]
        assert session.turns.recent == tuple(turns)
        assert (session.turns.running, session.turns.queued, session.memory.open_turns) == (None, (), [])
        assert session.timers.names() == []


@pytest.mark.parametrize("limit", [0, 2, None])
async def test_only_so_many_wait_and_the_next_is_refused(open_house: OpenHouse, limit: int | None) -> None:
    async with open_house(limits={"queue_limit": 3}) as house:
        session, _ = await created(house, Setup(queue_limit=limit))
        turns = [await prompt(session, "/hang") for _ in range(1 + (3 if limit is None else limit))]
        with pytest.raises(QueueFull) as refused:
            await prompt(session, "one too many")
        assert refused.value.retry_after is not None
        await cancel(session)
        assert [(await ended(turn)).outcome for turn in turns] == ["cancelled"] * len(turns)
        assert await said(session, "again") == "again"


async def test_a_turn_ends_as_the_agent_says(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        refused = await ended(await prompt(session, "/stop refusal"))
        assert (refused.outcome, refused.stop_reason, refused.error) == ("completed", "refusal", None)
        failed = await ended(await prompt(session, "/error -32603 the model is away"))
        assert (failed.outcome, failed.stop_reason, problem(failed)) == ("failed", None, "agent_error")
        assert failed.error is not None
        assert (failed.error["detail"], bytes(failed.error["code"])) == ("the model is away", b"-32603")
        last = await ended(await prompt(session, "hello"))
        await watch.until(lambda told: told.message.get("params", {}).get("turnId") == last.id)
        await watch.until("_sandboxagent/turn/ended")
        assert [end["outcome"] for end in ends(watch)] == ["completed", "failed", "completed"]
        assert session.turns.get(failed.id) is failed
        with pytest.raises(TurnNotFound):
            session.turns.get("turn_x")


async def test_a_native_prompt_waits_for_the_prompt_of_a_raw_client(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        client, main = Client(session), str(session.memory.main)
        raw = await client.start("session/prompt", **raw_prompt(main, "/stream 1\n/hang"))
        await watch.until(starts)
        turn = await prompt(session, "after you")
        assert turn.state == "queued"
        other = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
        await client.say({"method": "session/cancel", "params": {"sessionId": main}})
        assert (await raw())["result"]["stopReason"] == "cancelled"
        assert (await ended(turn)).outcome == "completed"
        # In another ACP session it is nobody's business.
        raw = await client.start("session/prompt", **raw_prompt(main, "/hang"))
        turn = await ended(await session.ref.ask(Prompt(text("hello"), acp_session=other)))
        assert (turn.outcome, turn.acp_session) == ("completed", other)
        await client.say({"method": "session/cancel", "params": {"sessionId": main}})
        await raw()


async def test_those_that_wait_are_cancelled_at_once_and_the_running_one_when_the_agent_says_so(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        running = await prompt(session, "/stream 1\n/hang")
        waiting = [await prompt(session, f"number {n}") for n in range(3)]
        await watch.until(starts)
        assert await cancel(session, waiting[1].id) == (waiting[1].id,)
        assert waiting[1].outcome == "cancelled"
        assert (await ended(waiting[1])).stop_reason is None
        assert await cancel(session, running.id) == (running.id,)
        assert (await ended(running)).stop_reason == "cancelled"
        assert running.outcome == "cancelled"
        assert [(await ended(turn)).outcome for turn in waiting] == ["completed", "cancelled", "completed"]
        assert await cancel(session) == ()
        assert await cancel(session, running.id) == ()
        with pytest.raises(TurnNotFound):
            await cancel(session, "turn_x")
        assert session.timers.names() == []
        assert session.incarnation == 1


async def test_cancelling_all_cancels_all(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        turns = [await prompt(session, "/hang") for _ in range(4)]
        assert await cancel(session) == tuple(turn.id for turn in turns)
        assert [(await ended(turn)).outcome for turn in turns] == ["cancelled"] * 4
        assert [(turn.stop_reason, turn.forced) for turn in turns] == [("cancelled", False)] + [(None, False)] * 3


async def test_an_agent_that_does_not_cancel_is_ended_and_comes_back_with_what_was_said(
    open_house: OpenHouse,
) -> None:
    async with open_house(limits={"cancel_within": 0.05}) as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        stubborn = await prompt(session, "/ignore-sigterm\n/deaf")
        waiting = await prompt(session, "/recite")
        await watch.until(lambda told: "deaf from now on" in json.dumps(told.message))
        await cancel(session, stubborn.id)
        await ended(stubborn)
        assert (stubborn.outcome, stubborn.forced, stubborn.error) == ("cancelled", True, None)
        assert (await ended(waiting)).outcome == "completed"
        exited = await watch.until("_adapter/agent_exited")
        assert exited.params["reason"] == "stopped"
        recovered = await watch.until("_sandboxagent/session/recovered")
        assert (recovered.params["fidelity"], session.incarnation) == ("resumed", 2)
        await watch.until(lambda told: "plum" in json.dumps(told.message) and told.method == "session/update")
        assert {"outcome": "cancelled", "turnId": stubborn.id, "forced": True} in ends(watch)
        assert session.timers.names() == []


async def test_a_turn_that_takes_too_long_is_cancelled_and_says_why(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house, Setup(turn_deadline=0.05))
        turn = await ended(await prompt(session, "/hang"))
        assert (turn.outcome, turn.stop_reason, problem(turn)) == ("cancelled", "cancelled", "turn_deadline")
        assert await said(session, "in time") == "in time"
        assert session.timers.names() == []


async def test_a_crash_fails_the_turn_that_ran_and_the_others_go_on(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        crashing = await prompt(session, "/stream 3\n/hang")
        waiting = [await prompt(session, "first"), await prompt(session, "second")]
        await watch.until(starts)
        kill_agent(session)
        failed = await ended(crashing)
        assert (failed.outcome, problem(failed)) == ("failed", "agent_process_exited")
        assert failed.error is not None
        assert failed.error["signal"] == 9
        assert [(await ended(turn)).outcome for turn in waiting] == ["completed", "completed"]
        assert session.incarnation == 2
        recited = await said(session, "/recite")
        assert recited.count("/hang") == 1
        assert (await watch.until("_sandboxagent/turn/failed")).params["requestId"] == crashing.id
        await watch.until(lambda told: "/recite" in json.dumps(told.message))
        assert [end["turnId"] for end in ends(watch)] == [turn.id for turn in (crashing, *waiting)]


async def test_an_agent_that_ends_by_itself_is_started_for_those_that_wait(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        leaving = await prompt(session, "/permission\n/crash 0")
        waiting = await prompt(session, "hello")
        asked = await watch.until("session/request_permission")
        await Client(session).say({"id": asked.message["id"], "result": {"outcome": {"outcome": "cancelled"}}})
        assert (await ended(leaving)).outcome == "failed"
        assert (await ended(waiting)).outcome == "completed"


async def test_while_a_crashed_agent_is_away_prompts_are_refused(open_house: OpenHouse) -> None:
    async with open_house(RestartPolicy(backoff=30, backoff_limit=30)) as house:
        session, _ = await created(house)
        crashing, waiting = await prompt(session, "/hang"), await prompt(session, "/hang")
        kill_agent(session)
        assert (await ended(crashing)).outcome == "failed"
        with pytest.raises(AgentUnavailable) as refused:
            await prompt(session, "hello")
        assert refused.value.retry_after is not None
        assert waiting.state == "queued"
        assert await cancel(session) == (waiting.id,)
        assert (await ended(waiting)).outcome == "cancelled"


async def test_an_agent_that_is_given_up_fails_those_that_wait(open_house: OpenHouse) -> None:
    async with open_house(RestartPolicy(intensity=0)) as house:
        session, watch = await created(house)
        crashing, waiting = await prompt(session, "/hang"), await prompt(session, "hello")
        kill_agent(session)
        assert (await ended(crashing)).outcome == "failed"
        assert (await ended(waiting)).outcome == "failed"
        assert problem(waiting) == "agent_unavailable"
        await watch.until("_sandboxagent/agent/failed")
        with pytest.raises(AgentUnavailable, match="restart"):
            await prompt(session, "hello")


async def test_a_prompt_to_a_session_that_sleeps_wakes_it(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        await said(session, "the word is plum")
        name = session.log.row.id
    async with open_house() as house:
        session = house.sessions.get(name)
        assert (session.state, session.setup.native) == ("stopped", True)
        assert "plum" in await said(session, "/recite")
        assert session.incarnation == 2


async def test_the_same_key_is_the_same_turn(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        found: list[Turn] = []

        async def ask() -> None:
            found.append(await prompt(session, "hello", key="k"))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        await ended(found[0])
        await ask()
        assert len(set(map(id, found))) == 1
        with pytest.raises(IdempotencyConflict):
            await prompt(session, "something else", key="k")
        assert await said(session, "/recite") == "earlier prompts: 1\n1. [user] hello"
        await prompt(session, "/hang", key="open")
        await watch.until(lambda told: "/hang" in json.dumps(told.message))
        name, first = session.log.row.id, found[0]
    async with open_house() as house:
        session = house.sessions.get(name)
        again = await prompt(session, "hello", key="k")
        assert (again.id, again.seq, again.state) == (first.id, first.seq, "ended")
        assert (again.outcome, again.stop_reason) == ("completed", "end_turn")
        assert await ended(again) is again
        assert (await prompt(session, "/hang", key="open")).outcome == "failed"
        with pytest.raises(IdempotencyConflict):
            await prompt(session, "something else", key="k")
        assert session.state == "stopped"


async def test_turns_that_were_open_when_the_daemon_died_have_failed_and_say_so_once(tmp_path: Path) -> None:
    crashed, folder = tmp_path / "crashed", tmp_path / "first"
    crashed.mkdir()
    folder.mkdir()
    async with open_house(folder, QUICK) as house:
        session, watch = await created(house)
        turns = [await prompt(session, "/stream 1\n/hang"), await prompt(session, "hello", key="k")]
        await watch.until(starts)
        name = session.log.row.id
        # What a killed daemon would leave: its files as they are now.
        for file in ("journal.db", "journal.db-wal"):
            shutil.copy(folder / file, crashed)
    for _ in range(2):
        async with open_house(crashed, QUICK) as house:
            session = house.sessions.get(name)
            watch = Watch(session)
            await watch.until("_adapter/agent_exited")
            await said(session, "on we go")
            while watch.told[-1].seq < session.log.head:
                await watch.next()
            failed = [end for end in ends(watch) if end["outcome"] == "failed"]
            assert [end["turnId"] for end in failed] == [turn.id for turn in turns]
            assert {end["error"]["type"] for end in failed} == {PREFIX + "daemon_died"}
            assert (await prompt(session, "hello", key="k")).outcome == "failed"
            assert session.memory.open_turns == []


async def test_closing_a_session_ends_what_is_open_and_takes_no_more_for_good(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        turns = [await prompt(session, "/hang"), await prompt(session, "hello")]
        for _ in range(2):
            await session.ref.ask(CloseSession())
        assert [(await ended(turn)).outcome for turn in turns] == ["failed", "failed"]
        assert {problem(turn) for turn in turns} == {"session_closed"}
        with trio.fail_after(LIMIT):
            await session.closed.wait()
        assert house.processes() == []
        with pytest.raises(SessionClosed):
            await prompt(session, "hello")
        await watch.until("_sandboxagent/session/closed")
        await watch.until("_adapter/agent_exited")
        name, head = session.log.row.id, session.log.head
    async with open_house() as house:
        session = house.sessions.get(name)
        assert (session.state, session.log.head) == ("closed", head)
        with pytest.raises(SessionClosed):
            await prompt(session, "hello")
        await house.sessions.delete(name)
        assert house.sessions.all() == []


async def test_a_session_that_is_deleted_tells_those_who_wait_for_its_turns(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        turns = [await prompt(session, "/hang"), await prompt(session, "hello")]
        with trio.fail_after(LIMIT):
            await house.sessions.delete(session.log.row.id)
        assert [(await ended(turn)).outcome for turn in turns] == ["failed", "failed"]
        assert house.processes() == []


async def test_a_daemon_that_shuts_down_fails_what_is_open(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        turns = [await prompt(session, "/hang"), await prompt(session, "hello")]
        await session.ref.tell(Close())
        assert [(await ended(turn)).outcome for turn in turns] == ["failed", "failed"]
        name = session.log.row.id
    async with open_house() as house:
        watch = Watch(house.sessions.get(name))
        while watch._cursor.behind or watch._unread:
            await watch.next()
        assert len(ends(watch)) == 2


@pytest.mark.parametrize("closing", ["delete", "close"])
async def test_a_cancel_that_is_overdue_brings_no_agent_back_to_a_session_that_is_closed(
    open_house: OpenHouse, closing: str
) -> None:
    async with open_house(limits={"cancel_within": 0.2}) as house:
        session, watch = await created(house)
        await prompt(session, "/ignore-sigterm\n/deaf")
        await watch.until(lambda told: "deaf from now on" in json.dumps(told.message))
        await cancel(session)
        with trio.fail_after(LIMIT):
            if closing == "delete":
                await house.sessions.delete(session.log.row.id)
            else:
                await session.ref.ask(CloseSession())
                await session.closed.wait()
        assert session.state == "closed"
