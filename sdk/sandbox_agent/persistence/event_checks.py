"""The checks of `conformance` that are about events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..errors import LeaseLost, PersistenceError
from ..scope import plainly
from .racer import append_all, record
from .store import GapRecord, Position, SessionKey
from .trial import LONG, RACERS, SHORT, all_of, expect, expect_error, expect_seqs, listed, race

if TYPE_CHECKING:
    from .store import Record, Store
    from .trial import Check, Subject

__all__ = ["EVENT_CHECKS"]

ODD = (
    b'{"jsonrpc":"2.0","method":"a\\u0000b"}',
    b'{"half":"\\ud83d","other":"\\udc00"}',
    '{"separators":"\u2028\u2029\x85","wide":"\U0001f980","mixed":"e\u0301\ufeff"}'.encode(),
    b'{ "spaces" :  1.50e+2 ,\t"again":1,"again":2}',
    b'{"n":12345678901234567890123456789012345678901234567890}',
    b'{"quote":"\'\\\\ \\" %s $1 ? :name"}',
    b'{"no text":"\xff\xfe\x80"}',
    b"[]",
    b'{"large":"' + b"x" * (1 << 20) + b'"}',
)
"""Envelopes, of which the last is larger than most."""


async def check_what_nobody_has_stored_is_not_there(subject: Subject) -> None:
    async with subject.open() as store:
        expect(await store.position(subject.key) is None, "there is a position before anything was stored")
        expect(await store.events(subject.key) == [], "there are events before any was stored")
        await store.forget(subject.key)
        keys = [one.key for one in await listed(store)]
        expect(subject.key not in keys, "asking for a session makes one")


async def check_envelopes_stay_what_they_were(subject: Subject) -> None:
    records = [record(seq, raw) for seq, raw in enumerate(ODD, 1)]
    async with subject.open() as store:
        made = await store.append(subject.key, "e", records)
        expect(made == len(records), f"{len(records)} new events made {made} entries")
    async with subject.open() as store:
        found = await all_of(store, subject.key)
        for told, stored in zip(records, found, strict=True):
            expect(stored.record == told, f"{told.raw[:60]!r} came back as {stored.record!r:.200}")
        expect([one.number for one in found] == [*range(1, len(ODD) + 1)], "the entries are not numbered from 1")
        expect(await store.position(subject.key) == Position("e", len(ODD)), "the position is not the last event's")


async def check_what_is_delivered_again_is_left_out(subject: Subject) -> None:
    async with subject.open() as store:
        for batch, new in (([1, 2, 3], 3), ([1, 2, 3], 0), ([2, 3, 4, 5], 2), ([5], 0), ([], 0), ([6], 1)):
            made = await store.append(subject.key, "e", [record(seq) for seq in batch])
            expect(made == new, f"the events {batch} made {made} entries, and not {new}")
        await expect_seqs(store, subject.key, range(1, 7))


async def check_a_hole_is_refused_with_all_of_its_batch(subject: Subject) -> None:
    async with subject.open() as store:
        await store.append(subject.key, "e", [record(1)])
        for batch in ([3], [2, 4], [2, 3, 5, 6]):
            await expect_error(PersistenceError, store.append(subject.key, "e", [record(seq) for seq in batch]))
        await expect_error(PersistenceError, store.append(subject.key, "f", [record(2)]))
        await expect_error(PersistenceError, store.append(subject.key, "e", [GapRecord(3, 4, "retention")]))
        await expect_error(PersistenceError, store.append(subject.key, "e", [GapRecord(4, 3, "retention")]))
        await expect_seqs(store, subject.key, [1])
        expect(await store.position(subject.key) == Position("e", 1), "a batch that was refused has moved the position")


async def check_gaps_are_kept_and_close_holes(subject: Subject) -> None:
    async with subject.open() as store:
        key = subject.key
        await store.append(key, "e", [GapRecord(1, 40, "retention"), record(41)])
        await store.append(key, "e", [GapRecord(40, 45, "damaged"), record(44), record(46)])
        await store.append(key, "e", [GapRecord(2, 46, "damaged")])
        expected: list[Record] = [GapRecord(1, 40, "retention"), record(41), GapRecord(42, 45, "damaged"), record(46)]
        found = [one.record for one in await all_of(store, key)]
        expect(found == expected, f"gaps and events came back as {found}")
        expect(await store.position(key) == Position("e", 46), "the position is not behind the last gap and event")


async def check_a_new_epoch_begins_anew_and_the_old_one_stays(subject: Subject) -> None:
    async with subject.open() as store:
        key = subject.key
        await store.append(key, "old", [record(1), record(2)])
        await store.append(key, "new", [record(1, b'"new"')])
        expect(await store.position(key) == Position("new", 1), "the position is not that of the new epoch")
        expect(await store.append(key, "old", [record(2)]) == 0, "an event of the old epoch was stored twice")
        expect(await store.position(key) == Position("new", 1), "an event that was there already moved the position")
        await store.append(key, "old", [record(3)])  # its journal is back
        found = [(one.number, one.epoch, one.record.last) for one in await all_of(store, key)]
        expect(found == [(1, "old", 1), (2, "old", 2), (3, "new", 1), (4, "old", 3)], f"epochs came back as {found}")
        expect(await store.position(key) == Position("old", 3), "the position is not that of the newest entry")


async def check_pages_tell_every_entry_once(subject: Subject) -> None:
    sizes = [10, 3 << 20, 3 << 20, 3 << 20, 10, 20 << 20, 10]
    records = [record(seq, b"x" * size) for seq, size in enumerate(sizes, 1)]
    async with subject.open() as store:
        for one in records:
            await store.append(subject.key, "e", [one])
        first = await store.events(subject.key)
        expect(len(first) < len(records), "a page has no bound in bytes")
        for limit in (1, 2, 500):
            found = [one.record for one in await all_of(store, subject.key, limit)]
            expect(found == records, f"pages of {limit} do not tell every entry once")
        expect(await store.events(subject.key, len(records)) == [], "there is something behind the last entry")


async def check_sessions_are_listed_in_order(subject: Subject) -> None:
    sandbox = subject.key.sandbox
    keys = [SessionKey(sandbox, name) for name in ("B", "a", "a/b", "\xe4", "\uff21", "\U0001f980")]
    async with subject.open() as store:
        for key in reversed(keys):
            await store.append(key, "e", [record(1)])
        lease = await store.acquire(keys[0], "me", SHORT)
        for limit in (1, 4, 500):
            found = [one for one in await listed(store, limit) if one.key.sandbox == sandbox]
            expect([one.key for one in found] == keys, f"pages of {limit} sessions are {found}")
            told = [(one.position, one.entries, one.generation) for one in found[:2]]
            at = Position("e", 1)
            expect(told == [(at, 1, lease.generation), (at, 1, 0)], f"sessions are told as {told}")
        only = SessionKey(sandbox, "0")
        await store.acquire(only, "me", SHORT)
        (first,) = await store.sessions(SessionKey(sandbox, ""), 1)
        expect((first.key, first.position, first.entries) == (only, None, 0), "one with a lease alone is not told")


async def check_forgetting_keeps_the_generation(subject: Subject) -> None:
    async with subject.open() as store:
        key = subject.key
        old = await store.acquire(key, "a", LONG)
        await store.append(key, "e", [record(1)], old.generation)
        await store.release(old)
        new = await store.acquire(key, "b", LONG)
        await store.forget(key)
        expect(await store.events(key) == [] and await store.position(key) is None, "something is left")
        await expect_error(LeaseLost, store.append(key, "e", [record(1)], old.generation))
        await store.append(key, "e", [record(1)], new.generation)
        await expect_seqs(store, key, [1])


async def check_several_who_append_store_each_event_once(subject: Subject) -> None:
    async with subject.open() as one, subject.open() as other:
        made: list[int] = []

        async def append(store: Store) -> None:
            made.append(await append_all(store, subject.key, 40))

        async with plainly(anyio.create_task_group()) as tasks:
            for number in range(RACERS):
                tasks.start_soon(append, (one, other)[number % 2])
        expect(sum(made) == 40, f"40 events made {sum(made)} entries")
        await expect_seqs(one, subject.key, range(1, 41))


async def check_several_processes_store_each_event_once(subject: Subject) -> None:
    made = sum(int(told) for told in await race(subject, "append", 60))
    expect(made == 60, f"60 events made {made} entries")
    async with subject.open() as store:
        await expect_seqs(store, subject.key, range(1, 61))


async def check_what_was_cancelled_has_happened_or_not(subject: Subject) -> None:
    records = [record(seq, b"x" * 1000) for seq in range(1, 501)]
    async with subject.open() as store:
        for within in (0.0, 0.001, 0.005, 0.02):
            with anyio.move_on_after(within):
                await store.append(subject.key, "e", records)
            await store.append(subject.key, "f", [record(1)])  # it goes on, at once
            stored = len([one for one in await all_of(store, subject.key) if one.epoch == "e"])
            expect(stored in (0, len(records)), f"a part of a batch was stored: {stored} of {len(records)}")


EVENT_CHECKS: tuple[Check, ...] = (
    check_what_nobody_has_stored_is_not_there,
    check_envelopes_stay_what_they_were,
    check_what_is_delivered_again_is_left_out,
    check_a_hole_is_refused_with_all_of_its_batch,
    check_gaps_are_kept_and_close_holes,
    check_a_new_epoch_begins_anew_and_the_old_one_stays,
    check_pages_tell_every_entry_once,
    check_sessions_are_listed_in_order,
    check_forgetting_keeps_the_generation,
    check_several_who_append_store_each_event_once,
    check_several_processes_store_each_event_once,
    check_what_was_cancelled_has_happened_or_not,
)
