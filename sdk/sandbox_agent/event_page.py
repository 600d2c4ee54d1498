"""Some of the events of a session, at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from .errors import SandboxAgentError
from .events import Gap, event_of

if TYPE_CHECKING:
    from .events import Event
    from .transport import Params, Transport

__all__ = ["EventPage", "read_page"]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of a session.

    Attributes:
      next: where the next page begins, as its `after`; this is the last one where it is `head`.
      head, floor, epoch: the newest and the oldest there is, and of which journal.
      gap: in front of these events there are some that cannot be told.
    """

    events: tuple[Event, ...]
    next: int
    head: int
    floor: int
    epoch: str
    gap: Gap | None = None


class _Page(msgspec.Struct):
    events: list[msgspec.Raw]
    next: int
    head: int
    floor: int
    epoch: str
    gap: Gap | None = None


async def read_page(transport: Transport, path: str, params: Params) -> EventPage:
    """The page that a query asks for. Raises as `Transport.ask`."""
    response = await transport.request("GET", path, params=params)
    try:
        page = msgspec.json.decode(response.content, type=_Page)
    except msgspec.MsgspecError as error:
        page = _leniently(response.content, error)
    events = tuple(event_of(bytes(text)) for text in page.events)
    return EventPage(events, page.next, page.head, page.floor, page.epoch, page.gap)


def _leniently(content: bytes, error: Exception) -> _Page:
    """A page with half a surrogate pair in it, which msgspec does not take: envelopes are the same but for blanks."""
    try:
        members = json.loads(content)
        told = [json.dumps(event, separators=(",", ":")).encode() for event in members["events"]]
        return msgspec.convert({**members, "events": [msgspec.Raw(text) for text in told]}, _Page)
    except (ValueError, TypeError, KeyError):
        raise SandboxAgentError(f"the page of events makes no sense: {error}") from None
