"""The journal: durable, numbered, replayable events; readers hold a cursor, never a queue."""

from .journal import Journal, open_journal
from .log import Cursor, SessionLog
from .page import Event, Gap, Origin, Page
from .store import Retention, UnknownVersion

__all__ = [
    "Cursor",
    "Event",
    "Gap",
    "Journal",
    "Origin",
    "Page",
    "Retention",
    "SessionLog",
    "UnknownVersion",
    "open_journal",
]
