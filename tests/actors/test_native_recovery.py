"""What a native session's next incarnation knows, by what its agent can do; and what is told where it knows nothing."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from actors.natively import created, ended, ends, prompt, said, starts
from actors.talking import LIMIT, Client, Watch
from actors.talking import prompt as raw_prompt
from sandbox_actors.errors import InvalidRequest, SessionClosed
from sandbox_actors.journal import Origin
from sandbox_actors.messages import CloseSession, Patch
from sandbox_actors.native import Changes, Setup

if TYPE_CHECKING:
    from actors.talking import OpenHouse, Told
    from sandbox_actors.session import Session


async def crash(session: Session, watch: Watch) -> Told:
    """End the agent; gives what is told of the recovery."""
    assert session.pid is not None
    os.kill(session.pid, signal.SIGKILL)
    recovered = await watch.until("_sandboxagent/session/recovered")
    await watch.until("_sandboxagent/agent/restarted")
    return recovered


LADDER = [("resume,load", "resumed"), ("resume", "resumed"), ("load", "loaded"), ("none", "replayed")]


@pytest.mark.parametrize(("capabilities", "fidelity"), LADDER)
async def test_the_conversation_goes_on_whatever_the_agent_can(
    open_house: OpenHouse, capabilities: str, fidelity: str
) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES=capabilities) as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        recovered = await crash(session, watch)
        main = session.memory.main
        assert recovered.params == {"sessionId": main, "fidelity": fidelity, "incarnation": 2}
        assert "plum" in await said(session, "/recite")
        name = session.log.row.id
    async with open_house(MOCK_AGENT_CAPABILITIES=capabilities) as house:
        session = house.sessions.get(name)
        assert "plum" in await said(session, "/recite")
        assert session.memory.main == main


async def test_a_transcript_is_told_once_and_only_to_the_agent(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        await ended(await prompt(session, "/tool Look around"))
        await crash(session, watch)
        recited = await said(session, "/recite")
        assert "do not answer it" in recited
        assert "User: the word is plum" in recited
        assert "Agent: the word is plum" in recited
        assert "Tool: Look around (completed)" in recited
        added = await watch.until("_sandboxagent/context/added")
        assert added.params["sessionId"] == session.memory.main
        assert added.params["bytes"] > 100
        # What is recorded is the prompt that the client sent.
        prompts = [told for told in watch.told if told.method == "session/prompt"]
        assert [told.params["prompt"] for told in prompts][-1] == [{"type": "text", "text": "/recite"}]
        again = await said(session, "/recite")
        assert again.count("the word is plum") == recited.count("the word is plum")
        while watch.told[-1].seq < session.log.head:
            await watch.next()
        assert sum(told.method == "_sandboxagent/context/added" for told in watch.told) == 1


async def test_a_transcript_of_a_transcript_is_still_the_conversation(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        for _ in range(3):
            assert (await crash(session, watch)).params["fidelity"] == "replayed"
        await said(session, "and pear")
        await crash(session, watch)
        recited = await said(session, "/recite")
        assert recited.count("User: the word is plum") == recited.count("User: and pear") == 1
        assert recited.count("do not answer it") == 1


async def test_the_prompt_of_a_raw_client_takes_the_transcript_along_too(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        await crash(session, watch)
        client = Client(session)
        await client.call("session/prompt", **raw_prompt(str(session.memory.main), "/recite"))
        recited = await watch.until(lambda told: "earlier prompts" in json.dumps(told.message))
        assert "plum" in json.dumps(recited.message)
        assert "and do not follow" not in json.dumps([one.message for one in watch.told if one.origin is Origin.CLIENT])


async def test_an_interrupted_turn_is_in_the_transcript_and_says_so(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house)
        turn = await prompt(session, "so far so good\n/hang")
        await watch.until(starts)
        await crash(session, watch)
        assert (await ended(turn)).outcome == "failed"
        assert "Note: the agent's process ended here" in await said(session, "/recite")


async def test_without_a_limit_for_it_no_transcript_is_told(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none", limits={"transcript_limit": 0}) as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        assert (await crash(session, watch)).params["fidelity"] == "new"
        assert await said(session, "/recite") == "earlier prompts: 0"


async def test_where_nothing_was_said_there_is_nothing_to_tell(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house)
        assert (await crash(session, watch)).params["fidelity"] == "new"
        assert await said(session, "/recite") == "earlier prompts: 0"


async def test_a_transcript_that_was_not_told_yet_survives_the_daemon(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house)
        await said(session, "the word is plum")
        await crash(session, watch)
        name = session.log.row.id
    # The next agent has the session that was opened anew, in which nothing was ever said.
    async with open_house(MOCK_AGENT_CAPABILITIES="resume,load") as house:
        session = house.sessions.get(name)
        assert session.memory.sessions[str(session.memory.main)].owes_context
        assert "plum" in await said(session, "/recite")
        assert not session.memory.sessions[str(session.memory.main)].owes_context


@pytest.mark.parametrize("tells", ["modes,configOptions", "modes,models", "configOptions"])
async def test_mode_model_and_options_are_set_again_in_a_new_session(open_house: OpenHouse, tells: str) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none", MOCK_AGENT_TELLS=tells) as house:
        session, watch = await created(house, Setup(mode="plan"))
        main = str(session.memory.main)
        # Whoever set it: the client that made the session, or any other.
        client = Client(session)
        if "configOptions" in tells:
            await client.call("session/set_config_option", sessionId=main, configId="model", value="mock-fast")
            await client.call("session/set_config_option", sessionId=main, configId="thought_level", value="high")
        else:
            await client.call("session/set_model", sessionId=main, modelId="mock-fast")
        recovered = await crash(session, watch)
        assert "notSet" not in recovered.params
        state = json.loads(await said(session, "/state"))
        assert state["sessionId"] != main
        assert (state["mode"], state["model"]) == ("plan", "mock-fast")
        assert (state["thought_level"] == "high") == ("configOptions" in tells)
        view = session.memory_view().target
        assert view is not None
        assert (view.id, view.mode, view.model) == (main, "plan", "mock-fast")


async def test_what_a_client_changes_is_asked_of_the_agent_and_kept(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, watch = await created(house, Setup(title="one", tags={"a": "b"}))
        changes = Changes(mode="plan", model="mock-fast", config={"thought_level": "low"}, title=None, queue_limit=1)
        await session.ref.ask(Patch(changes))
        assert (session.setup.title, session.setup.tags, session.setup.queue_limit) == (None, {"a": "b"}, 1)
        updated = await watch.until("_sandboxagent/session/updated")
        assert updated.params == {
            "changes": {
                "mode": "plan",
                "model": "mock-fast",
                "config": {"thought_level": "low"},
                "title": None,
                "queueLimit": 1,
            }
        }
        state = json.loads(await said(session, "/state"))
        assert (state["mode"], state["model"], state["thought_level"]) == ("plan", "mock-fast", "low")
        await crash(session, watch)
        state = json.loads(await said(session, "/state"))
        assert (state["mode"], state["model"], state["thought_level"]) == ("plan", "mock-fast", "low")


async def test_what_the_agent_does_not_offer_is_refused_and_nothing_changes(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        for changes in (
            Changes(title="new", mode="warp"),
            Changes(title="new", model="huge"),
            Changes(title="new", config={"x": "y"}),
        ):
            with pytest.raises(InvalidRequest, match=r"it has|it can be"):
                await session.ref.ask(Patch(changes))
        assert session.setup.title is None
        await session.ref.ask(CloseSession())
        with pytest.raises(SessionClosed):
            await session.ref.ask(Patch(Changes(title="new")))


async def test_changes_of_a_session_that_sleeps_hold_when_it_wakes(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, _ = await created(house)
        name = session.log.row.id
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session = house.sessions.get(name)
        await session.ref.ask(Patch(Changes(mode="plan", turn_deadline=0.05)))
        assert session.state == "stopped"
        assert json.loads(await said(session, "/state"))["mode"] == "plan"
        turn = await ended(await prompt(session, "/hang"))
        assert turn.outcome == "cancelled"


async def test_a_session_that_was_never_opened_is_opened_when_it_is_prompted(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        name = session.log.row.id
        # What a daemon leaves that dies while the agent is still opening.
        session.memory.sessions.clear()
        session.memory.main = None
        session.remember()
    async with open_house() as house:
        session = house.sessions.get(name)
        assert await said(session, "hello") == "hello"
        assert session.memory.main is not None


async def test_one_that_cannot_be_opened_then_fails_its_prompts_and_may_be_tried_again(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house, Setup(env={"MOCK_AGENT_API_KEY": "enough"}))
        name = session.log.row.id
        session.memory.sessions.clear()
        session.memory.main = None
        session.remember()
    async with open_house(MOCK_AGENT_AUTH="1") as house:
        session = house.sessions.get(name)
        watch = Watch(session, session.log.head)
        for number in range(2):
            turns = [await prompt(session, "hello"), await prompt(session, "hello")]
            for turn in turns:
                await ended(turn)
                assert turn.error is not None
                assert turn.error["type"] == "urn:sandbox-agent:error:agent_auth_required"
            with trio.fail_after(LIMIT):
                while session.state != "stopped":  # noqa: ASYNC110 (the ladder of a stop sets no event of ours)
                    await trio.sleep(0.01)
            assert len(ends(watch)) == 2 * number
            await watch.until("_adapter/agent_exited")
        assert house.processes() == []
    async with open_house(MOCK_AGENT_AUTH="env") as house:
        assert await said(house.sessions.get(name), "hello") == "hello"


async def test_modes_that_the_next_agent_does_not_have_are_told(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        session, _ = await created(house, Setup(mode="plan"))
        name = session.log.row.id
    async with open_house(MOCK_AGENT_CAPABILITIES="none", MOCK_AGENT_TELLS="models") as house:
        session = house.sessions.get(name)
        watch = Watch(session, session.log.head)
        assert await said(session, "hello") == "hello"
        recovered = await watch.until("_sandboxagent/session/recovered")
        assert "mode" in recovered.params["notSet"]
