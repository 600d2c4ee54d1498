"""What an archive becomes is counted while it is unpacked: what it says of itself may be a lie.

Three things are limited: how much comes out, how many entries, and how much more comes out than went in. The last one
is what tells a bomb from a large archive.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .errors import ArchiveTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    from _typeshed import WriteableBuffer

    class Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...

    class ReadableInto(Protocol):
        def readinto(self, buffer: WriteableBuffer, /) -> int | None: ...


__all__ = ["COPY_SIZE", "HEADER_LIMIT", "Body", "Counted", "CountedStream", "Limits"]

COPY_SIZE = 256 << 10
"""Bytes that are taken in hand at a time."""

HEADER_LIMIT = 1 << 20
"""Bytes of an extended header of a tar, which is read as a whole: paths and times, never megabytes."""

RATIO_FROM = 256 << 20
"""Bytes unpacked from which on the ratio counts: a log of one repeated line is no bomb."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold.

    Attributes:
      bytes: unpacked.
      entries: of any kind.
      ratio: bytes unpacked for each byte of the archive, once there are some hundred megabytes.
    """

    bytes: int = 64 << 30
    entries: int = 500_000
    ratio: int = 200


@dataclass(slots=True, eq=False)
class Counted:
    """What was read and unpacked so far. For a thread of Trio's: it ends when whoever waits for it is cancelled."""

    limits: Limits
    read: int = 0
    bytes: int = 0
    entries: int = 0

    def entry(self) -> None:
        """Raises `ArchiveTooLarge`."""
        self.entries += 1
        if self.entries > self.limits.entries:
            raise ArchiveTooLarge(f"it has more than {self.limits.entries} entries")

    def more(self, bytes: int) -> None:
        """Raises `ArchiveTooLarge`."""
        trio.from_thread.check_cancelled()
        self.bytes += bytes
        if self.bytes > self.limits.bytes:
            raise ArchiveTooLarge(f"it unpacks to more than {_shown(self.limits.bytes)}")
        if self.bytes > max(RATIO_FROM, self.limits.ratio * self.read):
            raise ArchiveTooLarge(f"it unpacks to more than {self.limits.ratio} times its size")


class CountedStream(io.RawIOBase):
    """What a compressed archive becomes, up to the limits: what is between its entries counts, too."""

    def __init__(self, stream: ReadableInto, counted: Counted) -> None:
        self._stream = stream
        self._counted = counted

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._stream.readinto(buffer) or 0
        self._counted.more(count)
        return count


class Body(io.RawIOBase):
    """The archive itself as it comes in, piece by piece: more is asked for when the last ones are used up.

    Args:
      receive: gives the next pieces, none of them empty; an empty list at the end.
    """

    def __init__(self, receive: Callable[[], Sequence[bytes]], counted: Counted) -> None:
        self._receive = receive
        self._counted = counted
        self._pieces: Iterator[bytes] = iter(())
        self._left = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._left:
            self._left = memoryview(self._next())
        view = memoryview(buffer)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _next(self) -> bytes:
        piece = next(self._pieces, b"")
        if not piece and not self._ended:
            pieces = self._receive()
            self._ended = not pieces
            self._pieces = iter(pieces)
            piece = next(self._pieces, b"")
        self._counted.read += len(piece)
        return piece


def _shown(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size} bytes"
