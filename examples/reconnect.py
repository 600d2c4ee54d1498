"""An application that ends and comes back: all it keeps is three words, and it misses no event."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from sandbox_agent import SandboxAgent
from sandbox_agent.events import Event, TurnEnded
from sandbox_agent.providers import LocalProvider


@dataclass(frozen=True, slots=True)
class Kept:
    """What an application stores before it ends."""

    sandbox_id: str
    session_id: str
    epoch: str
    seq: int


async def first_life() -> Kept:
    async with SandboxAgent.start(LocalProvider(), on_exit="pause") as sandbox:
        assert sandbox.id is not None
        session = await sandbox.create_session("mock")
        async with session.events() as events:
            print((await session.prompt("My name is Ann")).text)
            async for event in events:
                if isinstance(event, TurnEnded):
                    break
            kept = Kept(sandbox.id, session.id, events.epoch or "", events.seq or 0)
        await session.prompt("Nobody has read this yet")
        return kept


async def second_life(kept: Kept) -> None:
    async with SandboxAgent.start(LocalProvider(), sandbox_id=kept.sandbox_id, on_exit="destroy") as sandbox:
        session = await sandbox.session(kept.session_id)
        async with session.events(kept.seq, epoch=kept.epoch, follow=False) as events:
            missed = [event.kind async for event in events if isinstance(event, Event)]
        print(f"missed meanwhile: {missed.count('turn.ended')} turn")
        print(f"the agent remembers: {'My name is Ann' in (await session.prompt('/recite')).text}")


async def main() -> None:
    kept = await first_life()
    print(f"the application ends, and keeps {kept.sandbox_id}")
    await second_life(kept)


if __name__ == "__main__":
    anyio.run(main)
