"""A subscriber that does not read: it holds up nobody, costs no memory, and gets everything when it reads on."""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from support.clients import EventStream, Session, numbers, parse_events
from support.daemon import Daemon, running

if TYPE_CHECKING:
    from support.clients import Seen

UPDATES = 100_000
SIZE = 200
FAST = 10
GROWTH_LIMIT_KIB = 16 * 1024
ROUNDS = 3
"""Of the measurement: memory that a large burst takes once is not what a stalled reader costs."""

SMALL_BUFFER = 4096
SHUTDOWN_WITHIN = 10.0

ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


def memory_kib(daemon: Daemon, field: str) -> int:
    """`VmRSS`: what is resident now; `VmHWM`: the most since `forget_peak`."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


def forget_peak(daemon: Daemon) -> None:
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


class Digest:
    """What a fast reader keeps of its events: how many, whether in order, and a digest of all their bytes."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self._hash = sha256()

    def add(self, text: bytes) -> None:
        ids = [int(id) for id in ID.findall(text)]
        assert self.last < ids[0]
        assert all(one < other for one, other in pairwise(ids))
        self.count += len(ids)
        self.last = ids[-1]
        self._hash.update(text)

    @property
    def value(self) -> tuple[int, int, str]:
        return self.count, self.last, self._hash.hexdigest()


async def read_to_the_end(stream: EventStream, mark: bytes) -> Digest:
    """Read until the event that holds the mark."""
    digest = Digest()
    text: bytes | None = b""
    while mark not in (text or b""):
        text = await stream.read()
        assert text is not None
        digest.add(text)
    return digest


async def stream_to_fast_readers(session: Session, start: int) -> list[Digest]:
    """Stream all updates to the fast readers; gives what they have, once all have everything."""
    results: list[Digest] = []
    opened = trio.Semaphore(0)
    mark = session.next_answer()

    async def read() -> None:
        async with EventStream.open(session.daemon, session.server, start) as stream:
            opened.release()
            results.append(await read_to_the_end(stream, mark))

    async with trio.open_nursery() as nursery:
        for _ in range(FAST):
            nursery.start_soon(read)
        for _ in range(FAST):
            await opened.acquire()
        await session.prompt(f"/stream {UPDATES} {SIZE}")
    assert len(results) == FAST
    assert {result.value for result in results} == {results[0].value}
    return results


@pytest.mark.alone
async def test_stalled_readers_beside_ten_fast_ones_cost_no_memory_and_get_everything_later(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(120):
            await session.open()
            # Ten readers at full speed take their memory, stalled ones or not: it is there before the measurement.
            start = (await stream_to_fast_readers(session, 0))[0].last
            growths: list[int] = []
            while not growths or (min(growths) >= GROWTH_LIMIT_KIB and len(growths) < ROUNDS):
                async with (
                    EventStream.open(daemon, session.server, start, buffer=SMALL_BUFFER) as stalled,
                    session.stalling_socket(start, buffer=SMALL_BUFFER) as stalled_socket,
                ):
                    forget_peak(daemon)
                    before = memory_kib(daemon, "VmRSS")
                    began = trio.current_time()
                    [fast, *_] = await stream_to_fast_readers(session, start)
                    seconds = trio.current_time() - began
                    while_stalled = memory_kib(daemon, "VmHWM") - before

                    # They read on, and get what the others got.
                    stalled.hurry()
                    stalled_socket.hurry()
                    late = Digest()
                    events: list[Seen] = []
                    while late.last < fast.last:
                        text = await stalled.read()
                        assert text is not None, "the stalled reader was cut off"
                        late.add(text)
                        events += parse_events(text)
                    assert late.value == fast.value
                    assert numbers(events) == list(range(1, UPDATES + 1))
                    frames: list[Seen] = []
                    while len(frames) < len(events):
                        frames += await stalled_socket.read()
                    assert frames == events
                    growths.append(memory_kib(daemon, "VmHWM") - before)
                    start = fast.last
                print(
                    f"{UPDATES} updates to {FAST} readers in {seconds:.1f} s; memory {before} KiB,"
                    f" grew by {while_stalled} KiB, and by {growths[-1]} KiB until the stalled ones had caught up"
                )
            assert min(growths) < GROWTH_LIMIT_KIB, growths


async def test_readers_that_never_read_again_do_not_hold_up_the_shutdown(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            async with (
                EventStream.open(daemon, session.server, 0, buffer=SMALL_BUFFER),
                EventStream.open(daemon, session.server, 0, buffer=SMALL_BUFFER),
                session.stalling_socket(buffer=SMALL_BUFFER),
                session.stalling_socket(buffer=SMALL_BUFFER),
            ):
                # More than all buffers between them hold: every send of the daemon's is stuck.
                await session.prompt("/stream 100000 200")
                seconds = await daemon.stop()
        print(f"stopped in {seconds:.2f} s")
        assert seconds < SHUTDOWN_WITHIN


async def test_stalled_reader_does_not_hold_up_the_deletion_of_its_session(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            async with (
                EventStream.open(daemon, session.server, 0, buffer=SMALL_BUFFER),
                session.stalling_socket(buffer=SMALL_BUFFER),
            ):
                await session.prompt("/stream 50000 200")
                with trio.fail_after(2.5):
                    assert await session.delete() == 204
                with trio.fail_after(2.5):
                    await session.open()
                assert await daemon.stop() < SHUTDOWN_WITHIN
