"""Talking to native sessions in tests: as HTTP would, but for the HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Raw

from actors.talking import LIMIT, Watch
from sandbox_actors.messages import CancelTurn, Prompt
from sandbox_actors.native import Setup

if TYPE_CHECKING:
    from actors.talking import House, Told
    from sandbox_actors.native_turns import Turn
    from sandbox_actors.session import Session

__all__ = ["cancel", "created", "ended", "ends", "prompt", "said", "starts", "text"]


def text(words: str) -> tuple[Raw, ...]:
    """The content of a prompt that is one text."""
    return (Raw(json.dumps({"type": "text", "text": words}).encode()),)


async def created(house: House, setup: Setup | None = None, *, key: str | None = None) -> tuple[Session, Watch]:
    """A native session with the mock agent, and its events."""
    with trio.fail_after(LIMIT):
        session = await house.sessions.create(None, "mock", setup or Setup(), key)
    return session, Watch(session)


async def prompt(session: Session, words: str, *, key: str | None = None, to: str | None = None) -> Turn:
    with trio.fail_after(LIMIT):
        return await session.ref.ask(Prompt(text(words), key, to))


async def cancel(session: Session, turn: str | None = None) -> tuple[str, ...]:
    with trio.fail_after(LIMIT):
        return await session.ref.ask(CancelTurn(turn))


async def ended(turn: Turn) -> Turn:
    with trio.fail_after(LIMIT):
        return await turn.ended.wait()


async def said(session: Session, words: str) -> str:
    """What the agent says in a whole turn."""
    turn = await ended(await prompt(session, words))
    assert turn.outcome == "completed", turn
    watch = Watch(session, turn.seq)
    await watch.until(lambda told: told.method == "_sandboxagent/turn/ended" and told.params["turnId"] == turn.id)
    updates = [told.params["update"] for told in watch.told if told.method == "session/update"]
    return "".join(update.get("content", {}).get("text", "") for update in updates)


def ends(watch: Watch) -> list[dict[str, Any]]:
    """The ends of turns among the events that were read."""
    return [told.params for told in watch.told if told.method == "_sandboxagent/turn/ended"]


def starts(told: Told) -> bool:
    """Whether the agent has said something in a turn."""
    return told.method == "session/update" and "agent_message_chunk" in json.dumps(told.message)
