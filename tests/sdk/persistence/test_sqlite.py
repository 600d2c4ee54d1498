"""The store in a file: killed writers, full disks, files that are something else."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.errors import PersistenceError, StoreUnavailable
from sandbox_agent.persistence import SessionKey, SqliteStore
from sandbox_agent.persistence.racer import record
from support.storing import SQLITE, racing, seqs, until_stored

if TYPE_CHECKING:
    from pathlib import Path

KEY = SessionKey("docker/abc", "s")
MANY = 1_000_000
"""More than anybody writes before it is killed."""

WITHIN = 30


@pytest.mark.parametrize("stored", [1, 20, 100])
async def test_a_writer_that_is_killed_leaves_what_it_has_stored(tmp_path: Path, stored: int) -> None:
    path = tmp_path / "store.db"
    with anyio.fail_after(WITHIN):
        async with SqliteStore.open(path) as store:
            with racing(SQLITE, str(path), "append", KEY, "x", MANY) as process:
                await until_stored(store, KEY, stored)
                process.kill()
                process.wait()
            found = await seqs(store, KEY)
            assert found == [*range(1, len(found) + 1)]
            assert len(found) >= stored
            assert await store.append(KEY, "e", [record(seq) for seq in range(1, len(found) + 2)]) == 1
        async with SqliteStore.open(path) as store:
            assert await seqs(store, KEY) == [*range(1, len(found) + 2)]


async def test_two_writers_of_which_one_is_killed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with anyio.fail_after(WITHIN):
        async with SqliteStore.open(path) as store:
            for _ in range(3):
                at = await store.position(KEY)
                start = at.seq if at else 0
                with (
                    racing(SQLITE, str(path), "append", KEY, "x", MANY),
                    racing(SQLITE, str(path), "append", KEY, "y", MANY),
                ):
                    await until_stored(store, KEY, start + 30)
            found = await seqs(store, KEY)
            assert found == [*range(1, len(found) + 1)]


async def test_who_comes_first_makes_the_file_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def append(number: int) -> None:
        async with SqliteStore.open(path) as store:
            await store.append(SessionKey("docker/abc", str(number)), "e", [record(1)])

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(append, number)
    async with SqliteStore.open(path) as store:
        assert len(await store.sessions()) == 10
        modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
        assert {*modes.values()} == {0o600}, modes


async def test_a_file_that_is_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 1000)
    with pytest.raises(PersistenceError) as refused:
        async with SqliteStore.open(path):
            pass
    assert not isinstance(refused.value, StoreUnavailable)
    assert path.read_text() == "these are my notes\n" * 1000


async def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore.open(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=2")
    connection.close()
    with pytest.raises(PersistenceError, match="version 2"):
        async with SqliteStore.open(path):
            pass


async def test_where_no_file_can_be_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        async with SqliteStore.open(tmp_path / "nowhere" / "store.db"):
            pass
    with pytest.raises(StoreUnavailable):
        async with SqliteStore.open(tmp_path):
            pass


async def test_a_store_that_was_closed_says_so(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db") as store:
        pass
    with pytest.raises(PersistenceError):
        await store.position(KEY)


async def test_who_waits_for_a_lock_in_vain_may_try_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with anyio.fail_after(WITHIN):
        async with SqliteStore.open(path) as store:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            await store.position(KEY)  # reading waits for nobody
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.append(KEY, "e", [record(1)])
            other.execute("ROLLBACK")
            other.close()
            assert await store.append(KEY, "e", [record(1)]) == 1


FULL = """
import anyio, resource, signal, sys
from sandbox_agent.errors import StoreUnavailable
from sandbox_agent.persistence import SessionKey, SqliteStore
from sandbox_agent.persistence.racer import record

async def main():
    key = SessionKey("docker/abc", "s")
    async with SqliteStore.open(sys.argv[1]) as store:
        await store.append(key, "e", [record(1)])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            await store.append(key, "e", [record(seq, b"x" * 1000) for seq in range(2, 1000)])
        except StoreUnavailable:
            pass
        else:
            sys.exit("there was room")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await store.append(key, "e", [record(2)]) == 1

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
anyio.run(main)
"""


async def test_a_disk_that_is_full_refuses_a_batch_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    done = await anyio.run_process([sys.executable, "-c", FULL, str(path)], check=False, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    async with SqliteStore.open(path) as store:
        assert await seqs(store, KEY) == [1, 2]


async def test_nothing_of_it_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with anyio.move_on_after(0.01):
            async with SqliteStore.open(tmp_path / "store.db") as store:
                while True:
                    await store.append(KEY, "e", [record(1)])
    assert len(os.listdir("/proc/self/fd")) == before
