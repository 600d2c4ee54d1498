"""Agents that are ended while there is nothing to do, and agents that are restarted by request."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from actors.natively import cancel, created, ended, ends, prompt, said, starts, text
from actors.talking import LIMIT, Client, Watch
from actors.talking import prompt as raw_prompt
from sandbox_actors.errors import AgentUnavailable, SessionBusy, SessionClosed
from sandbox_actors.messages import CloseSession, Hibernate, IdleOverdue, MakeRoom, Patch, Prompt, Restart
from sandbox_actors.native import Changes, Setup
from sandbox_supervisor import RestartPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import House, OpenHouse
    from sandbox_actors.session import Session

SOON = 0.02

STARTED = "_sandboxagent/turn/started"

LATER = RestartPolicy(intensity=1, backoff=60, backoff_limit=60)
"""After a crash an agent is away for longer than any test."""


async def hibernated(watch: Watch) -> dict[str, Any]:
    """What is told of it, when the agent's process has ended."""
    told = await watch.until("_sandboxagent/agent/hibernated")
    await watch.until("_adapter/agent_exited")
    return told.params


async def raw(house: House) -> tuple[Client, Watch, str]:
    """A session of a client of the raw wire, with one turn."""
    client, watch = await house.open(agent="mock")
    await client.call("initialize", protocolVersion=1)
    acp: str = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
    await client.call("session/prompt", **raw_prompt(acp, "the word is plum"))
    return client, watch, acp


async def heard(session: Session) -> None:
    """All messages that were sent to it before have been dealt with."""
    with trio.fail_after(LIMIT):
        await session.ref.ask(Patch(Changes(title="heard")))


# -- idle


async def test_an_idle_agent_is_ended_and_the_next_prompt_wakes_it_with_all_that_was_said(
    open_house: OpenHouse,
) -> None:
    async with open_house(limits={"idle_limit": 0.2}) as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        told = await hibernated(watch)
        assert told["reason"] == "idle"
        assert told["idleMs"] >= 200
        assert (session.state, session.pid, house.processes()) == ("stopped", None, [])
        assert session.timers.names() == []
        assert "plum" in await said(session, "/recite")
        assert (session.state, session.incarnation) == ("ready", 2)


async def test_a_session_has_a_limit_of_its_own_which_can_be_changed(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        assert session.timers.names() == []  # the daemon ends nobody unasked
        await session.ref.ask(Patch(Changes(idle_limit=60)))
        assert session.timers.names() == ["idle"]
        await session.ref.ask(Patch(Changes(idle_limit=0)))
        assert session.timers.names() == []
        await session.ref.ask(Patch(Changes(idle_limit=SOON)))
        assert (await hibernated(watch))["reason"] == "idle"


async def test_zero_means_never_whatever_the_daemon_does(open_house: OpenHouse) -> None:
    async with open_house(limits={"idle_limit": SOON}) as house:
        other, watch = await created(house)
        session, _ = await created(house, Setup(idle_limit=0))
        await hibernated(watch)
        assert (other.state, session.state) == ("stopped", "ready")
        assert session.timers.names() == []


async def test_an_agent_that_works_for_longer_than_the_limit_is_not_ended_before_it_is_done(
    open_house: OpenHouse,
) -> None:
    async with open_house(limits={"idle_limit": 0.05}) as house:
        session, watch = await created(house)
        turn = await ended(await prompt(session, "/sleep 0.4"))
        assert turn.outcome == "completed"
        await hibernated(watch)
        methods = [told.method for told in watch.told]
        started = methods.index("_sandboxagent/turn/started")
        assert "_sandboxagent/agent/hibernated" not in methods[started : methods.index("_sandboxagent/turn/ended")]


async def test_a_session_of_a_raw_client_hibernates_and_its_next_request_is_answered(open_house: OpenHouse) -> None:
    async with open_house(limits={"idle_limit": 0.1}) as house:
        client, watch, acp = await raw(house)
        await hibernated(watch)
        assert (await client.call("session/prompt", **raw_prompt(acp, "/recite")))["stopReason"] == "end_turn"
        recited = await watch.until(lambda told: "earlier prompts" in json.dumps(told.message))
        assert "plum" in json.dumps(recited.message)


async def test_what_is_open_keeps_an_agent_awake(open_house: OpenHouse, tmp_path: Path) -> None:
    command = json.dumps({"command": "/bin/sh", "args": ["-c", "read line < lock"], "cwd": str(tmp_path)})
    os.mkfifo(tmp_path / "lock")
    async with open_house(serving=True, limits={"idle_limit": 1000.0}) as house:
        client, watch, acp = await raw(house)
        session = client.session

        async def stays() -> None:
            session.ref.offer(MakeRoom())
            session.ref.offer(IdleOverdue())
            await heard(session)
            assert session.state == "ready"
            assert session.resting.idle_since is None

        # A question that nobody answers, and the prompt it belongs to.
        asked = await client.start("session/prompt", **raw_prompt(acp, "/permission"))
        question = await watch.until("session/request_permission")
        await stays()
        with pytest.raises(SessionBusy):
            await session.ref.ask(Hibernate())
        await client.say({"id": question.message["id"], "result": {"outcome": {"outcome": "cancelled"}}})
        await asked()
        # A command of the agent's that runs while no turn does.
        await client.call("session/prompt", **raw_prompt(acp, f"/ask-client terminal/create {command}"))
        await stays()
        # With a word of somebody's it is ended all the same.
        await session.ref.ask(Hibernate())
        assert (await hibernated(watch))["reason"] == "requested"
    assert house.commands.all() == []


# -- by request


async def test_who_asks_for_it_ends_an_agent_that_has_nothing_to_do(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        turn = await prompt(session, "/hang")
        await watch.until(STARTED)
        with pytest.raises(SessionBusy):
            await session.ref.ask(Hibernate())
        await cancel(session, turn.id)
        await ended(turn)
        await session.ref.ask(Hibernate())
        assert (await hibernated(watch))["reason"] == "requested"
        await session.ref.ask(Hibernate())  # it sleeps already
        assert session.state == "stopped"
        await session.ref.ask(CloseSession())
        with pytest.raises(SessionClosed):
            await session.ref.ask(Hibernate())


async def test_a_crashed_agent_does_not_hibernate(open_house: OpenHouse) -> None:
    async with open_house(LATER) as house:
        session, watch = await created(house)
        await prompt(session, "/crash")
        await watch.until("_sandboxagent/agent/restarting")
        with pytest.raises(AgentUnavailable):
            await session.ref.ask(Hibernate())


@pytest.mark.parametrize("native", [True, False])
async def test_what_is_asked_while_the_agent_is_still_being_ended_is_answered_by_the_next(
    open_house: OpenHouse, native: bool
) -> None:
    async with open_house() as house:
        client, watch, acp = await raw(house)
        session = client.session
        # It takes the whole ladder to end this one.
        await client.call("session/prompt", **raw_prompt(acp, "/ignore-sigterm"))
        await session.ref.ask(Hibernate())
        if native:
            turn = await prompt(session, "/recite")
            assert session.pid is not None
            assert (await ended(turn)).outcome == "completed"
        else:
            answer = await client.start("session/prompt", **raw_prompt(acp, "/recite"))
            assert session.pid is not None
            assert (await answer())["result"]["stopReason"] == "end_turn"
        recited = await watch.until(lambda told: "earlier prompts" in json.dumps(told.message))
        assert "plum" in json.dumps(recited.message)
        assert session.incarnation == 2


# -- restart


async def test_a_restart_fails_what_runs_and_what_waits_goes_on(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        runs, waits = await prompt(session, "so far\n/hang"), await prompt(session, "/recite")
        await watch.until(lambda told: told.params["turnId"] == runs.id if told.method == STARTED else False)
        await watch.until(starts)
        await session.ref.ask(Restart())
        await ended(runs)
        assert (runs.outcome, waits.state) == ("failed", "queued")
        assert runs.error is not None
        assert runs.error["type"] == "urn:sandbox-agent:error:restarted"
        assert (await ended(waits)).outcome == "completed"
        assert session.incarnation == 2
        failed = await watch.until("_sandboxagent/turn/failed")
        assert failed.params["reason"] == "restarted"
        await watch.until("_sandboxagent/agent/restarted")
        assert [end["outcome"] for end in ends(watch)] == ["completed", "failed"]


async def test_raw_clients_are_told_of_a_restart_and_what_they_ask_from_then_on_is_answered(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        client, watch, acp = await raw(house)
        hangs = await client.start("session/prompt", **raw_prompt(acp, "/ignore-sigterm\n/deaf"))
        await watch.until(lambda told: "deaf from now on" in json.dumps(told.message))
        await client.session.ref.ask(Restart())
        # The same id again: the answer is to this one, not to what the old agent had been asked.
        asked = {"id": 4, "method": "session/prompt", "params": raw_prompt(acp, "/recite")}
        recites = (await client.say(asked)).answer
        assert recites is not None
        assert (await hangs())["error"]["data"]["type"] == "urn:sandbox-agent:error:restarted"
        with trio.fail_after(LIMIT):
            assert json.loads(await recites.wait())["result"]["stopReason"] == "end_turn"


async def test_an_agent_may_be_restarted_while_it_comes_up(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        await session.ref.ask(Hibernate())
        await hibernated(watch)
        turn = session.ref.request(Prompt(text("/recite")))
        for _ in range(3):
            await session.ref.ask(Restart())
        with trio.fail_after(LIMIT):
            assert (await ended(await turn.wait())).outcome == "completed"
        await watch.until(lambda told: "plum" in json.dumps(told.message) and told.method == "session/update")


async def test_a_restart_does_not_wait_for_the_delay_after_a_crash_and_forgets_the_crashes(
    open_house: OpenHouse,
) -> None:
    async with open_house(LATER) as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        for _ in range(3):  # the second crash in a row would be the last
            await prompt(session, "/crash")
            await watch.until("_sandboxagent/agent/restarting")
            assert session.state == "backoff"
            await session.ref.ask(Restart())
            await watch.until("_sandboxagent/agent/restarted")
        assert "plum" in await said(session, "/recite")
        assert session.incarnation == 4


async def test_an_agent_that_was_given_up_can_be_restarted(open_house: OpenHouse) -> None:
    async with open_house(RestartPolicy(intensity=0)) as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        for _ in range(2):
            await prompt(session, "/crash")
            await watch.until("_sandboxagent/agent/failed")
            assert session.state == "failed"
            await session.ref.ask(Restart())
            await watch.until("_sandboxagent/agent/restarted")
        assert "plum" in await said(session, "/recite")


async def test_a_session_that_sleeps_is_woken_by_a_restart_and_a_closed_one_is_not(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        await session.ref.ask(Hibernate())
        await session.ref.ask(Restart())
        await watch.until("_sandboxagent/agent/restarted")
        assert session.state == "ready"
        await session.ref.ask(CloseSession())
        with pytest.raises(SessionClosed):
            await session.ref.ask(Restart())


async def test_a_session_that_is_closed_in_its_backoff_has_no_more_agents(open_house: OpenHouse) -> None:
    async with open_house(RestartPolicy(backoff=0.05, backoff_limit=0.05), limits={"idle_limit": 1000.0}) as house:
        session, watch = await created(house)
        await prompt(session, "/crash")
        await watch.until("_adapter/agent_exited")
        await session.ref.ask(CloseSession())
        with trio.fail_after(LIMIT):
            await session.closed.wait()
        assert session.timers.names() == []
        assert (session.state, session.incarnation, house.processes()) == ("closed", 1, [])
