"""Holding a lease: it is renewed while a block runs, and the block ends when it cannot be.

By our own clock a lease is over a little earlier than by the store's, so that we stop before somebody else begins. That
takes a process that runs: one that was paused, say by its machine, learns of it too late. Therefore the generation goes
along with what is done, to the store and to the server, and they refuse what comes late.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from ..backoff import Backoff
from ..errors import LeaseLost, PersistenceError, StoreUnavailable
from ..scope import plainly

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .store import Lease, SessionKey, Store

__all__ = ["Held", "holding"]

RENEWED_AFTER = 1 / 3
"""Of its time: so two renewals may fail."""

MARGIN = 0.1
"""Of its time: by so much it is over earlier for us."""

RELEASE_WITHIN = 5.0
"""Seconds; after that others wait until it has run out."""

_log = logging.getLogger("sandbox_agent")


class Held:
    """A lease while it is held. Made by `holding`."""

    def __init__(self, lease: Lease, until: float) -> None:
        self.lease = lease
        self._until = until

    @property
    def generation(self) -> int:
        return self.lease.generation

    @property
    def left(self) -> float:
        """Seconds until it is over, unless it is renewed."""
        return self._until - time.monotonic()

    def check(self) -> None:
        """Raises `LeaseLost` where it is over: to be called before anything that only the owner may do."""
        if self.left <= 0:
            raise LeaseLost(f"{self.lease.key}: the lease of {self.lease.owner} could not be renewed in time")

    async def renew(self, store: Store, ttl: float) -> None:
        """Raises `LeaseLost`, `StoreUnavailable`: as `Store.renew`."""
        asked = time.monotonic()
        try:
            await store.renew(self.lease, ttl)
        except LeaseLost:
            self._until = asked
            raise
        self._until = asked + ttl * (1 - MARGIN)

    def due_in(self, ttl: float) -> float:
        """Seconds until it has to be renewed."""
        return max(0.0, self.left - ttl * (1 - MARGIN - RENEWED_AFTER))

    async def renew_for_ever(self, store: Store, ttl: float) -> None:
        """Raises `LeaseLost` where the store says so; otherwise somebody else has to see to the time."""
        backoff = Backoff(limit=ttl * RENEWED_AFTER)
        delay = self.due_in(ttl)
        while True:
            await anyio.sleep(delay)
            try:
                await self.renew(store, ttl)
            except StoreUnavailable as error:
                delay = backoff.next()
                _log.warning("%s: the lease is not renewed yet: %s", self.lease.key, error)
            else:
                delay = self.due_in(ttl)
                backoff.reset()

    async def expire(self) -> None:
        """Wait until it is over, then raise `LeaseLost`."""
        while True:
            await anyio.sleep(max(0.0, self.left))
            self.check()


@asynccontextmanager
async def holding(
    store: Store, key: SessionKey, owner: str, *, ttl: float = 30.0, above: int = 0
) -> AsyncGenerator[Held]:
    """The lease of a session, for as long as the block runs.

    async with holding(store, SessionKey(sandbox.id, "demo"), "backend-1") as held: ...

    Once it cannot be renewed any more, the block is cancelled, and `LeaseLost` comes out.

    Args:
      ttl: seconds after which others may take it, if we are gone.
      owner, above: see `Store.acquire`.

    Raises:
      LeaseHeld: another owner has it.
      StoreUnavailable, PersistenceError: as the store says.
    """
    asked = time.monotonic()
    held = Held(await store.acquire(key, owner, ttl, above), asked + ttl * (1 - MARGIN))
    try:
        if not held.due_in(ttl):
            # The store took its time, say behind a lock: how much of it was ours already, only its clock knows.
            await held.renew(store, ttl)
        async with plainly(anyio.create_task_group()) as tasks:
            tasks.start_soon(held.renew_for_ever, store, ttl)
            tasks.start_soon(held.expire)
            try:
                yield held
            finally:
                tasks.cancel_scope.cancel()
    finally:
        await _release(store, held.lease)


async def _release(store: Store, lease: Lease) -> None:
    with anyio.move_on_after(RELEASE_WITHIN, shield=True):
        try:
            await store.release(lease)
        except PersistenceError as error:
            _log.warning("%s: the lease is not released, it will run out: %s", lease.key, error)
