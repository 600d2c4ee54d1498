"""An actor is a bounded mailbox and the one task that empties it.

A message is told (nobody waits for an answer) or asked (a `Reply` comes along). The mailbox belongs to nobody's task:
it survives the crash and the restart of the actor that empties it, so that a reference outlives every incarnation of
what it names. Only the message in hand is lost with a crash, and its asker is told.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from .errors import ActorCrashed, ActorError, ActorStopped, MailboxFull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ActorRef", "Mailbox", "Reply", "Request", "drain"]

M = TypeVar("M")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Request(Generic[R_co]):
    """A message whose answer has type `R_co`. Derive frozen, slotted dataclasses from it."""

    __slots__ = ()


class Reply(Generic[R]):
    """The slot that an answer goes into: settled or refused once, by whoever holds it, whenever the answer is there.

    Settling is synchronous, never fails and never waits, also when the asker has gone; only the first answer counts.
    """

    __slots__ = ("_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = trio.Event()
        self._value: R | None = None
        self._error: Exception | None = None

    @property
    def settled(self) -> bool:
        return self._done.is_set()

    def settle(self, value: R) -> None:
        """Answer with a value."""
        if not self._done.is_set():
            self._value = value
            self._done.set()

    def refuse(self, error: Exception) -> None:
        """Answer with an error, which is raised where the answer is awaited."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    async def wait(self) -> R:
        """Wait for the answer. Raises the error that the request was refused with."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # settled without error: the value is an R, None included


class Mailbox(Generic[M]):
    """A bounded queue of messages with one reader.

    Args:
      capacity: how many messages may wait. `math.inf` is not accepted: a mailbox without a bound is a leak.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1 or capacity == math.inf:
            raise ValueError("a mailbox holds at least one message, and not infinitely many")
        self._send, self._receive = trio.open_memory_channel[tuple[M, Reply[object]]](capacity)

    @property
    def ref(self) -> ActorRef[M]:
        """A reference: may be handed to anybody, for ever."""
        return ActorRef(self)

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return self._send.statistics().current_buffer_used

    def close(self) -> None:
        """Stop for good: later senders and all who still wait for an answer get `ActorStopped`."""
        while True:
            try:
                _, reply = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            reply.refuse(ActorStopped("the actor has stopped"))
        self._receive.close()
        self._send.close()

    async def put(self, message: M, reply: Reply[object]) -> None:
        try:
            await self._send.send((message, reply))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ActorStopped("the actor has stopped") from None

    def put_nowait(self, message: M, reply: Reply[object]) -> None:
        try:
            self._send.send_nowait((message, reply))
        except trio.WouldBlock:
            raise MailboxFull("the actor's mailbox is full") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ActorStopped("the actor has stopped") from None

    async def get(self) -> tuple[M, Reply[object]]:
        return await self._receive.receive()


class ActorRef(Generic[M]):
    """The address of an actor."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox[M]) -> None:
        self._mailbox = mailbox

    async def tell(self, message: M) -> None:
        """Send and wait for room: backpressure, for senders inside that may be held up.

        Raises:
          ActorStopped: nobody reads this mailbox any more.
        """
        await self._mailbox.put(message, Reply())

    def offer(self, message: M) -> None:
        """Send now or not at all: load shedding, for the edge that must never wait on a mailbox.

        Raises:
          MailboxFull: there is no room.
          ActorStopped: nobody reads this mailbox any more.
        """
        self._mailbox.put_nowait(message, Reply())

    async def ask(self, request: Request[R]) -> R:
        """Offer a request and wait for its answer. There is no deadline but the caller's own cancel scope.

        Raises:
          MailboxFull, ActorStopped: as for `offer`.
          ActorCrashed: the actor failed while it worked on this request.
          ActorError: the actor refused, for a reason of its domain.
        """
        return await self.request(request).wait()

    def request(self, request: Request[R]) -> Reply[R]:
        """As `ask`, for who has other things to wait for than the answer.

        Raises:
          MailboxFull, ActorStopped: as for `offer`. What else `ask` raises comes from the reply.
        """
        reply: Reply[R] = Reply()
        self._mailbox.put_nowait(request, reply)  # type: ignore[arg-type]  # a Request[R] of M's union, its reply an R
        return reply


async def drain(mailbox: Mailbox[M], receive: Callable[[M, Reply[object]], Awaitable[None]]) -> None:
    """Empty the mailbox for ever, one message at a time, until cancelled or until `receive` crashes.

    `receive` settles the reply, now or later: a turn that takes minutes is state plus a reply that is kept, never a
    `receive` that waits. An `ActorError` out of `receive` is a refusal and becomes the reply. Any other exception
    fails the asker with `ActorCrashed` and is raised.
    """
    while True:
        message, reply = await mailbox.get()
        try:
            await receive(message, reply)
        except ActorError as refusal:
            reply.refuse(refusal)
        except BaseException as crash:
            reply.refuse(ActorCrashed(f"the actor failed: {type(crash).__name__}"))
            raise
