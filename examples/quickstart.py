"""A sandbox on this machine, a session in it, and one turn: first in one piece, then as it comes. Under asyncio."""

from __future__ import annotations

import asyncio

from sandbox_agent import SandboxAgent
from sandbox_agent.events import MessageChunk
from sandbox_agent.providers import LocalProvider


async def main() -> None:
    async with SandboxAgent.start(LocalProvider()) as sandbox:
        print(f"sandbox {sandbox.id} is up: {(await sandbox.health())['status']}")
        session = await sandbox.create_session("mock")  # "claude", "codex", … work the same, with an account

        result = await session.prompt("Hello there")
        print(f"{result.outcome}: {result.text}")

        async with session.stream("/stream 3 0") as turn:
            async for event in turn:
                if isinstance(event, MessageChunk):
                    print(f"event {event.seq}: {event.text.strip()}")
            print(f"the turn has ended: {turn.result.stop_reason}")
    print("the sandbox is destroyed")


if __name__ == "__main__":
    asyncio.run(main())
