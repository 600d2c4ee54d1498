"""Lines out of a pipe: whatever the reads, the same lines.

Every read gives all the lines that it completes, together: they travel on as one batch, are committed and sent as one
page, and that is what makes streaming fast. Pieces of an incomplete line are kept in a list and joined once, so a line
of many megabytes costs linear time. A line longer than the limit is not kept: its place is taken by a `TooLong`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LINE_LIMIT", "LineSplitter", "TooLong"]

LINE_LIMIT = 64 << 20
"""Bytes of the longest line: real agents write half a megabyte, prompts with images some; one agent must not eat it
all."""


START = 256
"""Bytes kept of a line that is too long."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line that was dropped because it was longer than the limit.

    Attributes:
      length: in bytes.
      start: its first bytes.
    """

    length: int
    start: bytes


class LineSplitter:
    """Splits a stream of bytes at line feeds.

    A carriage return counts as a blank: within JSON it is one, and it would end a line of an event stream. Blanks at
    the end of a line are dropped, and so are lines of nothing else.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes | bytearray) -> list[bytes | TooLong]:
        """Take in what was read; return the lines that are complete with it."""
        chunk = bytes(chunk)
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r", b" ")
        head, *rest = chunk.split(b"\n")
        self._keep(head)
        if not rest:
            return []
        whole: list[bytes | TooLong] = [self._take(), *rest[:-1]]
        self._keep(rest[-1])
        if len(chunk) > self._limit:
            whole = [self._checked(line) for line in whole]
        return [line for each in whole if (line := each if isinstance(each, TooLong) else each.rstrip())]

    def end(self) -> list[bytes | TooLong]:
        """The stream has ended: what is left is a line, too."""
        return self.feed(b"\n") if self._length else []

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length <= self._limit:
            if piece:
                self._parts.append(piece)
        else:
            start = b"".join(self._parts)[:START]
            self._parts = [start + piece[: START - len(start)]]

    def _checked(self, line: bytes | TooLong) -> bytes | TooLong:
        if isinstance(line, TooLong) or len(line) <= self._limit:
            return line
        return TooLong(len(line), line[:START])

    def _take(self) -> bytes | TooLong:
        line = b"".join(self._parts)
        length, self._length, self._parts = self._length, 0, []
        return TooLong(length, line[:START]) if length > self._limit else line
