"""Two backends and one session: the store keeps its events, and sees to it that only one of them acts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from sandbox_agent import SandboxAgent
from sandbox_agent.errors import LeaseHeld
from sandbox_agent.persistence import EventRecord, SessionKey, SqliteStore
from sandbox_agent.providers import LocalProvider


async def first_backend(provider: LocalProvider, store: SqliteStore) -> SessionKey:
    async with SandboxAgent.start(provider, store=store, owner="backend-1", on_exit="leave") as sandbox:
        assert sandbox.id is not None
        session = await sandbox.create_session("mock")
        print(f"backend-1: {(await session.prompt('Hello')).text}")

        async with SandboxAgent.start(provider, sandbox_id=sandbox.id, store=store, owner="backend-2") as other:
            try:
                await other.session(session.id)
            except LeaseHeld as held:
                print(f"backend-2 has to wait: {held.owner} has it")
        return SessionKey(sandbox.id, session.id)


async def second_backend(provider: LocalProvider, store: SqliteStore, key: SessionKey) -> None:
    sandbox_id, owner = key.sandbox, "backend-2"
    async with SandboxAgent.start(
        provider, sandbox_id=sandbox_id, store=store, owner=owner, on_exit="destroy"
    ) as sandbox:
        session = await sandbox.session(key.session)
        print(f"backend-2 goes on, as generation {session.generation}: {(await session.prompt('Thanks')).text}")


async def main() -> None:
    with TemporaryDirectory() as folder:
        provider = LocalProvider(Path(folder) / "sandboxes")
        async with SqliteStore.open(Path(folder) / "sessions.db") as store:
            key = await first_backend(provider, store)
            await second_backend(provider, store, key)

            # The sandbox is gone; what was said is not.
            entries = await store.events(key)
            kinds = [entry.record.kind for entry in entries if isinstance(entry.record, EventRecord)]
            print(f"stored: {len(entries)} events, {kinds.count('turn.ended')} turns")


if __name__ == "__main__":
    anyio.run(main)
