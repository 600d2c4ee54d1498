"""Archives in and out of the file system that clients see, without ever holding up the daemon."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..files import Descriptor, NotADirectory, translated
from ..walking import OPEN_FOLDER
from .counting import Limits
from .merge import locate
from .pack import pack
from .unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from ..files import FileSystem, Root
    from .formats import ArchiveFormat
    from .unpack import Unpacked

__all__ = ["Archives", "Packing"]

AT_ONCE = 64
"""Threads that unpack or pack: most of them wait for a client."""

GATHERED = 2 << 20
"""Bytes of an archive that a thread gets at once: it and the one that receives them get in each other's way."""


class Archives:
    """See the module.

    Every method raises `InvalidRequest` for a path that can be none, `OutsideRoot` for one that leads out, and of
    `files.errors` what the operating system has against it.
    """

    def __init__(self, files: FileSystem, limits: Limits | None = None) -> None:
        self._files = files
        self._limits = limits or Limits()
        self._threads = trio.CapacityLimiter(AT_ONCE)

    async def unpack(self, receive: Callable[[], Awaitable[bytes]], format: ArchiveFormat, path: str) -> Unpacked:
        """Unpack an archive into a folder, made if there is none: all of it or, where anything is wrong, nothing.

        It is not left, also where it is cancelled, before everything has been cleaned up.

        Args:
          receive: gives the archive's next chunk, empty at its end. What it raises ends the unpacking, and is raised.

        Raises:
          UnsafeArchive, ArchiveTooLarge, DamagedArchive, ArchiveConflict.
        """

        async def some() -> list[bytes]:
            """What is worth the way to the thread."""
            pieces: list[bytes] = []
            size = 0
            while size < GATHERED and (piece := await receive()):
                pieces.append(piece)
                size += len(piece)
            return pieces

        def work(root: Root, path: str) -> Unpacked:
            destination = locate(root, path)
            with destination.anchor:
                pieces = partial(trio.from_thread.run, some)
                return unpack(pieces, format, destination, self._limits, self._files.leftovers)

        return await self._files.run(path, work, threads=self._threads)

    async def pack(self, path: str, format: ArchiveFormat) -> Packing:
        """Begin to make an archive of a folder."""
        top = await self._files.run(path, _opened)
        return Packing(pack(top, format), self._files.located(path), self._threads)


class Packing:
    """An archive that is made while it is read."""

    def __init__(self, pieces: Generator[bytes], path: str, threads: trio.CapacityLimiter) -> None:
        self._pieces = pieces
        self._path = path
        self._threads = threads

    async def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
          FileTrouble: something in the folder may not be read, or cannot be.
        """
        return await trio.to_thread.run_sync(self._next, limiter=self._threads)

    def close(self) -> None:
        """Let go of what is open. Whoever does not read to the end is to do this."""
        self._pieces.close()

    def _next(self) -> bytes:
        with translated(self._path):
            return next(self._pieces, b"")


def _opened(root: Root, path: str) -> Descriptor:
    try:
        with root.resolve(path, directory=True) as place:
            return Descriptor(os.open(".", OPEN_FOLDER, dir_fd=place.number))
    except NotADirectoryError:
        raise NotADirectory(path) from None
