"""The log of a process: bounded, and nothing lost between what was there and what comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from sandbox_actors.processes import Entry, Gap, LogCursor, ProcessLog

PIECES = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=20)), max_size=30)


def whole(entries: list[Entry]) -> bytes:
    return b"".join(entry.data for entry in entries)


async def read_all(cursor: LogCursor) -> tuple[bytes, list[Gap]]:
    """To the end of a log that has ended."""
    data, gaps = b"", []
    async for read in cursor:
        if isinstance(read, Gap):
            gaps.append(read)
        else:
            data += whole(read)
    return data, gaps


@given(PIECES, st.integers(1, 200))
def test_what_is_kept_is_the_end_of_what_was_written(pieces: list[tuple[str, bytes]], limit: int) -> None:
    log = ProcessLog(limit)
    for stream, data in pieces:
        log.append(stream, data)  # type: ignore[arg-type]  # one of two names
    everything = b"".join(data for _, data in pieces)
    entries = log.after(0)
    assert whole(entries) == everything[-limit:]
    assert log.size == min(limit, len(everything))
    assert log.head == len(pieces)
    assert [entry.sequence for entry in entries] == list(range(log.floor, log.head + 1))
    for stream in ("stdout", "stderr"):
        own = b"".join(data for name, data in pieces if name == stream)
        for entry in entries:
            if entry.stream == stream:
                assert own[entry.offset : entry.offset + len(entry.data)] == entry.data


@given(PIECES, st.integers(0, 40), st.integers(1, 30))
def test_a_read_gives_all_behind_a_number_or_the_beginning_of_that(
    pieces: list[tuple[str, bytes]], after: int, at_most: int
) -> None:
    log = ProcessLog(1 << 20)
    for stream, data in pieces:
        log.append(stream, data)  # type: ignore[arg-type]  # one of two names
    entries = log.after(after)
    assert [entry.sequence for entry in entries] == list(range(after + 1, log.head + 1))
    some = log.after(after, at_most)
    assert some == entries[: len(some)]
    assert bool(some) == bool(entries)
    assert len(whole(some[:-1])) < at_most


@pytest.mark.parametrize("limit", [1, 7, 64])
def test_one_piece_larger_than_the_log_leaves_its_end(limit: int) -> None:
    log = ProcessLog(limit)
    log.append("stdout", b"before")
    log.append("stdout", bytes(range(100)))
    (entry,) = log.after(0)
    assert entry.data == bytes(range(100))[-limit:]
    assert (entry.sequence, entry.offset) == (2, 106 - limit)


def test_a_log_of_single_bytes_is_bounded_by_count_as_well() -> None:
    log = ProcessLog(1 << 30)
    for _ in range(140_000):
        log.append("stdout", b"x")
    assert len(log.after(0)) == 1 << 17
    assert log.size == 1 << 17


async def test_a_reader_from_any_point_sees_what_was_there_and_what_comes_without_a_seam() -> None:
    log = ProcessLog(1 << 20)
    seen: dict[int, bytes] = {}

    async def follow(after: int) -> None:
        data, gaps = await read_all(log.cursor(after))
        assert gaps == []
        seen[after] = data

    for number in range(10):
        log.append("stdout", b"%d" % number)
    async with trio.open_nursery() as nursery:
        for after in (0, 3, 9, 10):
            nursery.start_soon(follow, after)
        for number in range(10, 100):
            log.append("stdout", b"%d" % number)
            if number % 7 == 0:
                await trio.testing.wait_all_tasks_blocked()
        log.end()
    everything = [b"%d" % number for number in range(100)]
    assert seen == {after: b"".join(everything[after:]) for after in (0, 3, 9, 10)}


async def test_a_slow_reader_is_told_what_it_missed_and_goes_on() -> None:
    log = ProcessLog(10)
    log.append("pty", b"12345")
    cursor = log.cursor()
    assert whole(await anext(cursor)) == b"12345"  # type: ignore[arg-type]  # nothing was dropped yet
    for _ in range(4):
        log.append("pty", b"abcde")
    assert await anext(cursor) == Gap(2, 3, 10)
    read = await anext(cursor)
    assert not isinstance(read, Gap)
    assert [entry.sequence for entry in read] == [4, 5]
    log.append("pty", b"0123456")
    log.append("pty", b"7")
    # Only the begin of the next piece is gone: the bytes are told, and no whole piece.
    log.append("pty", b"89abc")
    assert await anext(cursor) == Gap(6, 5, 3)
    log.end()
    assert await read_all(cursor) == (b"3456" + b"7" + b"89abc", [])


async def test_a_reader_that_names_a_number_long_gone_is_told_so() -> None:
    log = ProcessLog(5)
    for _ in range(10):
        log.append("stdout", b"12345")
    log.end()
    assert await read_all(log.cursor(3)) == (b"12345", [Gap(4, 9, None)])


async def test_a_reader_that_names_a_number_to_come_waits_for_what_is_behind_it() -> None:
    log = ProcessLog(100)
    log.append("stdout", b"1")
    cursor = log.cursor(2)
    for data in (b"2", b"3"):
        log.append("stdout", data)
    log.end()
    assert await read_all(cursor) == (b"3", [])


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=20), st.integers(0, 60))
def test_the_tail_is_as_many_whole_pieces_as_fit(pieces: list[bytes], size: int) -> None:
    async def check() -> None:
        log = ProcessLog(1 << 20)
        for data in pieces:
            log.append("pty", data)
        log.end()
        start = log.tail(size).position
        data, gaps = await read_all(log.tail(size))
        assert gaps == []
        assert data == b"".join(pieces[start:])
        assert len(data) <= size
        assert start == 0 or len(b"".join(pieces[start - 1 :])) > size

    trio.run(check)


async def test_a_waiting_reader_can_be_cancelled_and_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    log = ProcessLog(100)
    cursor = log.cursor()
    for _ in range(3):
        with trio.move_on_after(1) as waiting:
            await anext(cursor)
        assert waiting.cancelled_caught
    log.append("stdout", b"here")
    assert whole(await anext(cursor)) == b"here"  # type: ignore[arg-type]  # nothing was dropped


async def test_the_position_of_a_reader_is_what_it_has_seen() -> None:
    log = ProcessLog(1 << 30)
    for _ in range(40):
        log.append("stdout", bytes(20_000))
    log.end()
    cursor = log.cursor()
    positions = [0]
    async for read in cursor:
        assert not isinstance(read, Gap)
        assert read[0].sequence == positions[-1] + 1
        positions.append(cursor.position)
    assert len(positions) > 2
    assert all(one < other for one, other in pairwise(positions))
