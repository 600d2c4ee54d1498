"""One of several processes that race in a store: what `conformance` starts, and reads its reports.

Usage: python -m sandbox_agent.persistence.racer OPENER TARGET append|lease SANDBOX SESSION NAME COUNT
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import anyio

from ..errors import LeaseHeld
from .store import EventRecord, SessionKey

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .store import Store

__all__ = ["APPENDED", "append_all", "hold_often", "open_store", "record"]

APPENDED = 3
"""Events of one append, of which the next one has all but the first again."""

HELD_FOR, ASKED_EVERY = 0.01, 0.002
"""Seconds."""

LASTS = 30.0
"""Seconds: leases are released here, and none runs out."""


def open_store(opener: str, target: str) -> AbstractAsyncContextManager[Store]:
    """A store, by where its class method, or function, is: `package.module:Class.open`."""
    module, _, names = opener.partition(":")
    found: Any = import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return cast("AbstractAsyncContextManager[Store]", found(target))


def record(seq: int, raw: bytes = b"") -> EventRecord:
    """Any event; the same number gives the same one."""
    return EventRecord(seq, 1_700_000_000_000 + seq, "turn.queued", "notice", 1, raw or b'{"n":%d}' % seq)


async def append_all(store: Store, key: SessionKey, count: int) -> int:
    """Append the events up to a number, each several times; gives how many entries that made."""
    made = 0
    for seq in range(1, count + 1):
        made += await store.append(key, "e", [record(one) for one in range(seq, min(seq + APPENDED, count + 1))])
    return made


async def hold_often(store: Store, key: SessionKey, name: str, count: int) -> list[tuple[int, float, float]]:
    """Hold the lease so many times; gives each time the generation, and from when to when, by the machine's clock."""
    held: list[tuple[int, float, float]] = []
    while len(held) < count:
        try:
            lease = await store.acquire(key, name, LASTS)
        except LeaseHeld:
            await anyio.sleep(ASKED_EVERY)
            continue
        start = time.monotonic()
        await store.append(key, "e", [record(lease.generation)], lease.generation)
        await anyio.sleep(HELD_FOR)
        held.append((lease.generation, start, time.monotonic()))
        await store.release(lease)
    return held


async def main(*args: str) -> None:
    opener, target, role, sandbox, session, name, count = args
    key = SessionKey(sandbox, session)
    async with open_store(opener, target) as store:
        if role == "append":
            print(await append_all(store, key, int(count)))
        else:
            print(json.dumps(await hold_often(store, key, name, int(count))))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
