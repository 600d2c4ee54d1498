"""Open permissions of real agents: each is listed, and the first valid answer of any client counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import Raw

from actors.permissions.asking import (
    ASK,
    REQUESTED,
    RESOLVED,
    agent_heard,
    answer,
    asks,
    everything,
    nothing_left,
    opened,
)
from sandbox_actors.errors import InvalidRequest, PermissionNotFound, PermissionResolved
from sandbox_actors.journal import Origin

if TYPE_CHECKING:
    from actors.talking import OpenHouse


async def test_an_open_permission_is_listed_until_somebody_answers(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, kind="execute", title="ls")
        requested = await watch.until(REQUESTED)
        (permission,) = client.session.permissions.pending()
        assert requested.params["permissionId"] == permission.id
        assert requested.params["toolCall"]["title"] == "ls"
        assert [option["optionId"] for option in requested.params["options"]] == ["yes", "ever", "no"]
        assert (requested.params["sessionId"], requested.params["kind"]) == (acp, "permission")
        asked = next(told for told in watch.told if told.method == ASK)
        assert (asked.origin, asked.seq + 1) == (Origin.AGENT, requested.seq)
        settled = await answer(client, permission.id, option="yes", by="client:somebody")
        assert (settled.outcome, settled.option_id, settled.by) == ("selected", "yes", "client:somebody")
        resolved = await watch.until(RESOLVED)
        assert resolved.params == {
            "permissionId": permission.id,
            "requestId": asked.message["id"],
            "sessionId": acp,
            "outcome": "selected",
            "optionId": "yes",
            "by": "client:somebody",
        }
        assert (await ended())["result"]["stopReason"] == "end_turn"
        assert client.session.permissions.get(permission.id).outcome == "selected"
        assert nothing_left(client)


async def test_of_ten_answers_at_once_one_wins_and_the_others_are_told_which(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, title="ls")
        id = (await watch.until(REQUESTED)).params["permissionId"]
        won: list[str] = []
        lost: list[PermissionResolved] = []

        async def try_to(number: int) -> None:
            try:
                option = "yes" if number % 2 else "no"
                won.append((await answer(client, id, option=option, by=f"client:{number}")).by or "")
            except PermissionResolved as resolved:
                lost.append(resolved)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(try_to, number)
        assert (len(won), len(lost)) == (1, 9)
        assert {resolved.by for resolved in lost} == set(won)
        assert {resolved.outcome for resolved in lost} == {"selected"}
        await ended()
        await watch.until(lambda told: told.message.get("id") == 3 and told.origin is Origin.AGENT)
        assert watch.methods(Origin.NOTICE).count(RESOLVED) == 1
        assert nothing_left(client)


async def test_an_answer_that_makes_no_sense_leaves_it_open(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, title="ls")
        id = (await watch.until(REQUESTED)).params["permissionId"]
        for wrong in (
            {},
            {"option": "maybe"},
            {"option": "yes", "outcome": "cancelled"},
            {"outcome": "selected"},
            {"outcome": "reject_always"},
            {"outcome": "cancelled", "content": Raw(b"{}")},
        ):
            with pytest.raises(InvalidRequest):
                await answer(client, id, **wrong)
        with pytest.raises(PermissionNotFound):
            await answer(client, "perm_none", option="yes")
        assert [permission.id for permission in client.session.permissions.pending()] == [id]
        await answer(client, id, outcome="reject_once")
        await ended()
        await everything(client, watch)
        assert '"optionId": "no"' in agent_heard(watch)[-1]


async def test_a_client_of_the_raw_wire_answers_with_its_own_bytes(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, title="ls")
        requested = await watch.until(REQUESTED)
        outcome = {"outcome": "selected", "optionId": "ever", "extra": 1.50}
        await client.say({"id": requested.params["requestId"], "result": {"outcome": outcome}})
        resolved = await watch.until(RESOLVED)
        assert (resolved.params["by"], resolved.params["optionId"]) == ("client", "ever")
        with pytest.raises(PermissionResolved) as late:
            await answer(client, requested.params["permissionId"], option="no")
        assert late.value.details == {"outcome": "selected", "by": "client", "optionId": "ever"}
        await ended()
        await watch.until(lambda told: told.message.get("id") == 3 and told.origin is Origin.AGENT)
        assert '"extra": 1.5' in agent_heard(watch)[-1]
        assert nothing_left(client)


async def test_a_raw_answer_that_comes_late_never_reaches_the_agent(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, title="ls")
        requested = await watch.until(REQUESTED)
        await answer(client, requested.params["permissionId"], option="no")
        head = client.session.log.next_seq
        await client.say({"id": requested.params["requestId"], "result": {"outcome": {"outcome": "cancelled"}}})
        await ended()
        told = [told for told in await everything(client, watch) if told.origin is Origin.CLIENT and told.seq >= head]
        assert told == []
