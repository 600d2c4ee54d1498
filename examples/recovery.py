"""The server is killed while an agent works: one turn fails, the server comes back, the session goes on."""

from __future__ import annotations

import anyio

from sandbox_agent import Recovery, RecoveryEvent, SandboxAgent, Session
from sandbox_agent.events import MessageChunk, TurnEnded
from sandbox_agent.providers import LocalProvider


def tell(event: RecoveryEvent) -> None:
    print(f"recovery: {event.kind}, {event.failures} failures, attempt {event.attempt}")


async def kill_the_server(sandbox: SandboxAgent) -> None:
    """What a crash, or the kernel out of memory, would do: a command of the sandbox kills its own parent."""
    await sandbox.processes.start("sh", "-c", "sleep 0.2; kill -9 $PPID")


async def crashing_turn(sandbox: SandboxAgent, session: Session) -> None:
    begun = False
    async with session.stream("/stream 1000 200 50") as turn:  # would take 20 seconds
        async for event in turn:
            if isinstance(event, MessageChunk) and not begun:
                begun = True
                print("the agent is at work; the server is killed")
                await kill_the_server(sandbox)
        result = turn.result
    assert result.error is not None
    print(f"the turn has {result.outcome}: {result.error['type']}")


async def main() -> None:
    async with SandboxAgent.start(LocalProvider(), recovery=Recovery(interval=0.5), on_recovery=tell) as sandbox:
        session = await sandbox.create_session("mock")
        await session.prompt("Remember the milk")
        await crashing_turn(sandbox, session)

        result = await session.prompt("/recite")
        print(f"it still knows: {'Remember the milk' in result.text}")
        ended = (await session.page(kinds=["turn.ended"])).events
        print(f"turns: {[event.outcome for event in ended if isinstance(event, TurnEnded)]}")


if __name__ == "__main__":
    anyio.run(main)
