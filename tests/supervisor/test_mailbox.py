from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sandbox_supervisor import (
    ActorCrashed,
    ActorError,
    ActorStopped,
    Mailbox,
    MailboxFull,
    Reply,
    Request,
    RestartPolicy,
    drain,
    supervise,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True)
class Note:
    text: str


@dataclass(frozen=True, slots=True)
class Echo(Request[str]):
    text: str


@dataclass(frozen=True, slots=True)
class Begin(Request[str]):
    """The answer comes when the turn ends."""


@dataclass(frozen=True, slots=True)
class End:
    text: str


@dataclass(frozen=True, slots=True)
class Stall(Request[None]):
    """Keeps the actor busy until the event is set."""

    until: trio.Event


class Refused(ActorError):
    pass


Message: TypeAlias = Note | Echo | Begin | End | Stall


@dataclass(slots=True)
class Parrot:
    """Says what it is asked; refuses `no` and fails at `bug`."""

    notes: list[str] = field(default_factory=list)
    turn: Reply[object] | None = None

    async def receive(self, message: Message, reply: Reply[object]) -> None:
        match message:
            case Note(text):
                self.notes.append(text)
            case Echo("no"):
                raise Refused("not this word")
            case Echo("bug"):
                raise ZeroDivisionError
            case Echo(text):
                reply.settle(text)
            case Begin():
                self.turn = reply
            case End(text):
                assert self.turn is not None
                self.turn.settle(text)
            case Stall(until):
                await until.wait()
                reply.settle(None)


class Answer:
    """What became of an ask in a task of its own."""

    def __init__(self) -> None:
        self.value: object = None
        self.error: BaseException | None = None
        self.time = math.nan

    async def of(self, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            self.value = await ask()
        except ActorError as error:
            self.error = error
        finally:
            self.time = trio.current_time()


@pytest.fixture
def mailbox() -> Mailbox[Message]:
    return Mailbox(2)


@pytest.mark.parametrize("capacity", [0, -1, math.inf])
def test_a_mailbox_without_room_or_without_bound_is_not_made(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least one message, and not infinitely many"):
        Mailbox[Message](capacity)


async def test_tell_waits_for_room(mailbox: Mailbox[Message], autojump_clock: MockClock) -> None:
    told: list[float] = []

    async def tell_three() -> None:
        for text in "abc":
            await mailbox.ref.tell(Note(text))
            told.append(trio.current_time())

    parrot = Parrot()
    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        nursery.start_soon(tell_three)
        await trio.sleep(60)
        assert mailbox.depth == 2
        nursery.start_soon(drain, mailbox, parrot.receive)
        await wait_all_tasks_blocked()
        assert [time - started for time in told] == [0, 0, 60]
        assert parrot.notes == ["a", "b", "c"]
        nursery.cancel_scope.cancel()


async def test_a_tell_that_is_cancelled_while_it_waits_leaves_no_message_behind(
    mailbox: Mailbox[Message], autojump_clock: MockClock
) -> None:
    mailbox.ref.offer(Note("a"))
    mailbox.ref.offer(Note("b"))
    with trio.move_on_after(1) as scope:
        await mailbox.ref.tell(Note("c"))
    assert scope.cancelled_caught
    parrot = Parrot()
    with trio.move_on_after(1):
        await drain(mailbox, parrot.receive)
    assert parrot.notes == ["a", "b"]


async def test_offer_refuses_when_full_and_takes_again_once_there_is_room(mailbox: Mailbox[Message]) -> None:
    mailbox.ref.offer(Note("a"))
    mailbox.ref.offer(Note("b"))
    with pytest.raises(MailboxFull):
        mailbox.ref.offer(Note("c"))
    with pytest.raises(MailboxFull):
        await mailbox.ref.ask(Echo("c"))
    assert mailbox.depth == 2
    await mailbox.get()
    mailbox.ref.offer(Note("d"))
    assert mailbox.depth == 2


async def test_ask_gets_the_answer(mailbox: Mailbox[Message]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, mailbox, Parrot().receive)
        assert await mailbox.ref.ask(Echo("hello")) == "hello"
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_an_answer_and_the_actor_goes_on(mailbox: Mailbox[Message]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, mailbox, Parrot().receive)
        with pytest.raises(Refused, match="not this word"):
            await mailbox.ref.ask(Echo("no"))
        assert await mailbox.ref.ask(Echo("yes")) == "yes"
        nursery.cancel_scope.cancel()


async def test_a_crash_of_receive_fails_the_asker_and_is_raised(mailbox: Mailbox[Message]) -> None:
    answer = Answer()
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer.of, partial(mailbox.ref.ask, Echo("bug")))
            nursery.start_soon(drain, mailbox, Parrot().receive)
    assert isinstance(answer.error, ActorCrashed)
    assert "ZeroDivisionError" in str(answer.error)


async def test_cancelling_the_actor_in_receive_fails_the_asker(
    mailbox: Mailbox[Message], autojump_clock: MockClock
) -> None:
    answer = Answer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer.of, partial(mailbox.ref.ask, Stall(trio.Event())))
        with trio.move_on_after(1) as scope:
            await drain(mailbox, Parrot().receive)
    assert scope.cancelled_caught
    assert isinstance(answer.error, ActorCrashed)


async def test_the_mailbox_survives_its_actors_restart_and_only_the_message_in_hand_is_lost(
    autojump_clock: MockClock,
) -> None:
    mailbox: Mailbox[Message] = Mailbox(8)
    parrots: list[Parrot] = []

    async def incarnation(number: int) -> None:
        parrots.append(Parrot())
        await drain(mailbox, parrots[-1].receive)

    lost, kept = Answer(), Answer()
    async with trio.open_nursery() as nursery:
        mailbox.ref.offer(Note("before"))
        nursery.start_soon(lost.of, partial(mailbox.ref.ask, Echo("bug")))
        await wait_all_tasks_blocked()
        nursery.start_soon(kept.of, partial(mailbox.ref.ask, Echo("kept")))
        await wait_all_tasks_blocked()
        mailbox.ref.offer(Note("after"))
        nursery.start_soon(supervise, incarnation, RestartPolicy())
        await trio.sleep(60)
        assert isinstance(lost.error, ActorCrashed)
        assert kept.value == "kept"
        assert [parrot.notes for parrot in parrots] == [["before"], ["after"]]
        nursery.cancel_scope.cancel()


async def test_closing_settles_everybody_who_waits_for_an_answer(mailbox: Mailbox[Message]) -> None:
    answers = [Answer(), Answer()]
    async with trio.open_nursery() as nursery:
        for answer in answers:
            nursery.start_soon(answer.of, partial(mailbox.ref.ask, Echo("hello")))
        await wait_all_tasks_blocked()
        mailbox.close()
    assert [type(answer.error) for answer in answers] == [ActorStopped, ActorStopped]


async def test_after_the_close_every_way_to_send_says_that_the_actor_has_stopped(mailbox: Mailbox[Message]) -> None:
    ref = mailbox.ref
    mailbox.close()
    mailbox.close()
    with pytest.raises(ActorStopped):
        await ref.tell(Note("a"))
    with pytest.raises(ActorStopped):
        ref.offer(Note("a"))
    with pytest.raises(ActorStopped):
        await ref.ask(Echo("a"))
    assert mailbox.depth == 0


async def test_an_asker_that_is_cancelled_leaves_the_actor_unharmed(
    mailbox: Mailbox[Message], autojump_clock: MockClock
) -> None:
    busy = trio.Event()
    parrot = Parrot()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, mailbox, parrot.receive)
        with trio.move_on_after(5) as scope:
            await mailbox.ref.ask(Stall(busy))
        assert scope.cancelled_caught
        busy.set()  # and now the actor answers somebody who has gone
        mailbox.ref.offer(Note("still there"))
        assert await mailbox.ref.ask(Echo("hello")) == "hello"
        assert parrot.notes == ["still there"]
        nursery.cancel_scope.cancel()


async def test_a_long_turn_is_state_and_its_reply_is_settled_by_a_later_message(
    mailbox: Mailbox[Message], autojump_clock: MockClock
) -> None:
    answer = Answer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, mailbox, Parrot().receive)
        started = trio.current_time()
        nursery.start_soon(answer.of, partial(mailbox.ref.ask, Begin()))
        await trio.sleep(3600)
        assert await mailbox.ref.ask(Echo("in between")) == "in between"
        assert math.isnan(answer.time)
        await mailbox.ref.tell(End("done"))
        await wait_all_tasks_blocked()
        assert (answer.value, answer.time - started) == ("done", 3600)
        nursery.cancel_scope.cancel()


async def test_only_the_first_answer_counts() -> None:
    reply: Reply[int] = Reply()
    assert not reply.settled
    reply.settle(1)
    reply.settle(2)
    reply.refuse(Refused())
    assert reply.settled
    assert await reply.wait() == 1


async def test_none_is_an_answer_like_any_other() -> None:
    reply: Reply[None] = Reply()
    reply.settle(None)
    reply.refuse(Refused())
    await reply.wait()


async def test_a_refused_reply_stays_refused() -> None:
    reply: Reply[int] = Reply()
    reply.refuse(Refused("first"))
    reply.settle(1)
    for _ in range(2):
        with pytest.raises(Refused, match="first"):
            await reply.wait()


async def test_any_number_of_tasks_may_wait_for_one_reply() -> None:
    reply: Reply[str] = Reply()
    answers = [Answer() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for answer in answers:
            nursery.start_soon(answer.of, reply.wait)
        await wait_all_tasks_blocked()
        reply.settle("yes")
    assert [answer.value for answer in answers] == ["yes"] * 3
