"""The same package under Trio: two sessions of one sandbox at work at the same time, and a turn that is cancelled."""

from __future__ import annotations

import trio

from sandbox_agent import SandboxAgent, Session
from sandbox_agent.events import TurnStarted
from sandbox_agent.providers import LocalProvider


async def work(session: Session, text: str) -> None:
    result = await session.prompt(text)
    print(f"{session.id}: {result.outcome}: {result.text}")


async def main() -> None:
    async with SandboxAgent.start(LocalProvider()) as sandbox:
        ann = await sandbox.create_session("mock", id="ann")
        bob = await sandbox.create_session("mock", id="bob")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, ann, "I am Ann's agent")
            nursery.start_soon(work, bob, "I am Bob's agent")

        async with ann.stream("/hang") as turn:  # to leave this block would not end the turn: the agent works on
            async for event in turn:
                if isinstance(event, TurnStarted):
                    await turn.cancel()
            print(f"Ann's second turn: {turn.result.outcome}")


if __name__ == "__main__":
    trio.run(main)
