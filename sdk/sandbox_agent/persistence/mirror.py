"""The mirror: it copies a session's events into a store, each once, in order, and goes on where the store is.

One task reads the server's stream, another writes what has come meanwhile, as one batch. Between them there is room for
a bounded number of events: where the store is slow, the reader waits, which costs the server nothing. What was read and
not yet stored when we are gone is read again.

Where the server has another journal than the one that the store knows, the store gets a new epoch; so it does where the
journal is an older copy of itself, say out of a snapshot, whose numbers mean other events from there on: its epochs are
told apart by a suffix (`abc`, `abc#2`, ...). Numbers in front of what the server can still tell are kept as a gap.
"""

from __future__ import annotations

import logging
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio

from ..backoff import Backoff
from ..errors import ConnectionFailed, NotFound, SandboxAgentError, StoreUnavailable, Unavailable
from ..events import Gap
from ..scope import plainly
from .store import EventRecord, GapRecord, Position

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from ..events import Event
    from .store import Record, SessionKey, Store

__all__ = ["Mirror", "Source", "Stream"]

T = TypeVar("T")

ROOM = 256
"""Events that are read ahead of the store."""

BATCH_EVENTS, BATCH_BYTES = 512, 4 << 20
"""Of one append, but for one event that is larger."""

OUTAGE = 300.0
"""Seconds for which a store that is away is asked again."""

REWOUND = "#"
"""Behind it stands how many times a journal was wound back. The server's epochs are hexadecimal."""

_log = logging.getLogger("sandbox_agent")


class Stream(Protocol):
    """Events, and the gaps between them. `epoch` is known with the first."""

    @property
    def epoch(self) -> str | None: ...

    def __aiter__(self) -> AsyncIterator[Event | Gap]: ...


class Source(Protocol):
    """Where events come from: a `Session` is one."""

    def events(self, after: int = 0, *, epoch: str | None = None) -> AbstractAsyncContextManager[Stream]: ...


class Mirror:
    """See the module.

    Args:
      generation: of the lease that we hold, where there are leases.
      outage: seconds for which a store that is away is asked again.

    Attributes:
      position: how far the store is; None: it has nothing, or was not asked yet.
    """

    def __init__(
        self, source: Source, store: Store, key: SessionKey, generation: int | None = None, *, outage: float = OUTAGE
    ) -> None:
        self.position: Position | None = None
        self._source = source
        self._store = store
        self._key = key
        self._generation = generation
        self._outage = outage
        self._moved = anyio.Event()

    async def run(self) -> None:
        """Mirror until the session is deleted, or there is none any more.

        Raises:
          LeaseLost: another owner does it now.
          StoreUnavailable: the store was away for too long.
          PersistenceError: it refuses.
          SandboxAgentError: the server was given up, or refuses.
        """
        backoff = Backoff()
        await self._retried(self._look)
        while True:
            before = self.position
            try:
                await self._follow()
            except NotFound:
                return
            except (ConnectionFailed, Unavailable) as error:
                _log.info("%s: the server does not tell its events, trying again: %s", self._key, error)
            if self.position != before:
                backoff.reset()
            await anyio.sleep(backoff.next())

    async def reached(self, epoch: str, seq: int) -> None:
        """Wait until the store has the events of an epoch up to a number."""
        while (now := self.position) is None or _journal(now.epoch) != epoch or now.seq < seq:
            await self._moved.wait()

    async def _look(self) -> None:
        self.position = await self._store.position(self._key)

    async def _follow(self) -> None:
        """Read and write, until the stream has ended and all that was read is stored; then raise what ended it."""
        ended: list[SandboxAgentError] = []
        send, receive = anyio.create_memory_object_stream[tuple[str, "Record"]](ROOM)
        async with plainly(anyio.create_task_group()) as tasks:
            tasks.start_soon(self._read, send, ended)
            tasks.start_soon(self._write, receive)
        if ended:
            raise ended[0]

    # -- reading

    async def _read(self, send: MemoryObjectSendStream[tuple[str, Record]], ended: list[SandboxAgentError]) -> None:
        at = self.position
        label = at.epoch if at else None
        with send:
            try:
                async with self._source.events(
                    at.seq if at else 0, epoch=None if label is None else _journal(label)
                ) as events:
                    async for event in events:
                        if isinstance(event, Gap):
                            label = _label(label, event, event.epoch or events.epoch or "")
                            if (gap := _missing(event)) is not None:
                                await send.send((label, gap))
                        else:
                            label = label or events.epoch or ""
                            await send.send((label, _record(event)))
            except SandboxAgentError as error:
                ended.append(error)

    # -- writing

    async def _write(self, receive: MemoryObjectReceiveStream[tuple[str, Record]]) -> None:
        with receive:
            async for piece in receive:
                pieces, size = [piece], _size(piece[1])
                while len(pieces) < BATCH_EVENTS and size < BATCH_BYTES:
                    try:
                        pieces.append(receive.receive_nowait())
                    except (anyio.WouldBlock, anyio.EndOfStream):
                        break
                    size += _size(pieces[-1][1])
                for epoch, run in groupby(pieces, key=itemgetter(0)):
                    await self._append(epoch, [record for _, record in run])

    async def _append(self, epoch: str, records: list[Record]) -> None:
        async def append() -> None:
            await self._store.append(self._key, epoch, records, self._generation)

        await self._retried(append)
        self.position = Position(epoch, records[-1].last)
        self._moved.set()
        self._moved = anyio.Event()

    async def _retried(self, ask: Callable[[], Awaitable[T]]) -> T:
        backoff, deadline = Backoff(), anyio.current_time() + self._outage
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                delay = backoff.next()
                if anyio.current_time() + delay > deadline:
                    raise
                _log.warning("%s: %s", self._key, error)
            await anyio.sleep(delay)


def _journal(label: str) -> str:
    """The server's epoch of one of ours."""
    return label.partition(REWOUND)[0]


def _label(label: str | None, gap: Gap, epoch: str) -> str:
    """The epoch, for the store, of what comes behind a gap."""
    if label is None or gap.reason not in ("epoch", "ahead"):
        return label or epoch
    if gap.reason == "epoch":
        return epoch
    journal, _, times = label.partition(REWOUND)
    return f"{journal}{REWOUND}{int(times or 1) + 1}"


def _missing(gap: Gap) -> GapRecord | None:
    """What of a gap is to be kept: where all begins anew, what is in front of that."""
    anew = gap.reason in ("epoch", "ahead")
    first, last = (1, gap.next - 1) if anew else (gap.first, gap.last)
    return GapRecord(first, last, gap.reason) if first <= last else None


def _record(event: Event) -> EventRecord:
    # What an agent calls its methods is anything: no store need take half a character, or a NUL.
    kind = event.kind.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    at_ms = round(event.at.timestamp() * 1000)
    return EventRecord(event.seq, at_ms, kind, event.direction, event.incarnation, event.raw)


def _size(record: Record) -> int:
    return len(record.raw) if isinstance(record, EventRecord) else 0
