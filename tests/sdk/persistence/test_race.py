"""Two backends race for one session, and the one that drives is stopped until its lease is another one's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sandbox_agent import SandboxAgent
from sandbox_agent.errors import LeaseHeld
from sandbox_agent.persistence import EventRecord, PostgresStore, SessionKey, SqliteStore
from support.daemon import running
from support.storing import POSTGRES, SQLITE, entries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sandbox_agent import Session
    from sandbox_agent.events import Event
    from support.daemon import Daemon
    from support.postgres import Postgres

Json = Any
BACKEND = Path(__file__).parents[2] / "support" / "backend.py"
TTL = 2.5
SOON = 50
"""Lines: a prompt or so is under way when it is stopped."""

WITHIN = 60


@dataclass(slots=True, eq=False)
class Backend:
    """A process that drives the session when it can."""

    name: str
    process: trio.Process
    _text: bytes = b""

    async def line(self) -> Json:
        """What it does next."""
        assert self.process.stdout is not None
        while b"\n" not in self._text:
            more = await self.process.stdout.receive_some()
            assert more, f"{self.name} has ended with {await self.process.wait()}"
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        return json.loads(line)

    async def until(self, member: str) -> Json:
        """The next line that has this; it comes soon."""
        for _ in range(SOON):
            if member in (line := await self.line()):
                return line[member]
        raise AssertionError(f"{self.name} goes on, and is never {member}")


@asynccontextmanager
async def backend(daemon: Daemon, store: tuple[str, str], id: str, name: str, how: str) -> AsyncGenerator[Backend]:
    command = [sys.executable, str(BACKEND), daemon.url, daemon.token, *store, id, name, str(TTL), how]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        yield Backend(name, process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def first_to_hold(backends: list[Backend]) -> tuple[Backend, Backend]:
    """Whoever gets the lease, and the other one."""
    first: list[Backend] = []
    async with trio.open_nursery() as nursery:

        async def watch(backend: Backend) -> None:
            await backend.until("holds")
            first.append(backend)
            nursery.cancel_scope.cancel()

        for one in backends:
            nursery.start_soon(watch, one)
    (other,) = [one for one in backends if one not in first]
    return first[0], other


async def events_of(session: Session) -> list[Event]:
    found: list[Event] = []
    while (page := await session.page(found[-1].seq if found else 0)).events:
        found += page.events
    return found


def drives(events: list[Event]) -> list[tuple[int, str | None]]:
    """The owners in the order of the journal: the generation, and of each prompt who sent it."""
    found: list[tuple[int, str | None]] = []
    generation = 0
    for event in events:
        params = event.envelope.get("params", {})
        if event.kind == "session.claimed":
            generation = params["generation"]
            found.append((generation, None))
        elif event.kind == "session/prompt":
            found.append((generation, params["prompt"][0]["text"].partition(" ")[0]))
    return found


# A process that is stopped while it writes keeps SQLite's lock until it goes on; PostgreSQL takes it away.
@pytest.mark.parametrize(("driver", "how"), [("sqlite", "careless"), ("postgres", "guarded")])
async def test_the_one_that_was_stopped_does_nothing_any_more(
    tmp_path: Path, request: pytest.FixtureRequest, driver: str, how: str
) -> None:
    if driver == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        where = (POSTGRES, server.dsn)
    else:
        where = (SQLITE, str(tmp_path / "store.db"))
    with trio.fail_after(WITHIN):
        async with running(tmp_path / "daemon") as daemon, SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
            session = await sandbox.create_session("mock", cwd=str(tmp_path))
            async with (
                backend(daemon, where, session.id, "anna", how) as anna,
                backend(daemon, where, session.id, "bert", how) as bert,
            ):
                first, second = await first_to_hold([anna, bert])
                await first.until("said")
                first.process.send_signal(signal.SIGSTOP)
                assert await second.until("holds") == 2
                await second.until("said")
                head = (await session.refresh()).head
                first.process.send_signal(signal.SIGCONT)
                refused = await first.until("refused")
                assert (
                    refused == "StaleGeneration" if how == "careless" else refused in ("StaleGeneration", "LeaseLost")
                )
                await second.until("said")
                second.process.kill()
            events = await events_of(session)
        told = drives(events)
        claims = [at for at, (_, name) in enumerate(told) if name is None]
        assert [told[at][0] for at in claims] == [1, 2]
        assert {name for _, name in told[claims[0] + 1 : claims[1]]} == {first.name}
        assert {name for _, name in told[claims[1] + 1 :]} == {second.name}
        assert not any(first.name.encode() in event.raw for event in events if event.seq > head)
        if how == "guarded":
            await expect_mirrored(where, SessionKey(daemon.url, session.id), events)


async def expect_mirrored(where: tuple[str, str], key: SessionKey, events: list[Event]) -> None:
    """What both have stored is what the server told, each event once."""
    opener, target = where
    async with (SqliteStore if opener == SQLITE else PostgresStore).open(target) as store:
        stored = [one.record for one in await entries(store, key)]
    assert [one.seq for one in stored if isinstance(one, EventRecord)] == [*range(1, len(stored) + 1)]
    assert [one.raw for one in stored if isinstance(one, EventRecord)] == [one.raw for one in events][: len(stored)]


async def test_a_backend_that_is_killed_is_followed_by_the_other_one_where_it_was(tmp_path: Path) -> None:
    where = (SQLITE, str(tmp_path / "store.db"))
    with trio.fail_after(WITHIN):
        async with running(tmp_path / "daemon") as daemon, SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
            session = await sandbox.create_session("mock", cwd=str(tmp_path))
            for number in range(1, 3):
                async with backend(daemon, where, session.id, f"backend-{number}", "guarded") as one:
                    assert await one.until("holds") == number
                    for _ in range(3):
                        await one.until("said")
                    one.process.kill()
            async with SqliteStore.open(where[1]) as store:
                async with SandboxAgent.connect(daemon.url, daemon.token, store=store, owner="backend-3") as last:
                    while True:
                        try:
                            await last.session(session.id)
                            break
                        except LeaseHeld:
                            await trio.sleep(0.05)
                stored = [one.record for one in await entries(store, SessionKey(daemon.url, session.id))]
            events = await events_of(session)
        assert [one.raw for one in stored if isinstance(one, EventRecord)] == [one.raw for one in events]
