"""The checks of `conformance` that are about leases."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio

from ..errors import LeaseHeld, LeaseLost, PersistenceError
from ..scope import plainly
from .racer import hold_often, record
from .store import SessionKey
from .trial import LONG, RACERS, SHORT, all_of, expect, expect_error, expect_seqs, race

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Lease, Store
    from .trial import Check, Subject

__all__ = ["LEASE_CHECKS"]


async def check_one_at_a_time_has_the_lease(subject: Subject) -> None:
    async with subject.open() as store, subject.open() as other:
        lease = await store.acquire(subject.key, "one", LONG)
        for asked in (store, other):
            held = await expect_error(LeaseHeld, asked.acquire(subject.key, "two", LONG))
            expect(held.owner == "one", f"the owner is told to be {held.owner}")
            expect(0 < held.expires_in <= LONG, f"it is told to run out in {held.expires_in} s, of {LONG}")
        # Of another session it is another one.
        expect((await store.acquire(SessionKey(subject.key.sandbox, "t"), "two", LONG)).generation == 1, "they mix")
        await store.release(lease)
        next = await other.acquire(subject.key, "two", LONG)
        expect(next.generation == lease.generation + 1, "the generation did not grow by one")
        await store.release(lease)
        await expect_error(LeaseHeld, store.acquire(subject.key, "three", LONG))


async def check_generations_grow_above_what_is_known_elsewhere(subject: Subject) -> None:
    async with subject.open() as store:
        for above, expected in ((0, 1), (7, 8), (3, 9)):
            lease = await store.acquire(subject.key, "one", LONG, above)
            expect(lease.generation == expected, f"above {above} comes {lease.generation}, and not {expected}")


async def check_an_owner_takes_over_from_its_former_self(subject: Subject) -> None:
    async with subject.open() as store:
        before = await store.acquire(subject.key, "one", LONG)
        after = await store.acquire(subject.key, "one", LONG)
        expect(after.generation == before.generation + 1, "the generation did not grow by one")
        await expect_error(LeaseLost, store.renew(before, LONG))
        await store.release(before)
        await store.renew(after, LONG)


async def check_a_lease_runs_out_and_not_before(subject: Subject) -> None:
    async with subject.open() as store:
        start = anyio.current_time()
        lease = await store.acquire(subject.key, "one", SHORT)
        asked, next = start, await _taken(store, subject.key, SHORT)
        while next is None:
            expect(anyio.current_time() - start < 10 * SHORT, "it does not run out")
            await anyio.sleep(SHORT / 20)
            asked, next = anyio.current_time(), await _taken(store, subject.key, SHORT)
        expect(anyio.current_time() - start >= SHORT * 0.9, f"it ran out after {asked - start:.3f} s of {SHORT}")
        expect(next.generation == lease.generation + 1, "the generation did not grow by one")
        await expect_error(LeaseLost, store.renew(lease, SHORT))


async def check_a_renewed_lease_lasts_longer(subject: Subject) -> None:
    async with subject.open() as store:
        ttl = 3 * SHORT
        lease = await store.acquire(subject.key, "one", ttl)
        for _ in range(4):
            await anyio.sleep(SHORT)
            await store.renew(lease, ttl)
        held = await expect_error(LeaseHeld, store.acquire(subject.key, "two", ttl))
        expect(0 < held.expires_in <= ttl, f"it is told to run out in {held.expires_in} s, of {ttl}")


async def check_what_has_run_out_is_not_renewed(subject: Subject) -> None:
    async with subject.open() as store:
        lease = await store.acquire(subject.key, "one", SHORT / 4)
        await anyio.sleep(SHORT / 2)
        await expect_error(LeaseLost, store.renew(lease, LONG))
        released = await store.acquire(subject.key, "one", LONG)
        await store.release(released)
        await expect_error(LeaseLost, store.renew(released, LONG))


async def check_owners_before_append_nothing(subject: Subject) -> None:
    async with subject.open() as store, subject.open() as other:
        key = subject.key
        old = await store.acquire(key, "one", LONG)
        await store.append(key, "e", [record(1)], old.generation)
        await expect_error(PersistenceError, store.append(key, "e", [record(2)]), never=LeaseLost)
        await expect_error(PersistenceError, store.append(key, "e", [record(2)], old.generation + 1), never=LeaseLost)
        await store.release(old)
        await store.append(key, "e", [record(2)], old.generation)  # nobody else has come
        new = await other.acquire(key, "two", LONG)
        for batch in ([3], [2], []):
            stale = store.append(key, "e", [record(seq) for seq in batch], old.generation)
            await expect_error(LeaseLost, stale)
        await other.append(key, "e", [record(3)], new.generation)
        await expect_seqs(store, key, [1, 2, 3])


async def check_nothing_of_an_owner_before_comes_after_the_next_one(subject: Subject) -> None:
    async with subject.open() as store, subject.open() as other:
        key, first, seen = subject.key, anyio.Event(), 0

        async def append(generation: int) -> None:
            for seq in range(1, 1000):
                try:
                    await store.append(key, "e", [record(seq)], generation)
                except LeaseLost:
                    return
                first.set()

        async def take_over() -> None:
            nonlocal seen
            await first.wait()
            await other.release(old)
            await other.acquire(key, "two", LONG)
            seen = len(await all_of(other, key))

        old = await store.acquire(key, "one", LONG)
        async with plainly(anyio.create_task_group()) as tasks:
            tasks.start_soon(append, old.generation)
            tasks.start_soon(take_over)
        expect(len(await all_of(other, key)) == seen, "an append of the owner before came after the next one's lease")


async def check_of_several_who_race_one_holds(subject: Subject) -> None:
    async with subject.open() as one, subject.open() as other:
        held: list[tuple[int, float, float]] = []

        async def race(number: int) -> None:
            held.extend(await hold_often((one, other)[number % 2], subject.key, f"task {number}", 5))

        async with plainly(anyio.create_task_group()) as tasks:
            for number in range(RACERS):
                tasks.start_soon(race, number)
        _expect_one_at_a_time(held)


async def check_of_several_processes_that_race_one_holds(subject: Subject) -> None:
    _expect_one_at_a_time([one for told in await race(subject, "lease", 8) for one in json.loads(told)])
    async with subject.open() as store:
        await expect_seqs(store, subject.key, range(1, RACERS * 8 + 1))


async def _taken(store: Store, key: SessionKey, ttl: float) -> Lease | None:
    """The lease, if it can be had."""
    try:
        return await store.acquire(key, "two", ttl)
    except LeaseHeld:
        return None


def _expect_one_at_a_time(held: Sequence[tuple[int, float, float]]) -> None:
    """Each holding is a generation, and from when to when it lasted."""
    held = sorted(held)
    expect([generation for generation, _, _ in held] == [*range(1, len(held) + 1)], f"the generations were {held}")
    for (_, _, end), (generation, start, _) in pairwise(held):
        expect(end <= start, f"generation {generation} was held from {start}, the one before until {end}")


LEASE_CHECKS: tuple[Check, ...] = (
    check_one_at_a_time_has_the_lease,
    check_generations_grow_above_what_is_known_elsewhere,
    check_an_owner_takes_over_from_its_former_self,
    check_a_lease_runs_out_and_not_before,
    check_a_renewed_lease_lasts_longer,
    check_what_has_run_out_is_not_renewed,
    check_owners_before_append_nothing,
    check_nothing_of_an_owner_before_comes_after_the_next_one,
    check_of_several_who_race_one_holds,
    check_of_several_processes_that_race_one_holds,
)
