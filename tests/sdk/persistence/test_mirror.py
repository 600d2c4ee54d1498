"""The mirror, between a real daemon and real stores: every event once, whatever happens to either."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent import SandboxAgent
from sandbox_agent.errors import LeaseLost, PersistenceError, StoreUnavailable
from sandbox_agent.events import Gap, OtherEvent
from sandbox_agent.persistence import (
    EventRecord,
    GapRecord,
    Mirror,
    Position,
    PostgresStore,
    SessionKey,
    SqliteStore,
)
from sandbox_agent.persistence.mirror import BATCH_EVENTS, ROOM
from support.daemon import running
from support.storing import entries, seqs
from support.transports import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
    from pathlib import Path

    from sandbox_agent import Session
    from sandbox_agent.events import Event
    from sandbox_agent.persistence import Record, Store
    from sandbox_agent.persistence.mirror import Stream
    from support.daemon import Daemon
    from support.postgres import Postgres

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
KEY = SessionKey("docker/abc", "s")
WITHIN = 40


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    with lasting(tmp_path_factory.mktemp("mirror")) as daemon:
        yield daemon


@asynccontextmanager
async def client(daemon: Daemon) -> AsyncGenerator[SandboxAgent]:
    with anyio.fail_after(WITHIN):
        async with SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
            yield sandbox


@asynccontextmanager
async def mirrored(
    session: Session, store: Store, generation: int | None = None, key: SessionKey = KEY
) -> AsyncGenerator[Mirror]:
    """The session is mirrored while the block runs; at its end the store has all of it."""
    mirror = Mirror(session, store, key, generation)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mirror.run)
        yield mirror
        await caught_up(session, mirror)
        tasks.cancel_scope.cancel()


async def caught_up(session: Session, mirror: Mirror) -> None:
    info = await session.refresh()
    await mirror.reached(info.epoch, info.head)


async def told(session: Session) -> list[EventRecord]:
    """What the server itself tells."""
    events: list[Event] = []
    while (page := await session.page(events[-1].seq if events else 0)).events:
        events += page.events
    return [
        EventRecord(one.seq, round(one.at.timestamp() * 1000), one.kind, one.direction, one.incarnation, one.raw)
        for one in events
    ]


async def records(store: Store, key: SessionKey = KEY) -> list[Record]:
    return [one.record for one in await entries(store, key)]


@BACKENDS
def test_the_store_has_what_the_server_has(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with client(daemon) as sandbox, SqliteStore.open(tmp_path / "store.db") as store:
            session = await sandbox.create_session("mock", cwd=str(daemon.home))
            await session.prompt("before")
            async with mirrored(session, store) as mirror:
                await session.prompt("separators \u2028\u2029, wide \U0001f980, combined e\u0301")
                await session.prompt("/tool\n/plan a; b\n/echo " + "x" * 200_000)
                await caught_up(session, mirror)
                assert await records(store) == await told(session)
            # Another one goes on where that one was.
            await session.prompt("in between")
            async with mirrored(session, store):
                await session.prompt("after")
            assert await records(store) == await told(session)
            assert [one.number for one in await entries(store, KEY)] == [*range(1, session.info.head + 1)]

    anyio.run(main, backend=backend)


@BACKENDS
def test_several_mirrors_of_one_session_store_each_event_once(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        path = tmp_path / "store.db"
        async with client(daemon) as sandbox, SqliteStore.open(path) as one, SqliteStore.open(path) as other:
            session = await sandbox.create_session("mock", cwd=str(daemon.home))
            async with mirrored(session, one), mirrored(session, other), mirrored(session, one):
                for _ in range(10):
                    await session.prompt("hello")
            assert await records(one) == await told(session)

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_session_that_is_deleted_ends_it_with_all_that_was_told(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with client(daemon) as sandbox, SqliteStore.open(tmp_path / "store.db") as store:
            session = await sandbox.create_session("mock", cwd=str(daemon.home))
            head = 0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Mirror(session, store, KEY).run)
                await session.prompt("hello")
                head = (await session.refresh()).head
                await session.delete()
            assert (await seqs(store, KEY))[:head] == [*range(1, head + 1)]
            await Mirror(session, store, KEY).run()  # nor is there any more

    anyio.run(main, backend=backend)


async def test_a_daemon_that_is_killed_and_begun_again_goes_on(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "daemon") as daemon,
        client(daemon) as sandbox,
        SqliteStore.open(tmp_path / "store.db") as store,
    ):
        session = await sandbox.create_session("mock", cwd=str(tmp_path))
        async with mirrored(session, store):
            await session.prompt("hello")
            await daemon.kill()
            await daemon.start()
            await session.prompt("still there")
        assert await records(store) == await told(session)
        assert {one.epoch for one in await entries(store, KEY)} == {session.info.epoch}


async def test_a_journal_that_was_lost_is_a_new_epoch_and_the_old_one_stays(tmp_path: Path) -> None:
    async with running(tmp_path / "daemon") as daemon, SqliteStore.open(tmp_path / "store.db") as store:
        async with client(daemon) as sandbox:
            session = await sandbox.create_session("mock", id="s", cwd=str(tmp_path))
            async with mirrored(session, store):
                await session.prompt("hello")
            first, old = session.info.epoch, await told(session)
        await daemon.stop()
        shutil.rmtree(daemon.state_dir)
        await daemon.start()
        async with client(daemon) as sandbox:
            session = await sandbox.create_session("mock", id="s", cwd=str(tmp_path))
            async with mirrored(session, store):
                await session.prompt("once more")
            second, new = session.info.epoch, await told(session)
        found = await entries(store, KEY)
        assert [(one.epoch, one.record) for one in found] == [
            *((first, one) for one in old),
            *((second, one) for one in new),
        ]
        assert first != second


async def test_a_journal_that_was_wound_back_is_told_apart(tmp_path: Path) -> None:
    """As out of a snapshot: the same journal, with other events under numbers that were given already."""
    async with running(tmp_path / "daemon") as daemon, SqliteStore.open(tmp_path / "store.db") as store:
        async with client(daemon) as sandbox:
            session = await sandbox.create_session("mock", id="s", cwd=str(tmp_path))
            await session.prompt("hello")
        await daemon.stop()
        shutil.copytree(daemon.state_dir, tmp_path / "snapshot")
        epoch, lives = session.info.epoch, list[list[EventRecord]]()
        for number in range(2):
            await daemon.start()
            async with client(daemon) as sandbox:
                session = await sandbox.session("s")
                async with mirrored(session, store):
                    for _ in range(3 - 2 * number):  # fewer each time: else nobody could tell
                        await session.prompt(f"in life {number}")
                lives.append(await told(session))
            await daemon.stop()
            shutil.rmtree(daemon.state_dir)
            shutil.copytree(tmp_path / "snapshot", daemon.state_dir)
        found = await entries(store, KEY)
        expected = zip((epoch, f"{epoch}#2"), lives, strict=True)
        assert [(one.epoch, one.record) for one in found] == [(label, one) for label, life in expected for one in life]


async def test_what_the_server_has_forgotten_is_a_gap(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "daemon", "--retention-events", "20") as daemon,
        client(daemon) as sandbox,
        SqliteStore.open(tmp_path / "store.db") as store,
    ):
        session = await sandbox.create_session("mock", cwd=str(tmp_path))
        while (await session.refresh()).floor == 1:
            await session.prompt("hello")
        async with mirrored(session, store):
            pass
        first, *others = await records(store)
        assert isinstance(first, GapRecord)
        assert (first.first, first.reason) == (1, "retention")
        assert [one.first for one in others] == [*range(first.last + 1, session.info.head + 1)]


async def test_a_store_that_is_away_for_a_while_gets_it_all_later(daemon: Daemon, postgres: Postgres) -> None:
    async with client(daemon) as sandbox, PostgresStore.open(postgres.dsn) as store:
        session = await sandbox.create_session("mock", cwd=str(daemon.home))
        key = SessionKey(daemon.url, session.id)
        async with mirrored(session, store, key=key) as mirror:
            await session.prompt("hello")
            await caught_up(session, mirror)
            async with postgres.away():
                for _ in range(5):
                    await session.prompt("meanwhile")
                with pytest.raises(StoreUnavailable):
                    await store.position(key)
        assert await records(store, key) == await told(session)


async def test_a_store_that_stays_away_is_given_up(daemon: Daemon, postgres: Postgres) -> None:
    async with client(daemon) as sandbox, PostgresStore.open(postgres.dsn) as store:
        session = await sandbox.create_session("mock", cwd=str(daemon.home))
        async with postgres.away():
            with pytest.raises(StoreUnavailable):
                await Mirror(session, store, KEY, outage=0.5).run()


async def test_an_owner_before_mirrors_nothing_any_more(daemon: Daemon, tmp_path: Path) -> None:
    async with client(daemon) as sandbox, SqliteStore.open(tmp_path / "store.db") as store:
        session = await sandbox.create_session("mock", cwd=str(daemon.home))
        await session.prompt("hello")
        old = await store.acquire(KEY, "one", 30)
        new = await store.acquire(KEY, "one", 30)
        with pytest.raises(LeaseLost):
            await Mirror(session, store, KEY, old.generation).run()
        assert await entries(store, KEY) == []
        async with mirrored(session, store, new.generation):
            pass
        assert await records(store) == await told(session)


async def until(true: Callable[[], bool]) -> None:
    while True:
        if true():
            return
        await anyio.sleep(0.005)


# -- what no daemon does on demand


class Scripted:
    """A session that tells what it is told to, and counts how much was taken."""

    epoch: str | None = "e"

    def __init__(self, said: Sequence[Event | Gap] | None = None) -> None:
        self.taken = 0
        self._said = said

    @asynccontextmanager
    async def events(self, after: int = 0, *, epoch: str | None = None) -> AsyncGenerator[Stream]:
        yield self

    def __aiter__(self) -> AsyncIterator[Event | Gap]:
        return self

    async def __anext__(self) -> Event | Gap:
        await anyio.lowlevel.checkpoint()
        self.taken += 1
        if self._said is None:
            return event(self.taken)
        if self.taken > len(self._said):
            await anyio.sleep_forever()
        return self._said[self.taken - 1]


def event(seq: int, kind: str = "x", raw: bytes = b"{}") -> Event:
    return OtherEvent(seq=seq, at=datetime.now(UTC), kind=kind, direction="agent", incarnation=1, raw=raw)


class Stuck(SqliteStore):
    """Takes nothing from the second append on."""

    appends = 0

    async def append(
        self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None
    ) -> int:
        self.appends += 1
        if self.appends > 1:
            await anyio.sleep_forever()
        return await super().append(key, epoch, records, generation)


async def test_a_store_that_is_stuck_holds_up_the_reader_and_not_the_memory(tmp_path: Path) -> None:
    source = Scripted()
    async with Stuck.open(tmp_path / "store.db") as store:
        with anyio.move_on_after(0.5):
            await Mirror(source, store, KEY).run()
        stored = len(await seqs(store, KEY))
    assert stored < source.taken <= stored + BATCH_EVENTS + ROOM + 2


async def test_what_agents_call_things_is_stored_in_any_store(tmp_path: Path, postgres: Postgres) -> None:
    said = [event(1, "half \ud83d", rb'{"method":"half \ud83d"}'), event(2, "nul \0", rb'{"method":"nul \u0000"}')]
    async with SqliteStore.open(tmp_path / "one.db") as one, PostgresStore.open(postgres.dsn) as other:
        for store in (one, other):
            key = SessionKey(f"docker/{os.urandom(6).hex()}", "s")
            mirror = Mirror(Scripted(said), store, key)
            with anyio.fail_after(WITHIN):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(mirror.run)
                    await mirror.reached("e", 2)
                    tasks.cancel_scope.cancel()
            found = [one.record for one in await entries(store, key)]
            assert [one.raw for one in found if isinstance(one, EventRecord)] == [one.raw for one in said]
            assert [one.kind for one in found if isinstance(one, EventRecord)] == ["half ?", "nul \ufffd"]


async def test_a_hole_in_what_the_server_tells_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db") as store:
        with anyio.fail_after(WITHIN), pytest.raises(PersistenceError, match="event 2"):
            await Mirror(Scripted([event(1), event(3)]), store, KEY).run()
        assert len(await entries(store, KEY)) <= 1


async def test_a_gap_in_the_middle_stands_where_it_was(tmp_path: Path) -> None:
    gap = Gap(first=2, last=4, reason="damaged", next=5, epoch="e")
    async with SqliteStore.open(tmp_path / "store.db") as store:
        mirror = Mirror(Scripted([event(1), gap, event(5)]), store, KEY)
        with anyio.fail_after(WITHIN):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mirror.run)
                await mirror.reached("e", 5)
                tasks.cancel_scope.cancel()
        found = await records(store)
        assert [(one.first, one.last) for one in found] == [(1, 1), (2, 4), (5, 5)]
        assert found[1] == GapRecord(2, 4, "damaged")


async def test_journals_that_take_turns_are_told_apart(tmp_path: Path) -> None:
    def turn(reason: str, epoch: str, next: int = 1) -> Gap:
        return Gap(first=9, last=8, reason=reason, next=next, epoch=epoch)

    said: list[Event | Gap] = [
        event(1),
        turn("ahead", "e"),
        event(1),
        turn("ahead", "e", 3),
        event(3),
        turn("epoch", "f"),
        event(1),
        event(2),
        turn("epoch", "e"),
        event(1),
        event(2),
    ]
    async with SqliteStore.open(tmp_path / "store.db") as store:
        mirror = Mirror(Scripted(said), store, KEY)
        with anyio.fail_after(WITHIN):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mirror.run)
                await until(lambda: mirror.position == Position("e", 2))
                tasks.cancel_scope.cancel()
        assert [(one.epoch, one.record.first, one.record.last) for one in await entries(store, KEY)] == [
            ("e", 1, 1),
            ("e#2", 1, 1),
            ("e#3", 1, 2),
            ("e#3", 3, 3),
            ("f", 1, 1),
            ("f", 2, 2),
            ("e", 2, 2),
        ]
