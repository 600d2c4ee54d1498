"""What settles a permission that nobody answers: a cancel, a crash, the end of its turn, session or daemon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec import Raw

from actors.permissions.asking import (
    ASK,
    OPTIONS,
    REQUESTED,
    RESOLVED,
    answer,
    asks,
    everything,
    nothing_left,
    opened,
)
from actors.talking import LIMIT, Client, prompt
from sandbox_actors.errors import InvalidRequest, PermissionResolved
from sandbox_actors.journal import Origin
from sandbox_actors.messages import CancelTurn, Patch, PermissionOverdue, Prompt
from sandbox_actors.native import Changes
from sandbox_actors.permissions import Policy
from sandbox_actors.permissions.book import OPEN_LIMIT

if TYPE_CHECKING:
    from actors.talking import OpenHouse


async def test_a_cancel_settles_what_the_turn_has_asked(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, title="ls")
        await watch.until(REQUESTED)
        await client.say({"method": "session/cancel", "params": {"sessionId": acp}})
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["outcome"], resolved["by"]) == ("cancelled", "cancel")
        # A client that does as ACP says answers all the same, and that hurts nobody.
        await client.say({"id": resolved["requestId"], "result": {"outcome": {"outcome": "cancelled"}}})
        assert (await ended())["result"]["stopReason"] == "cancelled"
        assert nothing_left(client)


async def test_a_cancel_settles_nothing_of_other_acp_sessions(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        other = str((await client.call("session/new", cwd="/code", mcpServers=[]))["sessionId"])
        ended = [await asks(client, one, title="ls") for one in (acp, other)]
        for _ in ended:
            await watch.until(REQUESTED)
        await client.say({"method": "session/cancel", "params": {"sessionId": acp}})
        await watch.until(RESOLVED)
        (left,) = client.session.permissions.pending()
        assert left.session_id == other
        await answer(client, left.id, option="yes")
        for one in ended:
            await one()
        assert nothing_left(client)


async def test_a_crash_settles_what_is_open_and_nobody_can_answer_it_any_more(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        other = str((await client.call("session/new", cwd="/code", mcpServers=[]))["sessionId"])
        await asks(client, acp, title="ls")
        id = (await watch.until(REQUESTED)).params["permissionId"]
        await client.start("session/prompt", **prompt(other, "/crash 3"))
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["permissionId"], resolved["outcome"], resolved["by"]) == (id, "cancelled", "crash")
        with pytest.raises(PermissionResolved):
            await answer(client, id, option="yes")
        await watch.until("_sandboxagent/agent/restarted")
        assert watch.methods(Origin.NOTICE).count(RESOLVED) == 1
        assert nothing_left(client)


async def test_the_end_of_a_session_settles_what_is_open(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        await asks(client, acp, title="ls")
        await watch.until(REQUESTED)
        await house.sessions.close()
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["outcome"], resolved["by"]) == ("cancelled", "close")
        assert client.session.memory.permissions == []


async def test_what_a_daemon_left_open_that_died_is_settled_by_the_next_one(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        await asks(client, acp, title="ls")
        id = (await watch.until(REQUESTED)).params["permissionId"]
        left = client.session.memory.dump()
        row = client.session.log.row
        await house.sessions.close()
        house.journal.remember(client.session.log, left)  # as if the daemon had been killed before
        assert row.id == "s"
    async with open_house() as house:
        session = house.sessions.get("s")
        client, watch = Client(session), type(watch)(session)
        told = await everything(client, watch)
        by = [one.params["by"] for one in told if one.method == RESOLVED and one.params["permissionId"] == id]
        assert by == ["close", "crash"]  # the first is of the daemon that was closed in earnest
        assert nothing_left(client)


def line(**message: object) -> dict[str, str]:
    """What makes the scripted agent write a message of its own."""
    return {"text": json.dumps({"jsonrpc": "2.0", **message}) + "\n"}


def question(id: object, session_id: str | None = "acp", **params: object) -> dict[str, str]:
    return line(id=id, method=ASK, params={"sessionId": session_id, "options": OPTIONS, **params})


async def received(client: Client, id: object) -> list[Any]:
    """The answers that the scripted agent has got to a question."""
    lines = [json.loads(text) for text in await client.call("received")]
    return [message for message in lines if message.get("id") == id and "method" not in message]


async def test_a_turn_that_ends_takes_what_it_has_asked_along(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        ended = await client.start("session/prompt", **prompt("acp", "hello"))
        await client.call("print", **question("q"))
        await client.call("print", **question("other", "another"))
        await watch.until(REQUESTED)
        await client.call("release")
        await ended()
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["requestId"], resolved["outcome"], resolved["by"]) == ("q", "cancelled", "turn_ended")
        assert [left.session_id for left in client.session.permissions.pending()] == ["another"]
        assert await received(client, "q") == [
            {"jsonrpc": "2.0", "id": "q", "result": {"outcome": {"outcome": "cancelled"}}}
        ]


async def test_an_agent_takes_back_what_it_has_asked(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("print", **question(7))
        await watch.until(REQUESTED)
        await client.call("print", **line(method="$/cancel_request", params={"requestId": "7"}))
        assert client.session.permissions.any_open  # that was another one
        await client.call("print", **line(method="$/cancel_request", params={"requestId": 7}))
        assert (await watch.until(RESOLVED)).params["by"] == "agent"
        assert len(await received(client, 7)) == 1
        assert nothing_left(client)


async def test_a_second_question_of_one_id_takes_the_place_of_the_first(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        for _ in range(2):
            await client.call("print", **question("q"))
        first = (await watch.until(RESOLVED)).params
        assert first["by"] == "replaced"
        (left,) = client.session.permissions.pending()
        assert left.id != first["permissionId"]
        await answer(client, left.id, option="yes")
        assert len(await received(client, "q")) == 1
        assert nothing_left(client)


async def test_of_too_many_questions_the_oldest_are_cancelled(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        for number in range(OPEN_LIMIT + 2):
            await client.call("print", **question(f"q{number}"))
        resolved = [(await watch.until(RESOLVED)).params for _ in range(2)]
        assert [one["requestId"] for one in resolved] == ["q0", "q1"]
        assert {one["by"] for one in resolved} == {"overflow"}
        assert len(client.session.permissions.pending()) == len(client.session.memory.permissions) == OPEN_LIMIT


@pytest.mark.parametrize(
    "params", [None, [], {}, {"options": "yes", "toolCall": []}, {"options": [1, {"optionId": 2}]}]
)
async def test_a_question_that_is_none_can_be_cancelled_all_the_same(open_house: OpenHouse, params: object) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("print", **line(id="q", method=ASK, params=params))
        id = (await watch.until(REQUESTED)).params["permissionId"]
        with pytest.raises(InvalidRequest):
            await answer(client, id, option="yes")
        await answer(client, id, outcome="cancelled")
        assert len(await received(client, "q")) == 1
        assert nothing_left(client)


async def test_a_native_cancel_settles_what_its_turn_has_asked(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        text = f"/ask-client {ASK} {json.dumps({'options': OPTIONS, 'toolCall': {'toolCallId': 't'}})}"
        content = (Raw(json.dumps({"type": "text", "text": text}).encode()),)
        turn = await client.session.ref.ask(Prompt(content, acp_session=acp))
        await watch.until(REQUESTED)
        await client.session.ref.ask(CancelTurn())
        assert (await watch.until(RESOLVED)).params["by"] == "cancel"
        with trio.fail_after(LIMIT):
            assert (await turn.ended.wait()).outcome == "cancelled"
        assert nothing_left(client)


async def test_a_timeout_that_was_due_under_another_policy_settles_nothing(open_house: OpenHouse) -> None:
    """Its message may be in the mailbox already when the policy changes."""
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=Policy(timeout=1000))
        ended = await asks(client, acp, title="ls")
        id = (await watch.until(REQUESTED)).params["permissionId"]
        for policy in (Policy(timeout=1000), Policy(timeout=2000), Policy()):
            await client.session.ref.tell(PermissionOverdue(id))
            await client.session.ref.ask(Patch(Changes(policy=policy)))
            assert [permission.id for permission in client.session.permissions.pending()] == [id]
        await answer(client, id, option="yes")
        await ended()
        assert nothing_left(client)
