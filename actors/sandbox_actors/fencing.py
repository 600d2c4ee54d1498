"""Fencing: of all the owners that a session has had, only the newest one acts.

Backends that share sessions agree by a lease who drives one. A lease stops nobody who was paused when it ran out and
goes on later. So every owner has a number, the generation, larger than that of the one before, and names it with each
request. The session keeps the largest it has heard of and refuses what comes with a smaller one; it is on the disk
before the first request under it is carried out, so a crash of the daemon lets nobody old in again. Who names no
generation is no such owner, and is let through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sandbox_supervisor import ActorError

from . import notices
from .errors import Refusal
from .messages import Fenced

if TYPE_CHECKING:
    from sandbox_supervisor import Mailbox, Reply, Request

    from .messages import Message
    from .session import Session

__all__ = ["Fence", "StaleGeneration"]

R = TypeVar("R")


class StaleGeneration(Refusal):
    """Another owner drives the session by now."""

    name = "stale_generation"

    def __init__(self, generation: int, current: int) -> None:
        super().__init__(f"generation {generation} is over: the session is at generation {current}")
        self.generation = generation
        self.current = current

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        return {"generation": self.generation, "current": self.current}


class Fence:
    """The part of a session that decides whether an owner may act."""

    def __init__(self, session: Session, mailbox: Mailbox[Message]) -> None:
        self._session = session
        self._mailbox = mailbox
        self._durable = session.memory.generation

    async def ask(self, request: Request[R], generation: int | None) -> R:
        """Ask for something that acts, as the owner of this generation, or as nobody in particular.

        Raises:
          StaleGeneration.
          ActorError: as `ActorRef.ask`.
        """
        return await self._mailbox.ref.ask(request if generation is None else Fenced(generation, request))

    def check(self, generation: int | None) -> None:
        """Raises `StaleGeneration` where there is a newer one."""
        current = self._session.memory.generation
        if generation is not None and generation < current:
            raise StaleGeneration(generation, current)

    def admits(self, asked: Fenced[object], reply: Reply[object]) -> bool:
        """Whether a request may be carried out now; if not, it comes again once its generation is durable.

        Raises:
          StaleGeneration.
          JournalUnavailable: a new generation cannot be made durable.
        """
        self.check(asked.generation)
        if asked.generation == self._durable:
            return True
        session = self._session
        if asked.generation > session.memory.generation:
            session.check_journal()
            session.memory.generation = asked.generation
            session.tell_clients([notices.session_claimed(asked.generation)])
        session.remember(lambda: self._claimed(asked, reply))
        return False

    def _claimed(self, asked: Fenced[object], reply: Reply[object]) -> None:
        self._durable = max(self._durable, asked.generation)
        try:
            self._mailbox.put_nowait(asked, reply)
        except ActorError as full:
            reply.refuse(full)
