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
    """Splits a stream of bytes at line feeds. A carriage return before one belongs to it; empty lines are dropped."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes | bytearray) -> list[bytes | TooLong]:
        """Take in what was read; return the lines that are complete with it."""
        head, *rest = chunk.split(b"\n")
        self._keep(head)
        if not rest:
            return []
        lines: list[bytes | bytearray | TooLong] = [self._take()]
        lines += [line if len(line) <= self._limit else TooLong(len(line), bytes(line[:_START])) for line in rest[:-1]]
        self._keep(rest[-1])
        # `bytes(...)`: a bytearray's pieces must not change under the reader; for bytes it is the same object.
        return [
            line if isinstance(line, TooLong) else bytes(line.rstrip(b"\r"))
            for line in lines
            if isinstance(line, TooLong) or not (line == b"" or line.isspace())
        ]

    def end(self) -> list[bytes | TooLong]:
        """The stream has ended: what is left is a line, too."""
        return self.feed(b"\n") if self._length else []

    def _keep(self, piece: bytes | bytearray) -> None:
        self._length += len(piece)
        if self._length <= self._limit:
            if piece:
                self._parts.append(bytes(piece))
        elif len(self._parts) != 1 or len(self._parts[0]) > _START:
            self._parts = [b"".join([*self._parts, piece])[:_START]]

    def _take(self) -> bytes | TooLong:
        line = b"".join(self._parts)
        length, self._length, self._parts = self._length, 0, []
        return TooLong(length, line[:_START]) if length > self._limit else line


_START = 256
