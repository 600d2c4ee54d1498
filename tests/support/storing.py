"""What tests of stores have in common: processes that write to one, and are killed; what is in it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Generator

    from sandbox_agent.persistence import Entry, SessionKey, Store

__all__ = ["POSTGRES", "SQLITE", "entries", "racing", "seqs", "until_stored"]

SQLITE = "sandbox_agent.persistence:SqliteStore.open"
POSTGRES = "sandbox_agent.persistence:PostgresStore.open"


@contextmanager
def racing(
    opener: str, target: str, role: str, key: SessionKey, name: str, count: int
) -> Generator[subprocess.Popen[str]]:
    """A process that is at work in the store, see `sandbox_agent.persistence.racer`; it is killed in the end."""
    command = [sys.executable, "-m", "sandbox_agent.persistence.racer", opener, target, role]
    with subprocess.Popen(
        [*command, key.sandbox, key.session, name, str(count)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def entries(store: Store, key: SessionKey) -> list[Entry]:
    """All of a session."""
    found: list[Entry] = []
    while page := await store.events(key, found[-1].number if found else 0):
        found += page
    return found


async def until_stored(store: Store, key: SessionKey, seq: int) -> None:
    """Wait until an event, or a later one, is in it."""
    while True:
        at = await store.position(key)
        if at is not None and at.seq >= seq:
            return
        await anyio.sleep(0.002)


async def seqs(store: Store, key: SessionKey) -> list[int]:
    return [one.record.last for one in await entries(store, key)]
