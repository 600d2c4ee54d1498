"""What a process has written, waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_actors.processes import Gap

if TYPE_CHECKING:
    from sandbox_actors.processes import Process

__all__ = ["output", "until"]


def output(process: Process, stream: str | None = None) -> bytes:
    """All that is kept of it."""
    return b"".join(entry.data for entry in process.log.after(0) if stream in (None, entry.stream))


async def until(process: Process, text: bytes) -> bytes:
    """Wait until this is in what it has written; gives all of it. The caller brings the deadline."""
    seen = b""
    async for read in process.log.cursor():
        assert not isinstance(read, Gap)
        seen += b"".join(entry.data for entry in read)
        if text in seen:
            return seen
    raise AssertionError(f"it ended before {text!r}: {seen!r}")
