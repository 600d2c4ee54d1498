"""Changing the terms of a session: what was said last holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from actors.natively import created, said
from sandbox_actors.messages import Patch
from sandbox_actors.native import Changes

if TYPE_CHECKING:
    from actors.talking import OpenHouse


async def test_of_two_changes_in_a_row_the_agent_is_left_with_the_last(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        # The agent begins in normal, and has not said a word yet when it is to go back there.
        for changes in (Changes(mode="plan"), Changes(mode="normal")):
            await session.ref.ask(Patch(changes))
        assert json.loads(await said(session, "/state"))["mode"] == "normal"
        for changes in (Changes(config={"thought_level": "low"}), Changes(config={"thought_level": "high"})):
            await session.ref.ask(Patch(changes))
        assert json.loads(await said(session, "/state"))["thought_level"] == "high"
