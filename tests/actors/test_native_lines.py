"""Native requests become lines of the agent's and of the journal's, however they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import Raw

from actors.natively import created, ended, said
from actors.talking import LIMIT
from sandbox_actors.envelope import notification, request
from sandbox_actors.messages import Prompt
from sandbox_actors.native import Setup

if TYPE_CHECKING:
    from actors.talking import OpenHouse

BLOCK = Raw(b'{\n  "type": "text",\r\n  "text": "plum\\nand pear"\n}')
SERVER = Raw(b'{"name": "x",\n "command": "true",\n "args": [], "env": []}')


async def test_a_prompt_of_several_lines_is_one_event(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house)
        with trio.fail_after(LIMIT):
            turn = await session.ref.ask(Prompt((BLOCK,), None, None))
        assert (await ended(turn)).outcome == "completed"
        prompted = await watch.until(lambda told: told.method == "session/prompt")
        assert prompted.params["prompt"] == [{"type": "text", "text": "plum\nand pear"}]
        assert "plum" in await said(session, "/recite")


async def test_servers_of_several_lines_reach_the_agent(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, watch = await created(house, Setup(mcp_servers=[SERVER]))
        opened = await watch.until(lambda told: told.method == "session/new")
        assert [server["name"] for server in opened.params["mcpServers"]] == ["x"]
        assert "earlier prompts" in await said(session, "/recite")


def test_what_is_made_here_is_one_line() -> None:
    for made in (request(Raw(b"1"), "m", {"raw": BLOCK}), notification("m", {"raw": BLOCK})):
        assert b"\n" not in made
        assert b"\r" not in made


async def test_the_journal_takes_no_envelope_that_is_more_than_a_line(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        before = session.log.next_seq
        with pytest.raises(ValueError, match="line feed"):
            session.journal.append(session.log, 1, b"n", [b"{\n}"])
        assert session.log.next_seq == before
