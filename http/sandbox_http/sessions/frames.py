"""What native event streams are made of: frames, each one JSON object with a `type`, the same on every transport.

event            one event: its number, time, kind, direction, incarnation, and the envelope as it was
gap              events that were asked for are not there; the next frame is of event `next`
replay_complete  all that was there when the stream was opened has been told
heartbeat        nothing else came for a while; everything up to `seq` has been looked at
stopping         the daemon is shutting down: connect again later, behind the last number
deleted          the session was deleted, this was all
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from sandbox_actors.journal import Origin
from sandbox_actors.kinds import glance, kind_of
from sandbox_actors.moments import told

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json
    from sandbox_actors.journal import Event, Gap, Page

__all__ = [
    "DIRECTIONS",
    "Frame",
    "all_frames",
    "deleted_frame",
    "event_text",
    "gap_frame",
    "gap_members",
    "heartbeat_frame",
    "replay_complete_frame",
    "stopping_frame",
]

DIRECTIONS: dict[Origin, str] = {
    Origin.AGENT: "agent",
    Origin.CLIENT: "client",
    Origin.DAEMON: "daemon",
    Origin.NOTICE: "notice",
}

CACHED_PAGE = 64 << 10
"""Bytes of the largest page whose frames are kept for the next subscriber."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
      seq: where a reader that has it goes on from; None where it says nothing about that.
      text: the JSON.
    """

    type: str
    seq: int | None
    text: bytes

    @property
    def as_sse(self) -> bytes:
        id = b"" if self.seq is None else b"id: %d\n" % self.seq
        return b"event: %b\n%bdata: %b\n\n" % (self.type.encode(), id, self.text)


def event_text(event: Event, kind: str) -> bytes:
    """The JSON of an event. The envelope is spliced in: it stays the text that it was."""
    return b'{"type":"event","seq":%d,"at":"%b","kind":%b,"direction":"%b","incarnation":%d,"envelope":%b}' % (
        event.seq,
        told(event.at_ms).encode(),
        msgspec.json.encode(kind),
        DIRECTIONS[event.origin].encode(),
        event.incarnation,
        event.envelope,
    )


def all_frames(page: Page) -> tuple[Frame, ...]:
    """The frames of all events of a page."""
    return _cached(page) if len(page.body) <= CACHED_PAGE else _rendered(page)


def _rendered(page: Page) -> tuple[Frame, ...]:
    return tuple(
        Frame("event", event.seq, event_text(event, kind_of(event.origin, glance(event.envelope))))
        for event in page.events()
    )


# Subscribers that are level with each other read the same pages: rendered once, sent to each.
_cached = lru_cache(maxsize=8)(_rendered)


def gap_members(gap: Gap, epoch: str) -> dict[str, Json]:
    """What is missing, where it goes on, and in which journal."""
    return {"from": gap.first, "to": gap.last, "reason": gap.reason, "next": gap.next, "epoch": epoch}


def gap_frame(gap: Gap, epoch: str) -> Frame:
    return _frame("gap", gap.next - 1, gap_members(gap, epoch))


def replay_complete_frame(seq: int) -> Frame:
    return _frame("replay_complete", seq, {"seq": seq})


def heartbeat_frame(seq: int) -> Frame:
    return _frame("heartbeat", seq, {"seq": seq, "at": told(round(time.time() * 1000))})


def stopping_frame() -> Frame:
    return _frame("stopping", None, {})


def deleted_frame() -> Frame:
    return _frame("deleted", None, {})


def _frame(type: str, seq: int | None, members: dict[str, Json]) -> Frame:
    return Frame(type, seq, msgspec.json.encode({"type": type, **members}))
