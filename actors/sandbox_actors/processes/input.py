"""What is written to a child: at once where there is room, otherwise by a task of its own, in order and bounded.

The pipe to a child that does not read fills up; behind it there is room for some more, and then a writer is told so
at once. So nobody ever waits for a child.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .errors import InputBroken, InputFull, NotRunning, ProcessTrouble

if TYPE_CHECKING:
    from .descriptor import Descriptor

__all__ = ["Input"]

WAITING_LIMIT = 1 << 20
"""Bytes that may wait behind a full pipe, whoever has written them. One write alone may be larger."""

END_OF_FILE = b"\x04"
"""What a terminal in its usual mode takes for the end, at the begin of a line (termios(3), VEOF)."""


class Input:
    """See the module.

    Args:
      descriptor: where to; None where the child has no input of ours.
      tty: whether that is a terminal, which is closed for output only together with everything.
    """

    def __init__(self, descriptor: Descriptor | None, *, tty: bool) -> None:
        self._descriptor = descriptor
        self._tty = tty
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._ending = descriptor is None
        self._broken = False
        self._wanted = trio.Event()

    def write(self, data: bytes) -> None:
        """Take it over whole.

        Raises:
          ProcessTrouble, InputBroken, InputFull: nothing of it was taken.
        """
        if self._broken:
            raise InputBroken
        if self._ending:
            raise ProcessTrouble("process does not accept stdin")
        if self._waiting:
            if self._size + len(data) > WAITING_LIMIT:
                raise InputFull(self._size)
        elif data:
            data = data[self._write(data) :]
            if self._broken:
                raise InputBroken
        if data:
            self._waiting.append(data)
            self._size += len(data)
            self._wanted.set()

    def write_all(self, data: bytes) -> None:
        """All of its input at once. A program need not read what it is given, and may have ended by now."""
        with suppress(InputBroken):
            self.write(data)
            if not self._tty:
                self.end()

    def end(self) -> None:
        """Nothing more follows; what waits is still written."""
        if self._tty:
            self.write(END_OF_FILE)
            return
        self._ending = True
        self._wanted.set()
        if not self._waiting and self._descriptor is not None:
            self._descriptor.close()

    async def flush(self) -> None:
        """Write what waits whenever there is room, until the end or until nobody reads. A task of the child's."""
        while self._descriptor is not None and not (self._broken or self._descriptor.closed):
            if not self._waiting:
                if self._ending:
                    self._descriptor.close()
                    return
                self._wanted = trio.Event()
                await self._wanted.wait()
                continue
            await trio.lowlevel.wait_writable(self._descriptor)
            data = self._waiting.popleft()
            if rest := data[self._write(data) :]:
                self._waiting.appendleft(rest)
            self._size -= len(data) - len(rest)

    def _write(self, data: bytes) -> int:
        if self._descriptor is None or self._descriptor.closed:
            raise NotRunning
        try:
            return self._descriptor.write(data)
        except OSError:
            self._broken = True
            self._waiting.clear()
            self._size = 0
            return len(data)
