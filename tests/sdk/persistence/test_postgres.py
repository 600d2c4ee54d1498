"""The store in PostgreSQL: a server that restarts, connections that are killed, tables that several make."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

from sandbox_agent.backoff import Backoff
from sandbox_agent.errors import LeaseLost, PersistenceError, StoreUnavailable
from sandbox_agent.persistence import PostgresStore, SessionKey
from sandbox_agent.persistence.connections import Connections, open_connections
from sandbox_agent.persistence.racer import record
from support.storing import POSTGRES, racing, seqs, until_stored

if TYPE_CHECKING:
    from sandbox_agent.persistence.connections import Connection
    from support.postgres import Postgres

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
MANY = 1_000_000
RESTARTS: tuple[Literal["INT", "QUIT"], ...] = ("INT", "QUIT")
WITHIN = 40


def new_key() -> SessionKey:
    return SessionKey(f"docker/{os.urandom(6).hex()}", "s")


async def append_until(store: PostgresStore, key: SessionKey, done: anyio.Event) -> None:
    """Append event after event, each until it is taken."""
    seq = 0
    while not done.is_set():
        seq += 1
        backoff = Backoff(limit=0.2)
        while True:
            try:
                await store.append(key, "e", [record(seq)])
                break
            except StoreUnavailable:
                await anyio.sleep(backoff.next())


async def expect_no_hole(store: PostgresStore, key: SessionKey) -> None:
    found = await seqs(store, key)
    assert found == [*range(1, len(found) + 1)]


@BACKENDS
def test_a_server_that_is_restarted_loses_nothing_and_doubles_nothing(postgres: Postgres, backend: str) -> None:
    async def main() -> None:
        key, done = new_key(), anyio.Event()
        with anyio.fail_after(WITHIN):
            async with PostgresStore.open(postgres.dsn) as store, anyio.create_task_group() as tasks:
                tasks.start_soon(append_until, store, key, done)
                for number, how in enumerate(RESTARTS, 1):
                    await until_stored(store, key, number * 50)
                    async with postgres.away(how):
                        with pytest.raises(StoreUnavailable):
                            await store.position(key)
                await until_stored(store, key, 150)
                done.set()
            async with PostgresStore.open(postgres.dsn) as store:
                await expect_no_hole(store, key)

    anyio.run(main, backend=backend)


@BACKENDS
def test_connections_that_are_killed_are_made_again(postgres: Postgres, backend: str) -> None:
    async def main() -> None:
        key, done = new_key(), anyio.Event()
        with anyio.fail_after(WITHIN):
            async with PostgresStore.open(postgres.dsn) as store:
                assert await store.append(key, "e", [record(1)]) == 1
                assert await anyio.to_thread.run_sync(postgres.cut) >= 1
                # One that was lost while nobody used it is nobody's trouble.
                await store.append(key, "e", [record(2)])
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(append_until, store, key, done)
                    for seq in range(5, 100, 5):  # wherever it is by then
                        await until_stored(store, key, seq)
                        await anyio.to_thread.run_sync(postgres.cut)
                    done.set()
                await expect_no_hole(store, key)

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_server_that_has_gone_silent_is_not_waited_for(postgres: Postgres, backend: str) -> None:
    async def main() -> None:
        connections = Connections(postgres.dsn, answer_within=0.3)
        try:
            await connections.run(lambda connection: connection.execute("SELECT 1"))
            with anyio.fail_after(10), pytest.raises(StoreUnavailable):
                await connections.run(lambda connection: connection.execute("SELECT pg_sleep(30)"))
            await connections.run(lambda connection: connection.execute("SELECT 1"))
        finally:
            connections.close()

    anyio.run(main, backend=backend)


def test_a_task_that_is_cancelled_by_asyncio_itself_leaves_its_connection_to_the_thread(postgres: Postgres) -> None:
    import asyncio

    async def main() -> None:
        key = new_key()
        async with PostgresStore.open(postgres.dsn) as store:
            records = [record(seq, b"x" * 2000) for seq in range(1, 400)]
            for _ in range(10):
                appending = asyncio.ensure_future(store.append(key, "e", records))
                await asyncio.sleep(0.003)
                appending.cancel()
                await store.append(key, "f", [record(1)])  # not in the transaction of that one
            with anyio.fail_after(WITHIN):
                await store.append(key, "e", records)
            assert len(await seqs(store, key)) == len(records) + 1

    anyio.run(main, backend="asyncio")


async def test_writers_that_are_killed_leave_what_they_have_stored(postgres: Postgres) -> None:
    key = new_key()
    with anyio.fail_after(WITHIN):
        async with PostgresStore.open(postgres.dsn) as store:
            with (
                racing(POSTGRES, postgres.dsn, "append", key, "x", MANY) as one,
                racing(POSTGRES, postgres.dsn, "append", key, "y", MANY),
            ):
                await until_stored(store, key, 50)
                one.kill()
                await until_stored(store, key, 200)
            found = await seqs(store, key)
            assert found == [*range(1, len(found) + 1)]


async def test_who_is_stopped_within_a_transaction_locks_out_nobody_for_long(postgres: Postgres) -> None:
    key, locked = new_key(), threading.Event()

    def stop(connection: Connection) -> None:
        connection.execute("SELECT 1 FROM sandbox_agent_sessions WHERE sandbox = %s FOR UPDATE", (key.sandbox,))
        locked.set()
        time.sleep(6)

    async def hold() -> None:
        with pytest.raises(StoreUnavailable):
            await connections.run(stop)

    with anyio.fail_after(WITHIN):
        async with PostgresStore.open(postgres.dsn) as store, open_connections(postgres.dsn) as connections:
            await store.append(key, "e", [record(1)])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold)
                await anyio.to_thread.run_sync(locked.wait)
                await store.acquire(key, "one", 30)


WRITER = """
import anyio, sys
from sandbox_agent.persistence import PostgresStore, SessionKey
from sandbox_agent.persistence.racer import record

async def main():
    async with PostgresStore.open(sys.argv[1]) as store:
        for start in range(1, 1_000_000, 500):
            records = [record(seq, b"x" * 500) for seq in range(start, start + 500)]
            await store.append(SessionKey(sys.argv[2], "s"), "e", records)

anyio.run(main)
"""


async def test_a_writer_that_is_stopped_anywhere_locks_out_nobody_for_long(postgres: Postgres) -> None:
    key = new_key()
    with anyio.fail_after(WITHIN):
        async with PostgresStore.open(postgres.dsn) as store:
            async with await anyio.open_process([sys.executable, "-c", WRITER, postgres.dsn, key.sandbox]) as writer:
                await until_stored(store, key, 1000)
                writer.send_signal(signal.SIGSTOP)
                await store.acquire(key, "one", 30)
                writer.kill()
            await expect_no_hole(store, key)


async def test_several_who_come_first_make_the_tables_together(postgres: Postgres) -> None:
    postgres.ask("CREATE DATABASE empty")
    dsn = postgres.dsn.replace("dbname=postgres", "dbname=empty")

    async def append(key: SessionKey) -> None:
        async with PostgresStore.open(dsn) as store:
            await store.append(key, "e", [record(1)])

    with anyio.fail_after(WITHIN):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(append, SessionKey("docker/abc", str(number)))
        async with PostgresStore.open(dsn) as store:
            assert len(await store.sessions()) == 8


async def test_who_may_make_no_tables_uses_those_that_are_there(postgres: Postgres) -> None:
    postgres.ask("CREATE DATABASE shared")
    shared = postgres.dsn.replace("dbname=postgres", "dbname=shared")
    poor = shared.replace("user=postgres", "user=poor password=hush")
    postgres.ask("CREATE ROLE poor LOGIN")
    with pytest.raises(PersistenceError, match="permission denied") as refused:
        async with PostgresStore.open(poor):
            pass
    assert not isinstance(refused.value, StoreUnavailable)
    async with PostgresStore.open(shared):
        pass
    with anyio.fail_after(WITHIN):
        grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO poor"
        await anyio.to_thread.run_sync(partial(_ask, shared, grant))
        async with PostgresStore.open(poor) as store:
            key = new_key()
            lease = await store.acquire(key, "one", 10)
            assert await store.append(key, "e", [record(1)], lease.generation) == 1
            await store.forget(key)


async def test_tables_of_another_version_are_refused(postgres: Postgres) -> None:
    postgres.ask("CREATE DATABASE newer")
    newer = postgres.dsn.replace("dbname=postgres", "dbname=newer")
    async with PostgresStore.open(newer):
        pass
    _ask(newer, "UPDATE sandbox_agent_version SET version = 2")
    with pytest.raises(PersistenceError, match="version 2"):
        async with PostgresStore.open(newer):
            pass


@pytest.mark.parametrize(
    ("dsn", "unavailable"),
    [
        ("host=/nowhere user=postgres password=hush", True),
        ("postgresql://postgres:hush@127.0.0.1:1/x?connect_timeout=2", True),
        ("postgresql://postgres:hush@[::1", False),
        ("host=x passwort=hush", False),
        ("hush", False),
    ],
)
async def test_an_address_that_leads_nowhere_is_refused_without_telling_the_password(
    dsn: str, unavailable: bool
) -> None:
    with anyio.fail_after(WITHIN), pytest.raises(PersistenceError) as refused:
        async with PostgresStore.open(dsn):
            pass
    assert isinstance(refused.value, StoreUnavailable) == unavailable
    error: BaseException | None = refused.value
    while error is not None and not error.__suppress_context__:
        assert "hush" not in str(error)
        error = error.__cause__ or error.__context__


async def test_a_lease_goes_by_the_clock_of_the_server(postgres: Postgres) -> None:
    key = new_key()
    async with PostgresStore.open(postgres.dsn) as store:
        lease = await store.acquire(key, "one", 3600)
        postgres.ask(
            "UPDATE sandbox_agent_sessions SET expires_at = clock_timestamp() - interval '1 ms'"
            f" WHERE sandbox = '{key.sandbox}'"
        )
        with pytest.raises(LeaseLost):
            await store.renew(lease, 3600)
        assert (await store.acquire(key, "two", 3600)).generation == lease.generation + 1


async def test_without_its_package_the_command_for_it_is_told() -> None:
    script = """
import sys
sys.modules["psycopg"] = None
import anyio
from sandbox_agent.errors import MissingExtra
from sandbox_agent.persistence import PostgresStore

async def main():
    try:
        async with PostgresStore.open("host=x"):
            pass
    except MissingExtra as error:
        print(error)

anyio.run(main)
"""
    done = await anyio.run_process([sys.executable, "-c", script], stderr=subprocess.STDOUT, check=False)
    assert done.stdout.decode().strip() == 'for PostgreSQL: pip install "trio-sandbox-agent[postgres]"'


def _ask(dsn: str, query: str) -> None:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query.encode())
