"""All sessions of a daemon: made, found and deleted by id, each a task of its own in one nursery.

A crash of our own code in one session ends that session, is logged, and takes nobody else along.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio

from sandbox_supervisor import ActorError, ActorStopped, Node

from . import notices
from .creating import check_id, checked
from .errors import AgentNotNamed, IdempotencyConflict, SessionConflict, SessionExists, SessionNotFound, ShuttingDown
from .forking import forked
from .memory import Memory
from .messages import Close, ForkEnded
from .native import fingerprint, new_id
from .session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from .catalog import Catalog
    from .directory_config import DirectoryConfig
    from .journal import SessionLog
    from .native import Changes, Setup
    from .setting import Setting

__all__ = ["Sessions", "open_sessions"]

log = structlog.get_logger()

Ensure: TypeAlias = "Callable[[str], Awaitable[None]]"

MadeBy: TypeAlias = "tuple[str, str] | None"
"""See `Memory.made_by`."""

DELETED_REMEMBERED = 1024
"""Ids of deleted sessions that are kept, to tell a client's last words from a mistake."""


@dataclass(slots=True, eq=False)
class _Entry:
    session: Session
    scope: trio.CancelScope
    ended: trio.Event


class Sessions:
    """See the module. Made by `open_sessions` only."""

    def __init__(
        self, catalog: Catalog, setting: Setting, node: Node, nursery: trio.Nursery, ensure: Ensure | None
    ) -> None:
        self._catalog = catalog
        self._ensure = ensure
        self._setting = setting
        self._node = node
        self._nursery = nursery
        self._entries: dict[str, _Entry] = {}
        self._busy: dict[str, trio.Lock] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._deleted: dict[str, None] = {}
        self.closed = False

    @property
    def directory_config(self) -> DirectoryConfig:
        """What is stored for directories. Whoever tells a session to open an ACP session looks there beforehand."""
        return self._setting.directory_config

    def all(self) -> list[Session]:
        """Every session, sorted by id."""
        return [entry.session for _, entry in sorted(self._entries.items())]

    def get(self, id: str) -> Session:
        """Raises `SessionNotFound` if there is none."""
        try:
            return self._entries[id].session
        except KeyError:
            raise SessionNotFound(id) from None

    def was_deleted(self, id: str) -> bool:
        """Whether there was a session of this id, not long ago, and there is none now."""
        return id in self._deleted and id not in self._entries

    async def wait_for(self, id: str, seconds: float) -> Session:
        """A session that is there, or is made within so many seconds. Raises `SessionNotFound` if it is not."""
        with trio.move_on_after(seconds):
            while id not in self._entries:
                await self._arrived.park()
        return self.get(id)

    async def prepare(self, id: str, agent: str) -> None:
        """Have the agent of a session that is yet to be made installed. That may take minutes, and holds up nobody.

        Raises:
          UnsupportedAgent, AgentNotInstalled, InstallFailed, ShuttingDown.
        """
        if id not in self._entries and self._ensure is not None:
            await self._ensure(self._catalog.resolve(agent))

    async def obtain(self, id: str, agent: str | None) -> Session:
        """The session of an id; made, with its agent started, if it is new.

        Args:
          agent: which agent; needed for a new session, checked for one that is there.

        Raises:
          UnsupportedAgent, AgentNotInstalled, InstallFailed, AgentNotNamed, SessionConflict, AgentStartFailed,
            AgentLimitReached, ShuttingDown.
        """
        if agent is not None:
            agent = self._catalog.resolve(agent)
            await self.prepare(id, agent)
        async with self._alone(id):
            if self.closed:
                raise ShuttingDown
            if (entry := self._entries.get(id)) is not None:
                existing = entry.session.log.row.agent
                if agent is not None and agent != existing:
                    raise SessionConflict(id, existing, agent)
                if entry.ended.is_set():  # a bug of ours ended it: its log is there, and so it can go on
                    return self._restored(entry.session.log)
                return entry.session
            if agent is None:
                raise AgentNotNamed(id)
            self._catalog.launch(agent)  # refuse now what can never start
            self._setting.berths.check()
            # Begun, it is finished, or the row would be there without a session. The journal gives up in seconds.
            with trio.CancelScope(shield=True):
                self._start(await self._setting.journal.create(id, agent))
            session = self._entries[id].session
            try:
                session.wake()
                await session.started.wait()
            except BaseException:
                # Cancelled, or there is no such program: a session without a single process is nothing to keep.
                with trio.CancelScope(shield=True):
                    await self._end(id)
                raise
            self._arrived.unpark_all()
            return session

    def find_by_key(self, key: str) -> Session | None:
        """The session that was made under an idempotency key."""
        return next((session for session in self.all() if (session.memory.made_by or ("",))[0] == key), None)

    async def create(self, id: str | None, agent: str, setup: Setup, key: str | None = None) -> Session:
        """Make a native session, and wait until its agent has opened an ACP session as it was asked for.

        Args:
          id: None: any.
          key: of idempotency: asked again with the same key, it is the same session.

        Raises:
          InvalidRequest, UnsupportedAgent, AgentNotInstalled, InstallFailed, AgentStartFailed, SessionOpenFailed,
            AgentAuthRequired, AgentLimitReached, SessionExists, IdempotencyConflict, JournalUnavailable, ShuttingDown:
            nothing is left.
        """
        if id is not None:
            check_id(id)
        agent = self._catalog.resolve(agent)

        async def make(made_by: MadeBy) -> Session:
            return await self._create(id or new_id("ses"), agent, setup, made_by)

        return await self._once(key, [id, agent, setup], make)

    async def fork(
        self, id: str, into: str | None, changes: Changes, key: str | None = None, generation: int | None = None
    ) -> Session:
        """Make a native session that goes on, by itself, from where another one is.

        Args:
          into: the id of the new one; None: any.
          changes: what is to be different in it: title, tags, mode, model, config.
          key: of idempotency, as in `create`.
          generation: of the owner who asks for it, where it has one.

        Raises:
          SessionNotFound: there is nothing to fork.
          Refusal: as `forked` and `create`: nothing is left.
        """
        if into is not None:
            check_id(into)
        source = self.get(id)

        async def make(made_by: MadeBy) -> Session:
            if into in self._entries:
                raise SessionExists(into)
            async with forked(source, changes, generation) as setup:
                session = await self._create(into or new_id("ses"), source.log.row.agent, setup, made_by)
            with suppress(ActorError):
                source.ref.offer(ForkEnded(setup.resume or "", session.log.row.id))
            return session

        return await self._once(key, ["fork", id, into, changes], make)

    async def _once(
        self, key: str | None, asked: Sequence[object], make: Callable[[MadeBy], Awaitable[Session]]
    ) -> Session:
        """Make a session; under a key that one was made under, with the same asked for, give that one."""
        if key is None:
            return await make(None)
        made_by = (key, fingerprint(asked))
        async with self._alone(f"\0{key}"):  # no id begins like this
            if (session := self.find_by_key(key)) is None:
                return await make(made_by)
        if session.memory.made_by != made_by:
            raise IdempotencyConflict(key)
        if session.memory.main is None:  # the daemon died before the agent had opened it
            if session.state == "stopped":
                session.wake()
            await session.opened.wait()
        return session

    async def _create(self, id: str, agent: str, setup: Setup, made_by: MadeBy) -> Session:
        setup = await checked(setup, self._catalog)
        await self.prepare(id, agent)
        async with self._alone(id):
            if self.closed:
                raise ShuttingDown
            if id in self._entries:
                raise SessionExists(id)
            self._catalog.launch(agent)
            self._setting.berths.check()
            memory = Memory(setup=setup, made_by=made_by)
            with trio.CancelScope(shield=True):
                self._start(await self._setting.journal.create(id, agent, memory.dump()))
            session = self._entries[id].session
            session.tell_clients([notices.session_created(agent, setup)])
            try:
                session.wake()
                await session.started.wait()
                await session.opened.wait()
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._end(id)
                raise
            self._arrived.unpark_all()
            return session

    def restore(self) -> None:
        """Bring back the sessions of an earlier daemon, their agents stopped; the next request wakes each."""
        for session_log in list(self._setting.journal.sessions.values()):
            self._restored(session_log)

    def _restored(self, session_log: SessionLog) -> Session:
        session = self._start(session_log)
        session.settle_past()
        return session

    async def delete(self, id: str, generation: int | None = None) -> None:
        """Stop the agent with all its tree, and forget the session. An id that is not there is fine.

        Raises:
          StaleGeneration: whoever asks for it is not the session's owner any more.
        """
        async with self._alone(id):
            if (entry := self._entries.get(id)) is not None:
                entry.session.fence.check(generation)
                # Half a delete would leave two sessions with one row. The ladder bounds it.
                with trio.CancelScope(shield=True):
                    await self._end(id)

    async def close(self) -> None:
        """Stop every agent; take no new ones. The sessions stay, and so do their events."""
        self.closed = True
        async with trio.open_nursery() as nursery:
            for entry in list(self._entries.values()):
                nursery.start_soon(_stop, entry)

    def _start(self, session_log: SessionLog) -> Session:
        scope, ended = trio.CancelScope(), trio.Event()
        node = Node(session_log.row.id, "session")
        session = Session(session_log, self._catalog, self._setting, node)
        self._entries[session_log.row.id] = entry = _Entry(session, scope, ended)
        self._nursery.start_soon(self._keep, entry)
        return session

    async def _keep(self, entry: _Entry) -> None:
        session = entry.session
        try:
            with entry.scope, self._node.attached(session.node):
                await session.run()
        except Exception as crash:
            log.error("session crashed", session=session.log.row.id, exc_info=crash)
        finally:
            entry.ended.set()

    async def _end(self, id: str) -> None:
        entry = self._entries.pop(id)
        self._deleted[id] = None
        while len(self._deleted) > DELETED_REMEMBERED:
            del self._deleted[next(iter(self._deleted))]
        await _stop(entry)
        entry.scope.cancel()
        await entry.ended.wait()
        await self._setting.journal.delete(entry.session.log)

    @asynccontextmanager
    async def _alone(self, id: str) -> AsyncGenerator[None]:
        """One at a time makes or deletes a session of an id."""
        lock = self._busy.setdefault(id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._busy.pop(id, None)


async def _stop(entry: _Entry) -> None:
    # A session that has crashed reads no mail any more; leaving its scope stopped its agent.
    with suppress(ActorStopped):
        await entry.session.ref.tell(Close())
    await entry.session.closed.wait()


@asynccontextmanager
async def open_sessions(
    catalog: Catalog, setting: Setting, node: Node, ensure: Ensure | None = None
) -> AsyncGenerator[Sessions]:
    """All sessions, for as long as the block runs; every agent is stopped, by its ladder, before it ends.

    Args:
      ensure: installs an agent that is not there; without it such an agent is refused.
    """
    async with trio.open_nursery() as nursery:
        sessions = Sessions(catalog, setting, node, nursery, ensure)
        try:
            sessions.restore()
            yield sessions
        finally:
            with trio.CancelScope(shield=True):
                await sessions.close()
            nursery.cancel_scope.cancel()
