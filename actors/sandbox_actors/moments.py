"""Moments, as they are told: ISO 8601 in UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["told"]


@lru_cache(maxsize=64)
def told(at_ms: int) -> str:
    """A moment that is given in milliseconds of Unix time. All events of a page have the same one."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
