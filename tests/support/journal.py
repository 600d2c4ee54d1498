"""What the journal's file holds, read beside the daemon and without its code."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from .clients import Seen

if TYPE_CHECKING:
    from pathlib import Path

    from .daemon import Daemon

__all__ = ["Kept", "copied", "kept", "visible"]

SHOWN = ("a", "n")
"""The origins that streams show: the agent's lines and the daemon's notices."""


class Kept(NamedTuple):
    """One event as the file has it."""

    seq: int
    incarnation: int
    origin: str
    envelope: bytes


def kept(daemon: Daemon, server: str) -> list[Kept]:
    """All events of a session that has not been deleted; their numbers must be without a gap."""
    with closing(sqlite3.connect(f"file:{daemon.state_dir / 'journal.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT pages.first, pages.incarnation, pages.origins, pages.body FROM pages"
            " JOIN sessions ON pages.session=sessions.key WHERE sessions.id=? AND last>=floor ORDER BY last",
            (server,),
        ).fetchall()
    events = [
        Kept(first + index, incarnation, chr(origin), envelope)
        for first, incarnation, origins, body in rows
        for index, (origin, envelope) in enumerate(zip(origins, body.split(b"\n"), strict=True))
    ]
    if events:
        assert [event.seq for event in events] == list(range(events[0].seq, events[0].seq + len(events)))
    return events


def visible(events: list[Kept]) -> list[Seen]:
    """What a stream should show of them."""
    return [Seen(event.seq, event.envelope) for event in events if event.origin in SHOWN]


def copied(journal: Path, copy: Path) -> None:
    """The file as it is at this moment, which is what a daemon leaves that is killed at this moment."""
    with closing(sqlite3.connect(journal)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
