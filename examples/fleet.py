"""Five sandboxes for five tasks, two at a time: what one of them meets does not disturb the others."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from sandbox_agent import SandboxAgent, SandboxAgentError
from sandbox_agent.providers import LocalProvider

AT_A_TIME = 2
"""Sandboxes: as many as the machine, or the account, has room for."""

TASK_WITHIN = 120.0
"""Seconds for one task, the making of its sandbox included."""

TASKS = ("Fix the tests", "Write the docs", "/crash", "Bump the version", "Review the change")


async def work(provider: LocalProvider, limiter: anyio.CapacityLimiter, text: str, done: dict[str, str]) -> None:
    async with limiter:
        try:
            with anyio.fail_after(TASK_WITHIN):
                async with SandboxAgent.start(provider) as sandbox:
                    session = await sandbox.create_session("mock", tags={"task": text})
                    done[text] = (await session.prompt(text)).outcome
        except (SandboxAgentError, TimeoutError) as error:
            done[text] = f"no result: {error}"
        print(f"{text}: {done[text]}")


async def main() -> None:
    done: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        provider = LocalProvider(Path(folder))  # one provider looks after all
        limiter = anyio.CapacityLimiter(AT_A_TIME)
        async with anyio.create_task_group() as tasks:
            for text in TASKS:
                tasks.start_soon(work, provider, limiter, text, done)
    print(f"completed: {sum(outcome == 'completed' for outcome in done.values())} of {len(TASKS)}")


if __name__ == "__main__":
    anyio.run(main)
