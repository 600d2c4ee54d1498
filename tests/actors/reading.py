"""Reading a journal in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_actors.journal import Event, Gap, Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_actors.journal import Cursor, Journal, SessionLog

__all__ = ["append", "envelope", "read", "read_gap", "read_until"]

LETTERS = b"".join(origin.value for origin in Origin)


def envelope(number: int, size: int = 0) -> bytes:
    """What an event says, told by its number alone."""
    return b'{"n":%d}' % number + b" " * size


def append(journal: Journal, log: SessionLog, sizes: Sequence[int], incarnation: int = 1) -> list[Event]:
    """Append one batch of events of the given sizes; gives what a reader must see of it, its times left out."""
    first = log.next_seq
    envelopes = [envelope(first + index, size) for index, size in enumerate(sizes)]
    origins = bytes(LETTERS[(first + index) % len(LETTERS)] for index in range(len(sizes)))
    journal.append(log, incarnation, origins, envelopes)
    return [
        Event(first + index, 0, incarnation, Origin(origins[index : index + 1]), text)
        for index, text in enumerate(envelopes)
    ]


async def read_until(cursor: Cursor, last: int) -> list[Event]:
    """The events up to the given one, their times left out; a gap is an error."""
    events: list[Event] = []
    while cursor.position < last:
        pages = await anext(cursor)
        assert not isinstance(pages, Gap), pages
        assert pages
        events += [
            Event(event.seq, 0, event.incarnation, event.origin, event.envelope)
            for page in pages
            for event in page.events()
        ]
    return events


async def read(log: SessionLog, after: int = 0) -> list[Event]:
    """All that is visible behind an event, without waiting."""
    return await read_until(log.cursor(after), log.head)


async def read_gap(cursor: Cursor) -> Gap:
    gap = await anext(cursor)
    assert isinstance(gap, Gap), gap
    return gap
