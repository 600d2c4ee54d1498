"""A page: consecutive events of one session that were committed together, as one row.

An event is one envelope with its number. Agents write many lines at once and one commit takes them all, so events are
kept, read and sent by the page: the cost of a row, of a wake-up and of a send is paid once for hundreds of events. The
envelopes stand in the body as the original bytes, one a line; that is why no envelope may hold a raw line feed (JSON
needs none: inside strings it is illegal, between tokens any other blank does).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Event", "Gap", "Origin", "Page"]


class Origin(Enum):
    """Who said it. The value is the letter it is stored as."""

    AGENT = b"a"
    """A line of the agent's stdout."""
    CLIENT = b"c"
    """An envelope that a client sent to the agent."""
    DAEMON = b"d"
    """The daemon's own talk with the agent, either direction, while it brings a new incarnation back."""
    NOTICE = b"n"
    """What the daemon tells clients, as a notification `_adapter/...` or `_sandboxagent/...`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
      seq: its number, gap-free within the session, from 1.
      at_ms: when it was taken in, milliseconds of Unix time; the same for all events of a page.
      incarnation: which run of the agent it belongs to; 0 before the first.
      origin: who said it.
      envelope: the JSON text, without a line feed. Of the agent's lines it may also be any other text: see `Origin`.
    """

    seq: int
    at_ms: int
    incarnation: int
    origin: Origin
    envelope: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """The events `first`..`last`, both included.

    Attributes:
      origins: one letter an event, see `Origin`.
      body: the envelopes, separated by single line feeds.
    """

    first: int
    last: int
    at_ms: int
    incarnation: int
    origins: bytes
    body: bytes

    def numbered(self, skip: bytes = b"") -> Iterator[tuple[int, bytes]]:
        """The numbers and envelopes of the page, without the events whose origin's letter is in `skip`."""
        if not skip or not any(letter in self.origins for letter in skip):
            return zip(range(self.first, self.last + 1), self.body.split(b"\n"), strict=True)
        return (
            (seq, envelope)
            for seq, letter, envelope in zip(
                range(self.first, self.last + 1), self.origins, self.body.split(b"\n"), strict=True
            )
            if letter not in skip
        )

    def events(self) -> Iterator[Event]:
        """The events of the page, in order."""
        for (seq, envelope), letter in zip(self.numbered(), self.origins, strict=True):
            yield Event(seq, self.at_ms, self.incarnation, Origin(bytes((letter,))), envelope)

    def after(self, seq: int) -> Page:
        """The part of the page behind an event; the page itself where that is all of it."""
        drop = seq + 1 - self.first
        if drop <= 0:
            return self
        body = self.body.split(b"\n", drop)[drop]
        return Page(seq + 1, self.last, self.at_ms, self.incarnation, self.origins[drop:], body)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that a cursor asked for and that are not there.

    Attributes:
      first, last: the range of numbers that is gone; empty (`last < first`) where the cursor was ahead of the journal.
      reason: `retention`: they were there and have been dropped; `ahead`: the cursor names an event that this journal
        never had, so it stems from a journal that was lost or cut short; `epoch`: the cursor says itself that it stems
        from another journal; `damaged`: the disk does not give them back. Reading goes on at `next`.
      next: the number of the event that comes next.
    """

    first: int
    last: int
    reason: str
    next: int
