"""What a later daemon still knows of a session's turns."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import Raw

from actors.natively import cancel, created, ended, prompt, said
from actors.talking import QUICK, open_house
from sandbox_actors.errors import TurnNotFound
from sandbox_actors.kept_turns import AGENTS_WORDS, KeptTurn
from sandbox_actors.memory import Memory
from sandbox_actors.native_turns import RECENT, Turn

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import OpenHouse
    from sandbox_actors.session import Session


def told(session: Session) -> list[Any]:
    """What can be told of the turns that have ended."""
    return [msgspec.json.decode(msgspec.json.encode(KeptTurn.of(turn))) for turn in session.turns.recent]


async def test_a_later_daemon_knows_each_turn_as_it_was(open_house: OpenHouse) -> None:
    async with open_house(limits={"cancel_within": 0.2}) as house:
        session, watch = await created(house)
        await said(session, "hello")
        await ended(await prompt(session, "/error -32603 the model is away"))
        await prompt(session, "/deaf")
        await watch.until(lambda told: "deaf from now on" in json.dumps(told.message))
        await cancel(session)
        assert (await ended(session.turns.open[0])).forced
        before, name = told(session), session.log.row.id
        assert [turn["outcome"] for turn in before] == ["completed", "failed", "cancelled"]
    for _ in range(2):
        async with open_house() as house:
            session = house.sessions.get(name)
            assert told(session) == before
            turn = session.turns.get(before[1]["id"])
            assert (turn.state, turn.content, await ended(turn)) == ("ended", (), turn)
            assert turn.started_ms is not None
            assert turn.ended_ms is not None
            assert turn.created_ms <= turn.started_ms <= turn.ended_ms


async def test_turns_that_were_open_are_known_with_what_was_known_when_the_daemon_died(tmp_path: Path) -> None:
    crashed, folder = tmp_path / "crashed", tmp_path / "first"
    crashed.mkdir()
    folder.mkdir()
    async with open_house(folder, QUICK) as house:
        session, watch = await created(house)
        await said(session, "hello")
        running, queued = await prompt(session, "/stream 1\n/hang"), await prompt(session, "hello")
        await watch.until(lambda told: "#1/1" in json.dumps(told.message))
        name = session.log.row.id
        for file in ("journal.db", "journal.db-wal"):
            shutil.copy(folder / file, crashed)
    for _ in range(2):
        async with open_house(crashed, QUICK) as house:
            turns = house.sessions.get(name).turns
            assert [turn.outcome for turn in turns.recent] == ["completed", "failed", "failed"]
            for turn, died in zip(turns.recent[1:], (running, queued), strict=True):
                assert (turn.id, turn.seq, turn.created_ms) == (died.id, died.seq, died.created_ms)
                assert (turn.acp_session, turn.started_ms) == (died.acp_session, died.started_ms)
                assert turn.ended_ms is not None
                assert turn.error is not None
                assert str(turn.error["type"]).endswith(":daemon_died")
            assert turns.open == ()


async def test_only_the_newest_are_kept(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session, _ = await created(house)
        turns = [await ended(await prompt(session, "/silent")) for _ in range(RECENT + 3)]
        assert len(session.memory.ended_turns) == RECENT
        name = session.log.row.id
    async with open_house() as house:
        session = house.sessions.get(name)
        assert [turn.id for turn in session.turns.recent] == [turn.id for turn in turns[3:]]
        with pytest.raises(TurnNotFound):
            session.turns.get(turns[2].id)


def test_what_an_agent_says_too_much_of_does_not_swell_what_is_kept() -> None:
    long = "x" * (AGENTS_WORDS + 1)
    error: dict[str, object] = {
        "type": "urn:x",
        "detail": long,
        "code": Raw(b"7"),
        "data": Raw(b'"%b"' % long.encode()),
    }
    turn = Turn("t", 1, 2, acp_session=long, state="ended", outcome="failed", stop_reason=long, error=error)
    turn.usage = Raw(b'"%b"' % long.encode())
    memory = Memory(ended_turns=[KeptTurn.of(turn)])
    assert len(memory.dump()) < 2 * AGENTS_WORDS
    (again,) = (kept.turn() for kept in Memory.load(memory.dump()).ended_turns)
    assert (again.acp_session, again.stop_reason, again.usage) == (None, None, None)
    assert again.error is not None
    assert again.error["type"] == "urn:x"
    assert long.startswith(str(again.error["detail"]))


def test_no_depth_of_what_an_agent_says_makes_what_is_kept_unreadable() -> None:
    nested = b"[" * (AGENTS_WORDS // 2 - 20) + b"]" * (AGENTS_WORDS // 2 - 20)
    turn = Turn("t", 1, 2, state="ended", outcome="failed", error={"type": "x", "detail": "", "data": Raw(nested)})
    turn.usage = Raw(nested)
    memory = Memory(ended_turns=[KeptTurn.of(turn)])
    assert len(memory.dump()) > 2 * len(nested)
    assert Memory.load(memory.dump()).dump() == memory.dump()
