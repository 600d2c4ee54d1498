from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sandbox_actors.errors import AgentBusy
from sandbox_actors.outbox import BYTES_LIMIT, COUNT_LIMIT, Outbox


async def test_all_that_waits_is_taken_at_once_as_whole_lines() -> None:
    outbox = Outbox()
    for envelope in (b'{"a":1}', b'{"b":2}', b"{}"):
        outbox.put(envelope)
    assert await outbox.take() == b'{"a":1}\n{"b":2}\n{}\n'


async def test_taking_waits_until_there_is_something(autojump_clock: MockClock) -> None:
    outbox = Outbox()
    taken: list[bytes] = []

    async def take_twice() -> None:
        taken.append(await outbox.take())
        taken.append(await outbox.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_twice)
        await trio.sleep(1)
        assert taken == []
        outbox.put(b"one")
        await wait_all_tasks_blocked()
        assert taken == [b"one\n"]
        outbox.put(b"two")
    assert taken == [b"one\n", b"two\n"]


async def test_a_cancelled_taker_loses_nothing(autojump_clock: MockClock) -> None:
    outbox = Outbox()
    with trio.move_on_after(1):
        await outbox.take()
    outbox.put(b"one")
    assert await outbox.take() == b"one\n"


async def test_too_many_envelopes_are_refused_until_they_are_taken() -> None:
    outbox = Outbox()
    for _ in range(COUNT_LIMIT):
        outbox.check()
        outbox.put(b"{}")
    with pytest.raises(AgentBusy) as refused:
        outbox.check()
    assert refused.value.retry_after == 1
    await outbox.take()
    outbox.check()


async def test_too_many_bytes_are_refused_but_a_single_envelope_is_taken_whatever_its_size() -> None:
    outbox = Outbox()
    outbox.check()
    outbox.put(bytes(BYTES_LIMIT + 1))
    with pytest.raises(AgentBusy):
        outbox.check()
    assert len(await outbox.take()) == BYTES_LIMIT + 2
    outbox.check()
