from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.messages import TurnOverdue
from sandbox_actors.timers import Timers
from sandbox_supervisor import Mailbox

if TYPE_CHECKING:
    from trio.testing import MockClock

    from sandbox_actors.messages import Message


@pytest.fixture
def mailbox() -> Mailbox[Message]:
    return Mailbox(8)


@pytest.fixture
async def timers(mailbox: Mailbox[Message], nursery: trio.Nursery) -> Timers:
    timers = Timers(mailbox.ref)
    nursery.start_soon(timers.run)
    return timers


async def heard(mailbox: Mailbox[Message]) -> tuple[str, float]:
    message, _ = await mailbox.get()
    assert isinstance(message, TurnOverdue)
    return message.turn, trio.current_time()


async def test_messages_come_when_they_are_due_in_that_order(
    autojump_clock: MockClock, timers: Timers, mailbox: Mailbox[Message]
) -> None:
    start = trio.current_time()
    for seconds in (3, 1, 2):
        timers.set(str(seconds), seconds, TurnOverdue(str(seconds)))
    assert timers.names() == ["1", "2", "3"]
    assert [await heard(mailbox) for _ in range(3)] == [(str(n), start + n) for n in (1, 2, 3)]
    assert timers.names() == []


async def test_one_that_is_set_again_starts_anew_and_one_that_is_dropped_says_nothing(
    autojump_clock: MockClock, timers: Timers, mailbox: Mailbox[Message]
) -> None:
    start = trio.current_time()
    timers.set("a", 1, TurnOverdue("first"))
    timers.set("b", 2, TurnOverdue("dropped"))
    await trio.sleep(0.5)
    timers.set("a", 3, TurnOverdue("second"))
    timers.drop("b")
    timers.drop("nothing")
    assert await heard(mailbox) == ("second", start + 3.5)
    with trio.move_on_after(100):
        await heard(mailbox)
        pytest.fail("a message came that was dropped")


async def test_a_timer_may_be_set_while_the_task_waits_for_a_later_one(
    autojump_clock: MockClock, timers: Timers, mailbox: Mailbox[Message]
) -> None:
    start = trio.current_time()
    timers.set("late", 100, TurnOverdue("late"))
    await trio.sleep(1)
    timers.set("soon", 1, TurnOverdue("soon"))
    assert await heard(mailbox) == ("soon", start + 2)
    assert await heard(mailbox) == ("late", start + 100)
