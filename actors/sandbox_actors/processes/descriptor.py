"""Our end of a pipe or terminal of a child: read in large pieces, written without waiting."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Descriptor"]

READ_SIZE = 64 << 10
"""Bytes that are read and handed on at once, at most: every other task of the daemon waits meanwhile."""

SMALL = 16 << 10
"""Bytes below which a piece costs more for being one than for what is in it."""

GATHER_SECONDS = 0.001
"""Nobody sees the difference, and a program that writes line by line wakes us a thousand times a second at most."""

PIPE_SIZE = 256 << 10
"""Bytes that a pipe may hold where the kernel lets us: the child is held up less often, and we wake up less often."""


class Descriptor:
    """A file descriptor of our own, which never blocks."""

    def __init__(self, number: int) -> None:
        os.set_blocking(number, False)
        self._number = number
        self.closed = False

    def fileno(self) -> int:
        return self._number

    def widen(self) -> None:
        """Let a pipe hold more. A user has only so much for all pipes; then it stays as it is."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._number, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    async def pump(self, take: Callable[[bytes], None], *, gather: bool = False) -> None:
        """Hand on what comes, piece by piece, until the end.

        Args:
          gather: whether to wait a moment for more where small pieces come one after the other.
        """
        last = -math.inf
        while True:
            piece, more = self._read()
            if piece:
                take(piece)
            if not more:
                return
            if len(piece) >= READ_SIZE:
                await trio.lowlevel.checkpoint()
                continue
            await trio.lowlevel.wait_readable(self._number)
            if gather and len(piece) < SMALL:
                now = trio.current_time()
                if now - last < GATHER_SECONDS:
                    await trio.sleep(GATHER_SECONDS)
                last = now

    def _read(self) -> tuple[bytes, bool]:
        """What is there, and whether there may be more. A terminal gives 4 KiB at a time however much there is."""
        pieces: list[bytes] = []
        size = 0
        while size < READ_SIZE:
            try:
                piece = os.read(self._number, READ_SIZE - size)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                piece = b""  # a terminal that nobody has open any more
            if not piece:
                return b"".join(pieces), False
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces), True

    def write(self, data: bytes) -> int:
        """Write what there is room for; gives how many bytes that were.

        Raises:
          OSError: nobody will read it.
        """
        try:
            return os.write(self._number, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Give it back; whoever waits for it gets `trio.ClosedResourceError`."""
        if not self.closed:
            self.closed = True
            trio.lowlevel.notify_closing(self._number)
            os.close(self._number)
