"""The file system as clients reach it, by paths: everything here waits in threads of its own.

A FIFO, a dead network share or a broken disk may hold a thread for as long as it likes. It holds one of ours, never one
that the rest of the daemon needs, and whoever waits for it can leave.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from ..errors import Refusal
from . import folders
from .entries import list_entries, stat_path
from .errors import translated
from .leftovers import Leftovers, remove_leftover
from .paths import absolute
from .reading import open_file, read_at, read_cached
from .root import Beneath, Everything
from .writing import MOST_PIECES, begin_draft

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from .descriptor import Descriptor
    from .entries import Entry, Stat
    from .reading import OpenFile
    from .root import Root
    from .writing import Draft, Precondition, Written

__all__ = ["FileSystem", "Upload"]

T = TypeVar("T")

log = structlog.get_logger()

THREADS = 32
"""How many files are worked on at once."""

WRITE_SIZE = 1 << 20
"""Bytes that are gathered before a thread writes them: waking one up costs as much as writing some 64 KiB."""

DISCARD_WITHIN = 5.0
"""Seconds for a draft to be removed after its client has gone; a disk that hangs longer keeps it."""


def _always(_etag: str | None) -> bool:
    return True


class FileSystem:
    """See the module. All paths are the client's: absolute, or relative to HOME.

    Every method raises `InvalidRequest` for a path that can be none, `OutsideRoot` for one that leads out, and of
    `files.errors` what the operating system has against it.

    Args:
      home: what relative paths start from.
      root: the directory that nothing leads out of; None for the whole file system.
      modern: whether to make use of what younger kernels and most file systems have: `openat2`, unnamed files.
      records: where to record what is on its way, see `leftovers`; None: nowhere.

    Raises:
      OSError: there is no such root.
    """

    def __init__(
        self, home: str | Path, root: Path | None = None, *, modern: bool = True, records: Path | None = None
    ) -> None:
        self._root: Root = Everything(str(home)) if root is None else Beneath(root, str(home), by_kernel=modern)
        self._modern = modern
        self.leftovers = Leftovers(records)
        self._threads = trio.CapacityLimiter(THREADS)

    def located(self, path: str) -> str:
        """The absolute path that a client means, as answers tell it. It says nothing of what is there."""
        return absolute(path, self._root.home)

    async def run(self, path: str, work: Callable[[Root, str], T], *, threads: trio.CapacityLimiter | None = None) -> T:
        """Run something in a thread, with the root and the absolute path. Errors of the system are those of the path.

        Work that was begun ends by itself also where nobody waits for it any more.

        Args:
          threads: of whose it is one, instead of ours; such work is waited for to its end, also when it is cancelled.
        """
        located = self.located(path)

        def in_thread() -> T:
            with translated(located):
                return work(self._root, located)

        return await trio.to_thread.run_sync(
            in_thread, limiter=threads or self._threads, abandon_on_cancel=threads is None
        )

    async def directory(self, path: str, *, make: bool = False) -> Descriptor:
        """A directory, held: what is done by its descriptor is done there, whatever becomes of the path.

        Args:
          make: whether to make it, with all above it, where it is not there.
        """

        def resolve(root: Root, located: str) -> Descriptor:
            if make:
                folders.make_folders(root, located)
            return root.resolve(located, directory=True)

        return await self.run(path, resolve)

    async def entries(self, path: str, *, after: str = "", limit: int | None = None) -> list[Entry]:
        """The entries of a directory, by name; after one, and not more than a number of them, if so asked."""
        return await self.run(path, partial(list_entries, after=after, limit=limit))

    async def stat(self, path: str) -> Stat:
        """What a path leads to; of a link that leads nowhere, the link."""
        return await self.run(path, stat_path)

    async def open(self, path: str) -> OpenFile:
        """A regular file, to be read with `read`."""
        return await self.run(path, open_file)

    async def read(self, opened: OpenFile, start: int | None, size: int) -> bytes:
        """Some bytes of an open file: from a position, or, of one without a size, the next. None at the end.

        Raises:
          OSError: it cannot be read any further.
        """
        if start is not None and (cached := read_cached(opened, start, size)) is not None:
            return cached
        return await trio.to_thread.run_sync(
            read_at, opened.file, start, size, limiter=self._threads, abandon_on_cancel=True
        )

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a link or a directory; one that is not empty only if `recursive`."""
        await self.run(path, partial(folders.delete, recursive=recursive))

    async def make_directory(self, path: str) -> None:
        """Make a directory with all above it; one that is there is fine."""
        await self.run(path, folders.make_folders)

    async def move(self, source: str, destination: str, *, overwrite: bool = False) -> None:
        """Move anything, also to another file system."""
        located = self.located(destination)

        def move(root: Root, path: str) -> None:
            folders.move(root, path, located, overwrite=overwrite, leftovers=self.leftovers)

        await self.run(source, move)

    async def set_mode(self, path: str, mode: int) -> None:
        """Set the permissions of what a path leads to."""

        def change(root: Root, located: str) -> None:
            with root.resolve(located) as place:
                os.chmod(place.path, mode)

        await self.run(path, change)

    async def delete_leftovers(self) -> None:
        """Delete what an earlier daemon has left on its way. What cannot be deleted is left to the next one."""
        for name in self.leftovers.found:
            try:
                folder = await trio.to_thread.run_sync(self.leftovers.folder_of, name, limiter=self._threads)
                deleted = folder != "" and await self.run(folder, partial(remove_leftover, name=name))
            except (OSError, Refusal) as error:
                log.warning("cannot delete what an earlier daemon left behind", name=name, error=str(error))
                continue
            if deleted:
                log.info("deleted what an earlier daemon left behind", name=name, folder=folder)
            await trio.to_thread.run_sync(self.leftovers.forget, name, limiter=self._threads)

    @asynccontextmanager
    async def writing(
        self, path: str, precondition: Precondition = _always, *, append: bool = False, mode: int | None = None
    ) -> AsyncGenerator[Upload]:
        """Write a file: nothing is seen of it before it is finished, and nothing is left of it unless it is.

        Args:
          precondition: judges the file that is there, at once and again in the end.
          append: whether what is written is added to the file.
          mode: its permissions; else it keeps those it has, or gets the usual ones.
        """

        def begin(root: Root, located: str) -> Draft:
            return begin_draft(
                root, located, precondition, self.leftovers, append=append, mode=mode, unnamed=self._modern
            )

        draft = await self.run(path, begin)
        upload = Upload(self, draft)
        try:
            yield upload
        finally:
            if not draft.over:
                with trio.move_on_after(DISCARD_WITHIN, shield=True):
                    await self.run(draft.path, lambda _root, _path: draft.discard())


class Upload:
    """A file that is being written.

    Attributes:
      path: its absolute path.
    """

    def __init__(self, files: FileSystem, draft: Draft) -> None:
        self.path = draft.path
        self._files = files
        self._draft = draft
        self._pieces: list[bytes] = []
        self._size = 0

    async def write(self, piece: bytes) -> None:
        """Take some more of it."""
        if self._size + len(piece) > WRITE_SIZE or len(self._pieces) == MOST_PIECES:
            await self._pour()
        self._pieces.append(piece)
        self._size += len(piece)

    async def finish(self) -> Written:
        """Put the file into its place; it is on the disk then.

        Raises:
          PreconditionFailed: it is not the one any more that it was to replace.
          And what all methods raise.
        """
        pieces, draft = self._pieces, self._draft

        def finish(_root: Root, _path: str) -> Written:
            if pieces:
                draft.pour(pieces)
            return draft.finish()

        return await self._files.run(self.path, finish)

    async def _pour(self) -> None:
        pieces, draft = self._pieces, self._draft
        self._pieces, self._size = [], 0
        if pieces:
            await self._files.run(self.path, lambda _root, _path: draft.pour(pieces))
