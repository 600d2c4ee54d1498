"""Who decides what an agent may do: a function of yours, a policy of the session, or somebody in another task."""

from __future__ import annotations

import anyio

from sandbox_agent import Permission, SandboxAgent, Session
from sandbox_agent.providers import LocalProvider


async def decide(permission: Permission) -> str:
    """Edits are fine, anything else is not."""
    call = permission.tool_call
    answer = "allow_once" if call["kind"] == "edit" else "reject_once"
    print(f"asked: {call['title']} ({call['kind']}) -> {answer}")
    return answer


async def watch(session: Session) -> None:
    """What a user interface does: show each question, and answer it some time later."""
    async with session.permission_requests() as requests:
        async for permission in requests:
            print(f"shown: {[option.name for option in permission.options]}")
            await session.answer(permission.permission_id, outcome="allow_once")


async def main() -> None:
    async with SandboxAgent.start(LocalProvider()) as sandbox:
        session = await sandbox.create_session("mock", on_permission=decide)
        print((await session.prompt("/write? notes.txt Written by an agent")).text)
        print((await session.prompt("/permission execute: Delete the database")).text)

        strict = await sandbox.create_session("mock", permission_policy="deny_all")
        print(f"by the policy: {(await strict.prompt('/permission edit: Change a file')).text}")

        shown = await sandbox.create_session("mock")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, shown)
            print(f"by a person: {(await shown.prompt('/permission fetch: Open a page')).text}")
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
