"""How a record stands in a row of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from .store import Entry, EventRecord, GapRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Record

__all__ = ["PAGE_BYTES", "Row", "entry_of", "row_of", "size_of"]

PAGE_BYTES = 8 << 20
"""Bytes of envelopes after which a page of entries ends, though more were asked for."""

Row: TypeAlias = tuple[int, int, str | None, int | None, str | None, str | None, int | None, bytes | None]
"""first, last, reason, at_ms, kind, direction, incarnation, envelope: a gap has the first three."""


def row_of(record: Record) -> Row:
    """The columns of a record."""
    if isinstance(record, GapRecord):
        return record.first, record.last, record.reason, None, None, None, None, None
    told = (record.at_ms, record.kind, record.direction, record.incarnation, record.raw)
    return record.seq, record.seq, None, *told


def entry_of(row: Sequence[Any]) -> Entry:
    """The entry of a row: its number, its epoch, and the columns of its record."""
    number, epoch, first, last, reason, at_ms, kind, direction, incarnation, envelope = row
    if reason is not None:
        return Entry(number, epoch, GapRecord(first, last, reason))
    return Entry(number, epoch, EventRecord(first, at_ms, kind, direction, incarnation, bytes(envelope)))


def size_of(entry: Entry) -> int:
    """Bytes of its envelope."""
    return len(entry.record.raw) if isinstance(entry.record, EventRecord) else 0
