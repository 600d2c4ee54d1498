"""The reader behind a stream: cursors on the logs of all sessions that a connection is attached to, as one.

It holds cursors and no queue: what nobody reads costs nothing. What is read of a log goes through a `Lens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sandbox_actors.journal import Gap

from ..streams import gap_notice
from .lens import Lens, Sight
from .scope import ALL

if TYPE_CHECKING:
    from sandbox_actors.journal import Cursor

    from .attachment import Attachment
    from .connection import Connection
    from .scope import Scope

__all__ = ["Batch", "Feed"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read at once.

    Attributes:
      place: which of the connection's attachments it stems from.
      position: up to which event this was.
    """

    place: int
    attachment: Attachment
    position: int
    sights: list[Sight]


@dataclass(slots=True, eq=False)
class _Source:
    place: int
    attachment: Attachment
    cursor: Cursor
    lens: Lens

    @property
    def ready(self) -> bool:
        """Whether the cursor gives something, or ends, without waiting for the log to grow."""
        log, cursor = self.cursor.log, self.cursor
        return cursor.behind or log.closed or cursor.position >= log.next_seq


class Feed:
    """See the module.

    Args:
      attachment: the one that is read; None for all that the connection has and gets.
    """

    def __init__(self, connection: Connection, scope: Scope, epoch: str, attachment: Attachment | None = None) -> None:
        self.scope = scope
        self.closed = False
        self._connection = connection
        self._epoch = epoch
        self._only = attachment
        self._seen = 0
        self._sources: list[_Source] = []

    def close(self) -> None:
        """End it, also where it waits."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Have it look again: there may be more to read than it waits for."""
        for source in self._sources:
            source.cursor.log.wake()

    async def read(self) -> Batch | None:
        """What is next, once it is there; None at the end: it was closed, or all its sessions are deleted."""
        while True:
            self._follow()
            if self.closed or not self._sources:
                await trio.lowlevel.checkpoint()
                return None
            for source in self._sources:
                if owed := self._connection.owed(source.attachment, self.scope):
                    sights = [Sight(None, session, envelope) for session, envelope in owed]
                    return Batch(source.place, source.attachment, source.cursor.position, sights)
                if source.ready:
                    if (batch := await self._read(source)) is not None:
                        return batch
                    break
            else:
                await self._park()

    def _follow(self) -> None:
        attachments = self._connection.attachments
        for place in range(self._seen, len(attachments)):
            attachment = attachments[place]
            if self._only is None or attachment is self._only:
                cursor = attachment.log.cursor(self._position(attachment))
                self._sources.append(_Source(place, attachment, cursor, Lens(self._connection, attachment, self.scope)))
        self._seen = len(attachments)

    def _position(self, attachment: Attachment) -> int:
        if isinstance(self.scope, str):
            return attachment.opened.get(self.scope, attachment.since)
        return attachment.told

    async def _read(self, source: _Source) -> Batch | None:
        try:
            read = await anext(source.cursor)
        except StopAsyncIteration:
            self._sources.remove(source)
            return None
        if isinstance(read, Gap):
            sights = [Sight(None, self.scope if isinstance(self.scope, str) else None, gap_notice(read, self._epoch))]
        else:
            sights = [
                sight
                for page in read
                for event in page.events()
                for sight in source.lens.look(event)
                if self.scope is ALL or sight.session == self.scope
            ]
        return Batch(source.place, source.attachment, source.cursor.position, sights)

    async def _park(self) -> None:
        if len(self._sources) == 1:
            await self._sources[0].cursor.log.park()
            return

        async def wait(source: _Source) -> None:
            # Others may have run since this was looked at.
            if not source.ready and not self.closed and self._seen == len(self._connection.attachments):
                await source.cursor.log.park()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for source in self._sources:
                nursery.start_soon(wait, source)
