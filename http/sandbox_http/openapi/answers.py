"""The usual answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operation import Answer
from .schema import any_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .operation import Schema

__all__ = ["NOTHING", "document", "document_or_stream", "stream"]

NOTHING = Answer(204, "Done; the answer is empty.")


def document(summary: str, schema: Schema) -> Answer:
    """One JSON document."""
    return Answer(200, summary, {"application/json": schema})


def stream(summary: str, *events: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Answer:
    """Server-sent events, each of one of these schemas."""
    return Answer(200, summary, {"text/event-stream": _each(events)}, headers or {})


def document_or_stream(summary: str, schema: Schema, *events: Mapping[str, object]) -> Answer:
    """One JSON document at the end; to who asks for them, events all the time."""
    return Answer(200, summary, {"application/json": schema, "text/event-stream": _each(events)})


def _each(events: tuple[Mapping[str, object], ...]) -> Mapping[str, object]:
    return events[0] if len(events) == 1 else any_of(*events)
