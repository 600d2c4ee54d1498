"""Elicitations: what an agent asks a person that is no permission."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from actors.permissions.asking import (
    REQUESTED,
    RESOLVED,
    agent_heard,
    answer,
    everything,
    nothing_left,
    opened,
)
from actors.talking import prompt
from sandbox_actors.errors import InvalidRequest
from sandbox_actors.messages import Patch
from sandbox_actors.native import Changes
from sandbox_actors.permissions import Policy

if TYPE_CHECKING:
    from actors.talking import OpenHouse


async def test_an_elicitation_is_answered_with_an_action_and_content(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=Policy("allow_all"))
        form = {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object"}}
        script = f"/ask-client elicitation/create {json.dumps(form)}"
        ended = await client.start("session/prompt", **prompt(acp, script))
        requested = (await watch.until(REQUESTED)).params
        assert (requested["kind"], requested["elicitation"]["message"]) == ("elicitation", "Who?")
        id = requested["permissionId"]
        for wrong in (
            {"option": "yes"},
            {"outcome": "cancelled"},
            {"outcome": "decline", "content": Raw(b"{}")},
            {"outcome": "accept", "content": Raw(b"[1]")},
        ):
            with pytest.raises(InvalidRequest):
                await answer(client, id, **wrong)
        await answer(client, id, outcome="accept", content=Raw(b'{"name":"Ada"}'))
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["outcome"], resolved["by"]) == ("accept", "client")
        await ended()
        await everything(client, watch)
        heard = json.loads(agent_heard(watch)[-1].removeprefix("answer: "))
        assert heard == {"action": "accept", "content": {"name": "Ada"}}
        assert nothing_left(client)


async def test_deny_all_declines_elicitations_and_a_timeout_cancels_them(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        script = '/ask-client elicitation/create {"message": "Who?"}'
        for policy, outcome, by in (
            (Policy("deny_all"), "decline", "policy:deny_all"),
            (Policy("allow_all", timeout=0.05, on_timeout="allow"), "cancel", "timeout"),
        ):
            await client.session.ref.ask(Patch(Changes(policy=policy)))
            ended = await client.start("session/prompt", **prompt(acp, script))
            resolved = (await watch.until(RESOLVED)).params
            assert (resolved["outcome"], resolved["by"]) == (outcome, by)
            await ended()
            assert nothing_left(client)


async def test_an_agent_tells_that_what_it_sent_somebody_to_is_complete(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        asked = {"mode": "url", "message": "Log in", "url": "https://example.org/", "elicitationId": "e1"}
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": asked})
        await client.call("print", text=text + "\n")
        requested = (await watch.until(REQUESTED)).params
        assert (requested["sessionId"], requested["elicitation"]["url"]) == (None, "https://example.org/")
        for id in ("e0", "e1"):
            assert client.session.permissions.any_open
            told = {"jsonrpc": "2.0", "method": "elicitation/complete", "params": {"elicitationId": id}}
            await client.call("print", text=json.dumps(told) + "\n")
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["outcome"], resolved["by"]) == ("accept", "agent")
        assert nothing_left(client)
