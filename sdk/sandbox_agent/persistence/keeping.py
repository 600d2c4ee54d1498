"""What a `SandboxAgent` that has a store does for each session opened through it: it owns it, and mirrors its events.

A session is owned once its lease is ours and the server knows of the generation: from then on it refuses whoever had
the lease before. What ends that, another owner or a store that is away for too long, is raised by whatever is done with
the session next; the other sessions go on.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from ..errors import PersistenceError, SandboxAgentError, SessionClosed
from ..scope import open_tasks
from ..session import Session
from .lease import holding
from .mirror import Mirror
from .store import SessionKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup, TaskStatus

    from ..models import SessionInfo
    from .lease import Held
    from .store import Store

__all__ = ["Keeping", "open_keeping"]

LAST_WITHIN = 5.0
"""Seconds at the end for the store to get what the server can still tell: the sandbox may be destroyed next."""

_log = logging.getLogger("sandbox_agent")


class Keeping:
    """See the module. Made by `open_keeping` only.

    Args:
      sandbox: the first part of the sessions' keys.
      owner: this process, in words that no other one has.
      ttl: of leases, in seconds.
    """

    def __init__(self, store: Store, sandbox: str, owner: str, ttl: float, tasks: TaskGroup) -> None:
        self.store = store
        self.owner = owner
        self.ttl = ttl
        self._sandbox = sandbox
        self._tasks = tasks
        self._owned: dict[str, _Owned] = {}
        self._opening: dict[str, anyio.Lock] = {}

    async def take(self, session: Session) -> Session:
        """Own a session, unless it is ours already; gives the same object.

        Raises:
          LeaseHeld: another owner has it.
          PersistenceError: the store refuses, or cannot be reached.
          SandboxAgentError: the server refuses.
        """
        async with self._opening.setdefault(session.id, anyio.Lock()):
            owned = self._of(session)
            if owned is None:
                if (before := self._owned.get(session.id)) is not None:
                    before.end()
                owned = self._owned[session.id] = _Owned(self, SessionKey(self._sandbox, session.id), session.info)
                await self._tasks.start(owned.run, session)
        return owned.mark(session)

    def mark(self, session: Session) -> Session:
        """Have a session that was listed do nothing but tell, unless it is ours."""
        if (owned := self._of(session)) is not None:
            return owned.mark(session)
        session.guard = _Stranger(self)
        return session

    def _of(self, session: Session) -> _Owned | None:
        owned = self._owned.get(session.id)
        # One that was deleted, and made again under its id, is another one.
        is_ours = (
            owned is not None and owned.started and not owned.over and owned.info.created_at == session.info.created_at
        )
        return owned if is_ours else None

    async def catch_up(self) -> None:
        """Have the store get what there is until now, as far as that is quickly done."""
        with anyio.move_on_after(LAST_WITHIN, shield=True):
            async with anyio.create_task_group() as tasks:
                for owned in self._owned.values():
                    tasks.start_soon(owned.catch_up)

    def end(self) -> None:
        """Mirror no more, and give the leases back."""
        for owned in self._owned.values():
            owned.end()


class _Owned:
    """A session that is ours, and the task that sees to it."""

    def __init__(self, keeping: Keeping, key: SessionKey, info: SessionInfo) -> None:
        self.info = info
        self.started = self.over = False
        self._keeping = keeping
        self._key = key
        self._held: Held | None = None
        self._session: Session | None = None
        self._mirror: Mirror | None = None
        self._failure: SandboxAgentError | None = None
        self._scope = anyio.CancelScope()

    def mark(self, session: Session) -> Session:
        session.generation = None if self._held is None else self._held.generation
        session.guard = self
        return session

    def check(self) -> None:
        """Raises what has ended it: `LeaseLost`, `StoreUnavailable`, ..."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._held is not None and not self.over:  # else it was deleted, which the server will say
            self._held.check()

    async def take(self, session: Session) -> Session:
        """Own another one: a fork."""
        return await self._keeping.take(session)

    async def run(self, session: Session, *, task_status: TaskStatus[None]) -> None:
        """Own a session, as long as it goes."""
        store, above = self._keeping.store, session.info.generation
        try:
            with self._scope:
                async with holding(store, self._key, self._keeping.owner, ttl=self._keeping.ttl, above=above) as held:
                    self._held = held
                    self._session = await _claimed(session, held.generation)
                    self._mirror = Mirror(self._session, store, self._key, held.generation)
                    self.started = True
                    task_status.started()
                    await anyio.lowlevel.checkpoint()  # whoever has asked for it may be gone: nobody would end it
                    # From now on `end` does: where all is cancelled, the last events have yet to be stored.
                    self._scope.shield = True
                    await self._mirror.run()  # until there is no such session any more
        except SandboxAgentError as error:
            self._failure = error
            if not self.started:
                raise
            _log.error("%s is not ours any more: %s", self._key, error)
        finally:
            self.over = True

    def end(self) -> None:
        """Mirror no more, and give the lease back."""
        self._scope.cancel()

    async def catch_up(self) -> None:
        """Wait until the store has what there is now."""
        if self._mirror is None or self._session is None or self.over:
            return
        try:
            info = await self._session.refresh()
        except SandboxAgentError as error:
            _log.info("%s: its last events are not asked for any more: %s", self._key, error)
            return
        await self._mirror.reached(info.epoch, info.head)


class _Stranger:
    """In the place of an owner, for sessions that nobody has opened here."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    def check(self) -> None:
        raise PersistenceError("this session is not ours yet: open it by `SandboxAgent.session(id)` first")

    async def take(self, session: Session) -> Session:
        return await self._keeping.take(session)


async def _claimed(session: Session, generation: int) -> Session:
    """The session, as nobody else has it in hand, once the server knows of our generation."""
    ours = Session(session.transport, session.info, generation=generation)
    with suppress(SessionClosed):  # it takes nothing any more but to be deleted; it knows, though
        await ours.update()
    return ours


@asynccontextmanager
async def open_keeping(store: Store, sandbox: str, owner: str | None, ttl: float) -> AsyncGenerator[Keeping]:
    """Keep sessions for as long as the block runs. At its end the store has their events, and their leases are free."""
    owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    async with open_tasks() as tasks:
        keeping = Keeping(store, sandbox, owner, ttl, tasks)
        try:
            yield keeping
        finally:
            try:
                await keeping.catch_up()
            finally:
                keeping.end()
