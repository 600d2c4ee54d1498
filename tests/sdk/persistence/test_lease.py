"""Holding a lease: renewed while the block runs, given back at its end, and the block ended when it is lost."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.errors import LeaseHeld, LeaseLost
from sandbox_agent.persistence import Held, PostgresStore, SessionKey, SqliteStore, holding

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import TaskStatus

    from support.postgres import Postgres

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
TTL = 1.2
STOPPED_WITHIN = 2.0
WITHIN = 20


def new_key() -> SessionKey:
    return SessionKey(f"docker/{os.urandom(6).hex()}", "s")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("leases") / "store.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore]:
    with anyio.fail_after(WITHIN):
        async with SqliteStore.open(path) as store:
            yield store


def under(backend: str, path: Path, body: Callable[[SqliteStore, SessionKey], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as store:
            await body(store, new_key())

    anyio.run(run, backend=backend)


@BACKENDS
def test_it_is_held_for_as_long_as_the_block_runs_and_free_afterwards(path: Path, backend: str) -> None:
    async def body(store: SqliteStore, key: SessionKey) -> None:
        async with holding(store, key, "one", ttl=TTL) as held:
            for _ in range(3):
                await anyio.sleep(TTL / 2)
                held.check()
                assert 0 < held.left <= TTL
                with pytest.raises(LeaseHeld) as refused:
                    await store.acquire(key, "two", TTL)
                assert (refused.value.owner, 0 < refused.value.expires_in <= TTL) == ("one", True)
        next = await store.acquire(key, "two", TTL)
        assert (held.generation, next.generation) == (1, 2)

    under(backend, path, body)


@BACKENDS
def test_whoever_takes_it_over_ends_the_block(path: Path, backend: str) -> None:
    async def body(store: SqliteStore, key: SessionKey) -> None:
        async def hold() -> None:
            async with holding(store, key, "one", ttl=TTL) as held:
                helds.append(held)
                await store.acquire(key, "one", 60)  # our next life
                await anyio.sleep_forever()

        helds: list[Held] = []
        with pytest.raises(LeaseLost):
            await hold()
        with pytest.raises(LeaseLost):
            helds[0].check()
        with pytest.raises(LeaseHeld):  # it did not give back what is another one's
            await store.acquire(key, "two", TTL)

    under(backend, path, body)


@BACKENDS
def test_what_the_block_raises_comes_out_and_the_lease_is_free(path: Path, backend: str) -> None:
    async def body(store: SqliteStore, key: SessionKey) -> None:
        with pytest.raises(ZeroDivisionError):
            async with holding(store, key, "one", ttl=60):
                raise ZeroDivisionError
        with anyio.move_on_after(0.1):
            async with holding(store, key, "two", ttl=60) as held:
                await anyio.sleep_forever()
        async with holding(store, key, "three", ttl=60, above=10) as held:
            assert held.generation == 11

    under(backend, path, body)


@BACKENDS
def test_who_does_not_get_it_does_nothing(path: Path, backend: str) -> None:
    async def body(store: SqliteStore, key: SessionKey) -> None:
        await store.acquire(key, "one", 60)
        with pytest.raises(LeaseHeld):
            async with holding(store, key, "two"):
                raise AssertionError("the block must not run")

    under(backend, path, body)


@BACKENDS
def test_a_process_that_was_stopped_for_too_long_knows_at_once_when_it_asks(path: Path, backend: str) -> None:
    async def body(store: SqliteStore, key: SessionKey) -> None:
        async def hold() -> None:
            async with holding(store, key, "one", ttl=TTL) as held:
                await anyio.sleep(0.05)
                stall()
                with pytest.raises(LeaseLost):
                    held.check()
                await store.acquire(key, "two", TTL)
                await anyio.sleep_forever()

        def stall() -> None:
            time.sleep(TTL)  # nothing else runs meanwhile

        with pytest.raises(LeaseLost):
            await hold()

    under(backend, path, body)


async def test_a_store_that_is_away_for_a_moment_does_not_end_it(path: Path) -> None:
    async with opened(path) as store:
        key = new_key()
        other = sqlite3.connect(path, isolation_level=None)
        async with holding(store, key, "one", ttl=3.0) as held:
            other.execute("BEGIN IMMEDIATE")
            await anyio.sleep(2.0)
            assert held.left < 1.5
            other.execute("ROLLBACK")
            other.close()
            await anyio.sleep(1.0)
            held.check()
            assert held.left > 1.5


@BACKENDS
def test_a_store_that_takes_longer_than_the_lease_lasts_gives_a_whole_one(path: Path, backend: str) -> None:
    async def body(store: SqliteStore, key: SessionKey) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def unlock() -> None:
            await anyio.sleep(TTL)
            other.execute("ROLLBACK")
            other.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(unlock)
            async with holding(store, key, "one", ttl=TTL) as held:
                held.check()
                await anyio.sleep(TTL)
                held.check()
                assert held.generation == 1

    under(backend, path, body)


async def test_a_store_that_stays_away_ends_it_before_others_may_take_it(postgres: Postgres) -> None:
    lefts: list[float] = []
    over = anyio.Event()

    async def hold(store: PostgresStore, key: SessionKey, *, task_status: TaskStatus[None]) -> None:
        async with holding(store, key, "one", ttl=2.0) as held:
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                lefts.append(held.left)
                over.set()

    async def expect_lost(store: PostgresStore, key: SessionKey, *, task_status: TaskStatus[None]) -> None:
        with pytest.raises(LeaseLost):
            await hold(store, key, task_status=task_status)

    with anyio.fail_after(WITHIN):
        async with PostgresStore.open(postgres.dsn) as store, anyio.create_task_group() as tasks:
            key = new_key()
            await tasks.start(expect_lost, store, key)
            async with postgres.away():
                await over.wait()
                assert -STOPPED_WITHIN < lefts[0] <= 0
            while True:
                try:
                    lease = await store.acquire(key, "two", 2.0)
                    break
                except LeaseHeld:
                    await anyio.sleep(0.05)
            assert lease.generation == 2
