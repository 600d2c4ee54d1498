"""What waits for the agent's stdin: bounded, and refused loudly when full.

Those who put never wait: HTTP must not hang on an agent that does not read. One task writes, a whole line at a time
whatever becomes of the client that sent it, so no line is ever cut.
"""

from __future__ import annotations

from collections import deque

import trio

from .errors import AgentBusy

__all__ = ["Outbox"]

BYTES_LIMIT = 64 << 20
"""As much as the longest line; a single envelope is taken whatever its size while nothing else waits."""

COUNT_LIMIT = 1024
"""Envelopes that may wait: far above what clients have in flight, far below what hurts."""


class Outbox:
    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._filled = trio.Event()

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def check(self) -> None:
        """Raises `AgentBusy` if nothing more fits."""
        if len(self._waiting) >= COUNT_LIMIT or self._bytes >= BYTES_LIMIT:
            raise AgentBusy

    def put(self, envelope: bytes) -> None:
        self._waiting.append(envelope)
        self._bytes += len(envelope)
        self._filled.set()

    async def take(self) -> bytes:
        """All that waits, as lines; waits until there is something."""
        await self._filled.wait()
        self._filled = trio.Event()
        lines = b"".join([part for envelope in self._waiting for part in (envelope, b"\n")])
        self._waiting.clear()
        self._bytes = 0
        return lines
