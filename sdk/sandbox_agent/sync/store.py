"""A store without async, and the loop that it shares with the sandboxes which keep their events in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._line import open_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from ..persistence.store import Entry, Lease, Position, Record, SessionKey, StoredSession
    from ..persistence.store import Store as AsyncStore
    from ._line import Line

__all__ = ["Store", "actual_store", "open_near", "open_store"]

T = TypeVar("T")
Twin = TypeVar("Twin")


class Store:
    """As `sandbox_agent.persistence.Store`, where each method is described. Made by `open_store`.

    Attributes:
      actual, line: for the sandboxes that keep their events in it.
    """

    def __init__(self, actual: AsyncStore, line: Line) -> None:
        self.actual = actual
        self.line = line

    def append(self, key: SessionKey, epoch: str, records: Sequence[Record], generation: int | None = None) -> int:
        return self.line.call(self.actual.append, key, epoch, records, generation)

    def position(self, key: SessionKey) -> Position | None:
        return self.line.call(self.actual.position, key)

    def events(self, key: SessionKey, after: int = 0, limit: int = 500) -> list[Entry]:
        return self.line.call(self.actual.events, key, after, limit)

    def sessions(self, after: SessionKey | None = None, limit: int = 500) -> list[StoredSession]:
        return self.line.call(self.actual.sessions, after, limit)

    def forget(self, key: SessionKey) -> None:
        self.line.call(self.actual.forget, key)

    def acquire(self, key: SessionKey, owner: str, ttl: float, above: int = 0) -> Lease:
        return self.line.call(self.actual.acquire, key, owner, ttl, above)

    def renew(self, lease: Lease, ttl: float) -> None:
        self.line.call(self.actual.renew, lease, ttl)

    def release(self, lease: Lease) -> None:
        self.line.call(self.actual.release, lease)


def open_store(store: AbstractAsyncContextManager[AsyncStore]) -> AbstractContextManager[Store]:
    """A store, for `SandboxAgent.start` and to read what is in it; it is closed at the end of the block.

        with open_store(SqliteStore.open("sessions.db")) as store:
            with SandboxAgent.start(provider, store=store) as sandbox: ...

    Args:
      store: as the drivers' `open` gives it.

    Raises:
      PersistenceError: as `open`.
    """
    return open_line(store, Store)


def actual_store(store: Store | None) -> AsyncStore | None:
    """For the asynchronous side."""
    return None if store is None else store.actual


def open_near(
    store: Store | None, manager: AbstractAsyncContextManager[T], twin: Callable[[T, Line], Twin]
) -> AbstractContextManager[Twin]:
    """As `open_line`; in the loop of the store where there is one, since that is the only one which may use it."""
    return open_line(manager, twin) if store is None else store.line.enter(manager, twin)
