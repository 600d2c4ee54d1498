"""Text files, as agents read and write them through their client (ACP protocol version 1, File System)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..files import PIECE
from .errors import INVALID_PARAMS, ServiceError

if TYPE_CHECKING:
    from ..envelope import Json
    from ..files import FileSystem, OpenFile

__all__ = ["ReadTextFile", "WriteTextFile", "read_text_file", "write_text_file"]

TEXT_LIMIT = 16 << 20
"""Bytes of a text that is told in one answer: one line of JSON, which the agent must take whole."""


class ReadTextFile(msgspec.Struct):
    """The params. `line` counts from 1; `limit` is a number of lines."""

    path: str
    line: int | None = None
    limit: int | None = None


class WriteTextFile(msgspec.Struct):
    path: str
    content: str


async def read_text_file(files: FileSystem, asked: ReadTextFile) -> dict[str, Json]:
    """Tell a file, or some of its lines.

    Raises:
      ServiceError, and what the file system refuses.
    """
    _check(asked.path)
    excerpt = _Excerpt(max(1, asked.line or 1) - 1, asked.limit)
    opened = await files.open(asked.path)
    with opened.file:
        await _feed(files, opened, excerpt)
    try:
        return {"content": excerpt.text.decode()}
    except UnicodeDecodeError:
        raise ServiceError(INVALID_PARAMS, f"{asked.path} is no text file: it is not UTF-8") from None


async def write_text_file(files: FileSystem, asked: WriteTextFile) -> dict[str, Json]:
    """Write a file whole, with the folders above it. Raises what the file system refuses."""
    _check(asked.path)
    async with files.writing(asked.path) as upload:
        await upload.write(asked.content.encode())
        await upload.finish()
    return {}


def _check(path: str) -> None:
    if not path.startswith("/"):
        raise ServiceError(INVALID_PARAMS, f"path must be absolute: {path}")


async def _feed(files: FileSystem, opened: OpenFile, excerpt: _Excerpt) -> None:
    wanted = excerpt.feed(opened.whole or b"")
    if opened.size is not None and opened.whole is not None:
        return
    position = 0
    while wanted and (piece := await files.read(opened, None if opened.size is None else position, PIECE)):
        position += len(piece)
        wanted = excerpt.feed(piece)


class _Excerpt:
    """Some lines of a text that comes in pieces."""

    def __init__(self, skip: int, lines: int | None) -> None:
        self._skip = skip
        self._left = lines
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def text(self) -> bytes:
        return b"".join(self._parts)

    def feed(self, piece: bytes) -> bool:
        """Take what is wanted of it; whether more is."""
        start = _behind(piece, 0, self._skip)
        self._skip -= min(self._skip, piece.count(b"\n", 0, start))
        if self._skip or self._left == 0:
            return self._left != 0
        end = len(piece)
        if self._left is not None:
            end = _behind(piece, start, self._left)
            self._left -= piece.count(b"\n", start, end)
        self._size += end - start
        if self._size > TEXT_LIMIT:
            raise ServiceError(INVALID_PARAMS, f"this is more than {TEXT_LIMIT} bytes: ask for fewer lines")
        self._parts.append(piece[start:end])
        return self._left != 0


def _behind(piece: bytes, start: int, lines: int) -> int:
    """Where so many lines end; the end of the piece if it has fewer."""
    if lines > piece.count(b"\n", start):
        return len(piece)
    for _ in range(lines):
        start = piece.index(b"\n", start) + 1
    return start
