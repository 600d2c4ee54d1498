"""What the checks of `conformance` have in common."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio

from ..scope import plainly
from .racer import open_store
from .store import SessionKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from .store import Entry, Store, StoredSession

__all__ = [
    "LONG",
    "RACERS",
    "SHORT",
    "Check",
    "Subject",
    "all_of",
    "expect",
    "expect_error",
    "expect_seqs",
    "listed",
    "race",
]

E = TypeVar("E", bound=Exception)

RACERS = 3

RACE_WITHIN = 60.0
"""Seconds."""

SHORT, LONG = 0.6, 30.0
"""Seconds that leases last: one that is to run out, and one that is not."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked.

    Attributes:
      opener: what makes an async context manager that gives the store: `package.module:Class.open`.
      target: its one argument: a path, an address.
      key: of a session that nobody else uses.
    """

    opener: str
    target: str
    key: SessionKey = field(default_factory=lambda: SessionKey(f"check/{secrets.token_hex(6)}", "s"))

    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(self.opener, self.target)


Check: TypeAlias = "Callable[[Subject], Awaitable[None]]"


def expect(true: bool, sentence: str) -> None:
    """Raises `AssertionError` with the sentence where it is not so."""
    if not true:
        raise AssertionError(sentence)


async def expect_error(
    kind: type[E], doing: Awaitable[object], never: type[Exception] | tuple[type[Exception], ...] = ()
) -> E:
    """The error of something that has to be refused; `never` are kinds of it that say something else."""
    try:
        done = await doing
    except kind as error:
        expect(not isinstance(error, never), f"this is a {kind.__name__}, and not: {error!r}")
        return error
    raise AssertionError(f"expected {kind.__name__}, and got {done!r}")


async def expect_seqs(store: Store, key: SessionKey, seqs: Iterable[int]) -> None:
    """The events that are stored have these numbers, in this order."""
    found, expected = [one.record.last for one in await all_of(store, key)], [*seqs]
    expect(found == expected, f"expected the events {expected}, and found {found}")


async def all_of(store: Store, key: SessionKey, limit: int = 500) -> list[Entry]:
    """All entries of a session, page by page."""
    found: list[Entry] = []
    while page := await store.events(key, found[-1].number if found else 0, limit):
        expect(len(page) <= limit, f"a page of {limit} has {len(page)} entries")
        found += page
    return found


async def listed(store: Store, limit: int = 500) -> list[StoredSession]:
    """All sessions, page by page."""
    found: list[StoredSession] = []
    while page := await store.sessions(found[-1].key if found else None, limit):
        expect(len(page) <= limit, f"a page of {limit} has {len(page)} sessions")
        found += page
    return found


async def race(subject: Subject, role: str, count: int) -> list[str]:
    """Have several processes do the same at the same time, see `racer`; gives what each reports."""
    reports: list[str] = []

    async def run(name: str) -> None:
        key = subject.key
        command = [sys.executable, "-m", f"{__package__}.racer", subject.opener, subject.target]
        done = await anyio.run_process([*command, role, key.sandbox, key.session, name, str(count)], check=False)
        expect(done.returncode == 0, f"a process that raced has failed: {done.stderr.decode()[-2000:]}")
        reports.append(done.stdout.decode())

    with anyio.fail_after(RACE_WITHIN):
        async with plainly(anyio.create_task_group()) as tasks:
            for number in range(RACERS):
                tasks.start_soon(run, f"process {number}")
    return reports
