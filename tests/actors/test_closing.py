"""Closing a session for good, whatever it is about to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from actors.natively import created, prompt, said
from actors.session_rules import Rules
from actors.talking import LIMIT, Client, Watch
from actors.talking import prompt as raw_prompt
from sandbox_actors.berths import Berths
from sandbox_actors.errors import SessionClosed
from sandbox_actors.messages import CloseSession

if TYPE_CHECKING:
    from actors.talking import OpenHouse


async def test_what_waits_for_an_agent_that_is_about_to_be_started_has_an_end(open_house: OpenHouse) -> None:
    async with open_house(limits={"berths": Berths(1)}) as house:
        session, _ = await created(house)
        other, _ = await created(house)
        # It has the only berth now, and takes its time to leave it.
        await said(other, "/ignore-sigterm")
        turn = await prompt(session, "/hang")
        client = Client(session)
        answer = await client.start("session/prompt", **raw_prompt(str(session.memory.main), "/hang"))
        assert (session.state, session.pid) == ("starting", None)
        await session.ref.ask(CloseSession())
        assert "error" in await answer()
        with trio.fail_after(LIMIT):
            await turn.ended.wait()
        assert turn.outcome == "failed"
        await house.journal.flush()
        reader, rules = Watch(session), Rules()
        while rules.last != session.log.head:
            rules.read([await reader.next()])
        rules.check_settled()
        assert rules.closed
        with pytest.raises(SessionClosed):
            await client.start("session/prompt", **raw_prompt(str(session.memory.main), "hello"))
        assert session.memory.turns == []
