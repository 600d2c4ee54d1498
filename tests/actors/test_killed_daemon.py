"""What a daemon leaves behind that is killed between two steps, and what the next one makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.natively import created, said
from actors.session_rules import Rules
from actors.talking import LIMIT, Client, Watch, open_house, prompt
from sandbox_actors.berths import Berths
from sandbox_actors.messages import CloseSession, Patch
from sandbox_actors.native import Changes
from support.journal import copied

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_a_client_was_told_is_done_no_death_takes_back(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("first", "made", "changed", "closed")]
    for home in homes:
        home.mkdir()
    first, *copies = [home / "journal.db" for home in homes]
    async with open_house(homes[0], MOCK_AGENT_HOME=str(tmp_path / "mock")) as house:
        session, _ = await created(house)
        await trio.to_thread.run_sync(copied, first, copies[0])
        main = session.memory.main
        assert main is not None
        await session.ref.ask(Patch(Changes(title="mine", mode="plan")))
        await trio.to_thread.run_sync(copied, first, copies[1])
        await session.ref.ask(CloseSession())
        await trio.to_thread.run_sync(copied, first, copies[2])
    found: list[tuple[str | None, str | None, bool]] = []
    for home in homes[1:]:
        async with open_house(home, MOCK_AGENT_HOME=str(tmp_path / "mock")) as house:
            (session,) = house.sessions.all()
            found.append((session.memory.main, session.setup.title, session.state == "closed"))
    assert found == [(main, None, False), (main, "mine", False), (main, "mine", True)]


async def test_a_prompt_that_waited_for_its_agent_has_an_end_and_holds_up_no_other(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for home in (before, after):
        home.mkdir()
    async with open_house(before, limits={"berths": Berths(1)}, MOCK_AGENT_HOME=str(tmp_path / "mock")) as house:
        session, _ = await created(house)
        other, _ = await created(house)
        # It has the only berth now, and takes its time to leave it.
        await said(other, "/ignore-sigterm")
        await Client(session).start("session/prompt", **prompt(str(session.memory.main), "are you there?"))
        await house.journal.flush()
        assert (session.state, session.pid) == ("starting", None)
        await trio.to_thread.run_sync(copied, before / "journal.db", after / "journal.db")
    async with open_house(after, MOCK_AGENT_HOME=str(tmp_path / "mock")) as house:
        session = house.sessions.get(session.log.row.id)
        assert session.memory.turns == []
        assert await said(session, "hello") == "hello"
        watch, rules = Watch(session), Rules()
        with trio.fail_after(LIMIT):
            while watch.told == [] or watch.told[-1].seq < session.log.head:
                await watch.next()
        rules.read(watch.told)
        rules.check_settled()
        assert "_sandboxagent/turn/failed" in [told.method for told in watch.told]
