"""How a log is kept within its limits: its floor is raised, and what is below is deleted, a slice at a time.

Both are jobs of the journal's writer, in order with the events. Counting a log's pages is not free, so it is done once;
from then on what is kept is known from what was added and what was dropped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from .store import Retention, Store, Trimmed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .log import SessionLog
    from .page import Page

__all__ = ["Housekeeper"]

EVERY = 60.0
"""Seconds between two looks at the age of events."""


class Housekeeper:
    """Applies a retention.

    Args:
      submit: has the writer do something, and then calls back with the result.
      troubled: whether the disk takes no writes at present.
    """

    def __init__(
        self,
        retention: Retention,
        submit: Callable[[Callable[[Store], object], Callable[[object], None]], None],
        troubled: Callable[[], bool],
    ) -> None:
        self._retention = retention
        self._submit = submit
        self._troubled = troubled

    def added(self, log: SessionLog, pages: Iterable[Page]) -> None:
        """Some pages of a log have become visible."""
        for page in pages:
            log.added_events += len(page.origins)
            log.added_bytes += len(page.body)
        limit = self._retention
        if log.kept is not None:
            events, size = log.kept[0] + log.added_events, log.kept[1] + log.added_bytes
            too_many = limit.max_events is not None and events > limit.max_events
            if too_many or (limit.max_bytes is not None and size > limit.max_bytes):
                self._trim(log)

    async def run(self, logs: Callable[[], list[SessionLog]]) -> None:
        """Take up what an earlier daemon left; then look at the age of events now and then."""
        self._submit(Store.garbage, self._found)
        while True:
            if not self._troubled():
                for log in logs():
                    self.look(log)
            if self._retention.max_age is None:
                return
            await trio.sleep(EVERY)

    def look(self, log: SessionLog) -> None:
        """Count a log, and trim it if that is due."""
        if self._retention != Retention(None, None, None):
            self._trim(log)

    def collect(self, session: int, floor: int) -> None:
        """Delete the pages of a session below its floor."""

        def collected(more: object) -> None:
            if more:
                self.collect(session, floor)

        self._submit(partial(Store.collect, session=session, floor=floor), collected)

    def _found(self, garbage: object) -> None:
        for session, floor in cast("list[tuple[int, int]]", garbage):
            self.collect(session, floor)

    def _trim(self, log: SessionLog) -> None:
        if log.closed or log.trimming:
            return
        log.trimming = True
        known = None if log.kept is None else (log.kept[0] + log.added_events, log.kept[1] + log.added_bytes)
        log.added_events = log.added_bytes = 0
        row = replace(log.row)

        def trimmed(result: object) -> None:
            assert isinstance(result, Trimmed)
            log.trimming = False
            log.kept = (result.events, result.bytes)
            if result.floor > log.row.floor:
                log.row.floor = result.floor
                self.collect(row.key, result.floor)
            if log.added_events:
                self.added(log, ())  # what came meanwhile may be too much already

        self._submit(lambda store: store.trim(row, self._retention, known), trimmed)
