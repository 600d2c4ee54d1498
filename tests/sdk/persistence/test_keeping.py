"""A `SandboxAgent` with a store: sessions that are opened are owned, and what happens in them is kept."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent import SandboxAgent
from sandbox_agent.errors import (
    LeaseHeld,
    LeaseLost,
    PersistenceError,
    SandboxDestroyed,
    SessionNotFound,
    StaleGeneration,
    StoreUnavailable,
)
from sandbox_agent.persistence import EventRecord, PostgresStore, SessionKey, SqliteStore
from sandbox_agent.persistence.keeping import LAST_WITHIN
from sandbox_agent.providers import LocalProvider
from support.storing import entries
from support.transports import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from pathlib import Path

    from sandbox_agent import Session
    from sandbox_agent.persistence import Record, Store
    from support.daemon import Daemon
    from support.postgres import Postgres

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
WITHIN = 40
STOPPED_WITHIN = 10.0
"""Seconds after which nothing is asked for any more, for a lease of 2."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    with lasting(tmp_path_factory.mktemp("keeping")) as daemon:
        yield daemon


@asynccontextmanager
async def kept(
    daemon: Daemon, store: Store | None, owner: str = "one", lease_ttl: float = 30.0
) -> AsyncGenerator[SandboxAgent]:
    with anyio.fail_after(WITHIN):
        async with SandboxAgent.connect(
            daemon.url, daemon.token, store=store, owner=owner, lease_ttl=lease_ttl
        ) as sandbox:
            yield sandbox


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore]:
    async with SqliteStore.open(path / "store.db") as store:
        yield store


def key_of(daemon: Daemon, session: Session) -> SessionKey:
    return SessionKey(daemon.url, session.id)


async def kinds(store: Store, key: SessionKey) -> list[str]:
    return [one.record.kind for one in await entries(store, key) if isinstance(one.record, EventRecord)]


@BACKENDS
def test_what_happened_is_kept_when_the_sandbox_is_gone(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        provider = LocalProvider(tmp_path / "sandboxes")
        async with opened(tmp_path) as store:
            with anyio.fail_after(WITHIN):
                async with SandboxAgent.start(provider, store=store, owner="backend-1") as sandbox:
                    key = SessionKey(str(sandbox.id), "demo")
                    session = await sandbox.create_session("mock", id="demo")
                    await session.prompt("the last words")
                    head, epoch = (await session.refresh()).head, session.info.epoch
            found = await entries(store, key)
            assert [one.record.last for one in found][:head] == [*range(1, head + 1)]
            assert {one.epoch for one in found} == {epoch}
            assert any(b"the last words" in one.record.raw for one in found if isinstance(one.record, EventRecord))
            # And nobody has to wait for the lease.
            assert (await store.acquire(key, "backend-2", 1.0)).generation == 2

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("how", ["destroy", "pause"])
async def test_it_is_kept_also_where_the_block_ends_the_sandbox(tmp_path: Path, how: str) -> None:
    provider = LocalProvider(tmp_path / "sandboxes")
    with anyio.fail_after(WITHIN):
        async with opened(tmp_path) as store:
            async with SandboxAgent.start(provider, store=store) as sandbox:
                session = await sandbox.create_session("mock")
                await session.prompt("hello")
                head = (await session.refresh()).head
                await getattr(sandbox, how)()
                found = await entries(store, SessionKey(str(sandbox.id), session.id))
                assert [one.record.last for one in found][:head] == [*range(1, head + 1)]
            if how == "pause":
                await provider.destroy(str(sandbox.id).partition("/")[2])


class Slow(SqliteStore):
    """Takes its time for each batch."""

    async def append(
        self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None
    ) -> int:
        await anyio.sleep(0.4)
        return await super().append(key, epoch, records, generation)


@BACKENDS
def test_it_is_kept_also_where_the_block_is_cancelled(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with Slow.open(tmp_path / "store.db") as store:
            key, head, start = SessionKey(daemon.url, f"cancelled-{backend}"), 0, 0.0
            with anyio.CancelScope() as scope:
                async with kept(daemon, store, "one") as sandbox:
                    session = await sandbox.create_session("mock", id=key.session, cwd=str(daemon.home))
                    await session.prompt("the last words")
                    head, start = (await session.refresh()).head, anyio.current_time()
                    scope.cancel()
            assert head > 0
            assert [one.record.last for one in await entries(store, key)][:head] == [*range(1, head + 1)]
            assert anyio.current_time() - start < LAST_WITHIN
            assert (await store.acquire(key, "two", 1.0)).generation == 2

    anyio.run(main, backend=backend)


# httpx leaves a generator of bytes behind where it is cancelled while it sends them.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx._content:ResourceWarning")
@BACKENDS
def test_who_gives_up_opening_a_session_leaves_no_task_behind(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as store, kept(daemon, None) as stranger:
            session = await stranger.create_session("mock", cwd=str(daemon.home))
            for number in range(12):
                async with kept(daemon, store, "one") as sandbox:
                    with anyio.move_on_after(number / 400):
                        await sandbox.session(session.id)
                with anyio.fail_after(1):  # its lease is free
                    await store.release(await store.acquire(key_of(daemon, session), "two", 60))

    anyio.run(main, backend=backend)


@BACKENDS
def test_one_backend_at_a_time_drives_a_session(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as store, kept(daemon, store, "two") as other:
            async with kept(daemon, store, "one") as sandbox:
                session = await sandbox.create_session("mock", cwd=str(daemon.home))
                assert session.generation == 1
                assert (await session.refresh()).generation == 1
                with pytest.raises(LeaseHeld) as refused:
                    await other.session(session.id)
                assert refused.value.owner == "one"
                await session.prompt("hello")
            taken = await other.session(session.id)
            assert taken.generation == 2
            await taken.prompt("hello from the other")
            async with kept(daemon, None) as careless:
                old = await careless.session(session.id)
                old.generation = 1
                with pytest.raises(StaleGeneration):
                    await old.prompt("late")
        async with opened(tmp_path) as store:
            told = await kinds(store, key_of(daemon, session))
            assert told.count("session.claimed") == told.count("turn.queued") == 2

    anyio.run(main, backend=backend)


@BACKENDS
def test_who_is_taken_over_is_told_so_by_the_next_thing_he_does(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as store, kept(daemon, store, lease_ttl=1.5) as sandbox:
            lost = await sandbox.create_session("mock", cwd=str(daemon.home))
            other = await sandbox.create_session("mock", cwd=str(daemon.home))
            lease = await store.acquire(key_of(daemon, lost), "one", 60)
            with anyio.fail_after(WITHIN):
                while True:
                    try:
                        await lost.prompt("mine?")
                    except LeaseLost:
                        break
                    await anyio.sleep(0.05)
            for act in (lost.close, lost.cancel, lost.restart, lost.hibernate, lost.delete, lost.fork):
                with pytest.raises(LeaseLost):
                    await act()
            assert (await lost.page()).events  # it may still look
            assert (await other.prompt("hello")).completed
            # Opened again, once the other one is gone, it is ours again.
            await store.release(lease)
            again = await sandbox.session(lost.id)
            assert again.generation == lease.generation + 1
            assert (await again.prompt("hello")).completed

    anyio.run(main, backend=backend)


async def test_a_session_that_was_listed_only_tells(daemon: Daemon, tmp_path: Path) -> None:
    async with opened(tmp_path) as store, kept(daemon, store) as sandbox, kept(daemon, None) as stranger:
        theirs = await stranger.create_session("mock", cwd=str(daemon.home), tags={"test": "listed"})
        ours = await sandbox.create_session("mock", cwd=str(daemon.home), tags={"test": "listed"})
        listed = {one.id: one for one in await sandbox.list_sessions(tags={"test": "listed"})}
        assert (await listed[theirs.id].page()).events
        for act in (listed[theirs.id].close, listed[theirs.id].cancel):
            with pytest.raises(PersistenceError, match="open it"):
                await act()
        assert (await listed[ours.id].prompt("hello")).completed
        assert listed[ours.id].generation == ours.generation
        assert (await (await sandbox.session(theirs.id)).prompt("hello")).completed


async def test_a_fork_is_owned_as_well(daemon: Daemon, tmp_path: Path) -> None:
    async with opened(tmp_path) as store, kept(daemon, store) as sandbox:
        session = await sandbox.create_session("mock", cwd=str(daemon.home))
        await session.prompt("hello")
        fork = await session.fork()
        await fork.prompt("there")
        with pytest.raises(LeaseHeld):
            await store.acquire(key_of(daemon, fork), "two", 1.0)
    async with opened(tmp_path) as store:
        assert "turn.ended" in await kinds(store, key_of(daemon, fork))


async def test_the_same_session_opened_by_several_tasks_is_owned_once(daemon: Daemon, tmp_path: Path) -> None:
    async with opened(tmp_path) as store, kept(daemon, store) as sandbox, kept(daemon, None) as stranger:
        id = (await stranger.create_session("mock", cwd=str(daemon.home))).id
        generations: list[int | None] = []

        async def open_it() -> None:
            session = await sandbox.session(id)
            generations.append(session.generation)
            await session.prompt("hello")

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(open_it)
        assert generations == [1, 1, 1, 1]


async def test_a_session_that_is_deleted_and_made_again_is_another_one(daemon: Daemon, tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        async with kept(daemon, store) as sandbox:
            for generation in (1, 2):
                session = await sandbox.create_session("mock", id="again", cwd=str(daemon.home))
                assert session.generation == generation
                await session.prompt(f"in life {generation}")
                if generation == 1:
                    await session.delete()
        found = [one.record for one in await entries(store, key_of(daemon, session))]
        assert any(b"in life 2" in one.raw for one in found if isinstance(one, EventRecord))


async def test_a_session_that_is_gone_is_told_as_such(daemon: Daemon, tmp_path: Path) -> None:
    async with opened(tmp_path) as store, kept(daemon, store) as sandbox:
        session = await sandbox.create_session("mock", cwd=str(daemon.home))
        await session.delete()
        for _ in range(3):
            with pytest.raises(SessionNotFound):
                await session.prompt("gone")
            await anyio.sleep(0.1)


async def test_a_new_store_goes_on_above_what_the_server_knows(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "lost").mkdir()
    async with kept(daemon, None) as stranger:
        session = await stranger.create_session("mock", cwd=str(daemon.home))
        session.generation = 7  # by a store that is lost
        await session.prompt("hello")
    async with opened(tmp_path) as store, kept(daemon, store) as sandbox:
        again = await sandbox.session(session.id)
        assert again.generation == 8
        assert (await again.prompt("hello")).completed


async def test_a_closed_session_can_be_opened_for_its_events(daemon: Daemon, tmp_path: Path) -> None:
    async with kept(daemon, None) as stranger:
        session = await stranger.create_session("mock", cwd=str(daemon.home))
        await session.prompt("hello")
        await session.close()
    async with opened(tmp_path) as store:
        async with kept(daemon, store) as sandbox:
            await sandbox.session(session.id)
        assert "session.closed" in await kinds(store, key_of(daemon, session))


async def test_without_its_store_nothing_is_opened_and_what_is_open_stops_in_time(
    daemon: Daemon, postgres: Postgres
) -> None:
    async with PostgresStore.open(postgres.dsn) as store, kept(daemon, store, lease_ttl=2.0) as sandbox:
        session = await sandbox.create_session("mock", cwd=str(daemon.home))
        async with postgres.away():
            with pytest.raises(StoreUnavailable):
                await sandbox.create_session("mock", cwd=str(daemon.home))
            with anyio.fail_after(STOPPED_WITHIN), pytest.raises(LeaseLost):
                await prompt_for_ever(session)
        with anyio.fail_after(WITHIN):
            while True:
                try:
                    again = await sandbox.session(session.id)
                    break
                except PersistenceError:  # the server is not there yet
                    await anyio.sleep(0.05)
        assert (await again.prompt("back")).completed


async def prompt_for_ever(session: Session) -> None:
    while True:
        await session.prompt("hello")


async def test_a_sandbox_that_is_destroyed_by_others_is_told_as_such(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path / "sandboxes")
    with anyio.fail_after(WITHIN):
        async with opened(tmp_path) as store, SandboxAgent.start(provider, store=store) as sandbox:
            session = await sandbox.create_session("mock")
            await provider.destroy(str(sandbox.id).partition("/")[2])
            with pytest.raises(SandboxDestroyed):
                await session.prompt("hello")
