"""Both drivers keep to what a store is, under asyncio and Trio; and a driver that does not is found out."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.errors import PersistenceError
from sandbox_agent.persistence import SqliteStore
from sandbox_agent.persistence.conformance import CHECKS, Check, Subject, check_store, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from sandbox_agent.persistence import Lease, Record, SessionKey, Store
    from support.postgres import Postgres

ON_EVENT_LOOPS = ("several_who_append", "cancelled", "of_several_who_race", "nothing_of_an_owner_before")
"""What has tasks or cancels them, and so is checked under both. The rest goes on in threads alike."""
SQLITE = "sandbox_agent.persistence:SqliteStore.open"
POSTGRES = "sandbox_agent.persistence:PostgresStore.open"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "sessions.db"


def under(usual: str, other: str) -> pytest.MarkDecorator:
    """All checks under one event loop, some under the other one as well."""
    both = [check for check in CHECKS if any(part in name_of(check) for part in ON_EVENT_LOOPS)]
    cases = [(check, usual) for check in CHECKS] + [(check, other) for check in both]
    ids = [f"{name_of(check)}-{backend}" for check, backend in cases]
    return pytest.mark.parametrize(("check", "backend"), cases, ids=ids)


@under("trio", "asyncio")
def test_sqlite_conforms(file: Path, check: Check, backend: str) -> None:
    anyio.run(check, Subject(SQLITE, str(file)), backend=backend)


@under("asyncio", "trio")
def test_postgresql_conforms(postgres: Postgres, check: Check, backend: str) -> None:
    anyio.run(check, Subject(POSTGRES, postgres.dsn), backend=backend)


WRONG = (AssertionError, PersistenceError)


class Forgetful(SqliteStore):
    """Lets whoever comes append, and leases go to everybody."""

    async def append(
        self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None
    ) -> int:
        known = await self.position(key)
        fresh = [one for one in records if known is None or one.last > known.seq]
        return await super().append(key, epoch, fresh, (await self.acquire(key, "x", 60)).generation)

    async def acquire(self, key: SessionKey, owner: str, ttl: float, above: int = 0) -> Lease:
        return await super().acquire(key, "anybody", ttl, above)


@asynccontextmanager
async def open_forgetful(path: str) -> AsyncGenerator[Store]:
    async with Forgetful.open(path) as store:
        yield store


@pytest.mark.parametrize(
    "name",
    [
        "a_new_epoch_begins_anew_and_the_old_one_stays",
        "one_at_a_time_has_the_lease",
        "owners_before_append_nothing",
        "of_several_who_race_one_holds",
    ],
)
async def test_a_driver_that_does_not_is_found_out(tmp_path: Path, name: str) -> None:
    (check,) = [check for check in CHECKS if name_of(check) == name]
    with pytest.raises(WRONG):
        await check(Subject(f"{__name__}:open_forgetful", str(tmp_path / "store.db")))


async def test_all_checks_together_find_it_out_as_well(tmp_path: Path) -> None:
    with pytest.raises(WRONG):
        await check_store(f"{__name__}:open_forgetful", str(tmp_path / "store.db"))
