"""Files and folders of this machine that are made out of what the sandbox has: whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

__all__ = ["FilePieces", "place_file", "place_folder"]

PIECE = 1 << 20
"""Bytes of a file that are held at once."""


class FilePieces:
    """An async iterator over a file's bytes, from the beginning."""

    def __init__(self, file: anyio.AsyncFile[bytes]) -> None:
        self._file = file
        self._begun = False

    def __aiter__(self) -> FilePieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            await self._file.seek(0)
        if piece := await self._file.read(PIECE):
            return piece
        raise StopAsyncIteration


@asynccontextmanager
async def place_file(path: Path, mode: int) -> AsyncGenerator[anyio.AsyncFile[bytes]]:
    """A file to write into, which is at `path` once the block ends well. Else nothing has happened there.

    Until it has its mode, nobody else may read it.

    Raises:
      IsADirectoryError: a folder is there.
      OSError.
    """
    if await to_thread.run_sync(path.is_dir):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    draft = _draft(path)
    try:
        async with await anyio.open_file(draft, "xb", opener=_open_private) as file:
            yield file
        await to_thread.run_sync(os.chmod, draft, mode)
        await to_thread.run_sync(os.replace, draft, path)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(lambda: draft.unlink(missing_ok=True))


@asynccontextmanager
async def place_folder(path: Path) -> AsyncGenerator[Path]:
    """A folder to fill, which is at `path` once the block ends well. Else nothing has happened there.

    Raises:
      FileExistsError: something is there, and no empty folder.
      OSError.
    """
    if await to_thread.run_sync(_taken, path):
        raise FileExistsError(f"{path} is there already, and is no empty folder")
    draft = _draft(path)
    try:
        await to_thread.run_sync(draft.mkdir)
        yield draft
        await to_thread.run_sync(os.replace, draft, path)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(lambda: shutil.rmtree(draft, ignore_errors=True))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _draft(path: Path) -> Path:
    """Beside it, so that a rename is enough."""
    if path.name in ("", ".."):
        raise OSError(errno.EINVAL, "a place is needed that has a name of its own", str(path))
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")


def _taken(path: Path) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True
