"""Parts of a file, and whether it is sent at all: conditional and range requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from quart import request

from .problems import Problem

if TYPE_CHECKING:
    from sandbox_actors.files import Precondition

__all__ = ["is_wanted", "last_modified", "range_of", "write_precondition"]


def last_modified(seconds: int) -> datetime | None:
    """A file's time as HTTP can tell it; None for one beyond the year 9999, or before the first."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def is_wanted(etag: str, modified: datetime | None) -> bool:
    """Judge a file by the conditions of the request to read it; False if the client has it (304).

    Raises:
      Problem: `precondition_failed`.
    """
    if "If-Match" in request.headers:
        if not request.if_match.contains(etag):
            raise _failed()
    elif (unmodified := request.if_unmodified_since) is not None and modified is not None and modified > unmodified:
        raise _failed()
    if "If-None-Match" in request.headers:
        return not request.if_none_match.contains_weak(etag)
    since = request.if_modified_since
    return since is None or modified is None or modified > since


def range_of(size: int, etag: str, modified: datetime | None) -> tuple[int, int] | None:
    """The part that is asked for, its end not included; None for the whole.

    A range that is none, one of something else than bytes, and several at once are as good as no range.

    Raises:
      Problem: `range_not_satisfiable`, there is nothing of it in the file.
    """
    asked, condition = request.range, request.if_range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if condition.etag not in (None, etag) or condition.date not in (None, modified):
        return None
    start, end = asked.ranges[0]
    if start < 0:  # so many bytes of the end
        start = max(0, size + start)
    end = size if end is None else min(end, size)
    if start >= size:
        raise Problem(
            "range_not_satisfiable", f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, end


def write_precondition() -> Precondition:
    """What `If-Match` and `If-None-Match` ask of the file that is to be written."""
    match = request.if_match if "If-Match" in request.headers else None
    none_match = request.if_none_match if "If-None-Match" in request.headers else None

    def may_be_written(etag: str | None) -> bool:
        if match is not None and (etag is None or not match.contains(etag)):
            return False
        return none_match is None or etag is None or not none_match.contains_weak(etag)

    return may_be_written


def _failed() -> Problem:
    return Problem("precondition_failed", "the file is not in the state that the request asks for")
