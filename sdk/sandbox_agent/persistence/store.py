"""What an application keeps of its sessions, beside the server's journal, which may vanish with its sandbox.

    key        a sandbox and a session in it
    record     an event as the server told it, or a gap: events that nobody can tell any more
    entry      a record in the store, with a number there; the entries of a session have no holes
    position   how far the store is: the newest epoch, and the last event of it
    lease      who drives a session at present, with a generation that grows with each new holder

A driver is a class with the methods of `Store`. `sandbox_agent.persistence.conformance` tells whether it keeps to what
is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Entry",
    "EventRecord",
    "GapRecord",
    "Lease",
    "Position",
    "Record",
    "SessionKey",
    "Store",
    "StoredSession",
]


@dataclass(frozen=True, slots=True, order=True)
class SessionKey:
    """A session, for applications that have many sandboxes.

    Attributes:
      sandbox: `SandboxAgent.id`, say `docker/abc`.
      session: its id there.
    """

    sandbox: str
    session: str

    def __str__(self) -> str:
        return f"{self.sandbox}/{self.session}"


@dataclass(frozen=True, slots=True)
class Position:
    """The last event that is stored, and of which journal."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event.

    Attributes:
      seq: its number in the journal, from 1.
      at_ms: milliseconds since 1970.
      kind, direction, incarnation: see docs/sessions.md; without a NUL.
      raw: the envelope, byte by byte.
    """

    seq: int
    at_ms: int
    kind: str
    direction: str
    incarnation: int
    raw: bytes

    @property
    def first(self) -> int:
        return self.seq

    @property
    def last(self) -> int:
        return self.seq


@dataclass(frozen=True, slots=True)
class GapRecord:
    """Events that cannot be told: their numbers, from the first to the last, and why."""

    first: int
    last: int
    reason: str


Record: TypeAlias = EventRecord | GapRecord


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in the store.

    Attributes:
      number: in the store, from 1, without holes, over all epochs of the session.
    """

    number: int
    epoch: str
    record: Record


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that the store knows.

    Attributes:
      position: None where only a lease was given.
      entries: how many there are; the number of the last one.
      generation: of the newest lease; 0: there was none.
    """

    key: SessionKey
    position: Position | None
    entries: int
    generation: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive a session, as it was given."""

    key: SessionKey
    owner: str
    generation: int


class Store(Protocol):
    """Where it is kept. One object serves several tasks, and several objects, in several processes, the same place.

    All raise `StoreUnavailable` where it cannot be reached now, so that trying again makes sense, and
    `PersistenceError` where it refuses. What was cancelled has happened, or not.
    """

    async def append(
        self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None
    ) -> int:
        """Store what comes next; gives how many entries that made, as far as was heard of it.

        All of them are durable when this returns, or none is stored. What is there already, by epoch and number, is
        left out. An epoch that is new begins at number 1; those before stay readable. Calls at the same time are
        as if one came after the other.

        Args:
          generation: of the lease; it has to be the newest. None only where no lease was ever given.

        Raises:
          LeaseLost: there is a newer one.
          PersistenceError: there is a hole in front of a record; the generation was never given, or is missing.
        """
        ...

    async def position(self, key: SessionKey) -> Position | None:
        """Where to go on; None where nothing is stored. The epoch is that of the newest entry."""
        ...

    async def events(self, key: SessionKey, after: int = 0, limit: int = 500) -> list[Entry]:
        """The entries behind a number of the store, oldest first, at least one where there is one.

        There may be fewer than the limit though more follow: go on behind the last one until none comes.
        """
        ...

    async def sessions(self, after: SessionKey | None = None, limit: int = 500) -> list[StoredSession]:
        """The sessions behind a key, in the order of their keys."""
        ...

    async def forget(self, key: SessionKey) -> None:
        """Drop all entries of a session. Its generation is kept: who had a lease before stays refused."""
        ...

    async def acquire(self, key: SessionKey, owner: str, ttl: float, above: int = 0) -> Lease:
        """Take the lease, if nobody has it, or whoever had it has let it run out by the store's clock.

        An owner's name means one process: under the same name it is taken over at once, from a life before.

        Args:
          ttl: seconds that it lasts, unless it is renewed.
          above: the new generation is also larger than this, which the server knows of: should the store be a new one.

        Raises:
          LeaseHeld: another owner has it.
        """
        ...

    async def renew(self, lease: Lease, ttl: float) -> None:
        """Have it last for so many seconds from now.

        Raises:
          LeaseLost: it has run out, or was released; even if nobody has taken it.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give it up, so that others need not wait. One that is not held any more is no error."""
        ...
