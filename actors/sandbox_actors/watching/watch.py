"""Watching a tree: its changes come in batches, at the pace of whoever listens.

Nothing is queued here. Who listens slowly leaves notices in the kernel's queue; when that is full, some are lost, and
it is told that they are. Then whoever listens has to look at the tree itself, and hears of all that happens from
before that look on.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from ..errors import Refusal
from ..files import Descriptor, NotADirectory
from ..walking import OPEN_FOLDER
from .changes import Change, Changes
from .tree import Tree

if TYPE_CHECKING:
    from ..files import FileSystem, Root

__all__ = ["Batch", "TooManyWatches", "Watch", "open_watch"]

WINDOW = 0.05
"""Seconds for which changes are gathered: what a program does in one go shall be told in one go."""

MOST = 16_384
"""Changes of one batch, about: as many notices as the kernel keeps by default."""


class TooManyWatches(Refusal):
    """The system allows no more."""

    name = "overloaded"

    def __init__(self, what: str, setting: str) -> None:
        super().__init__(f"too many {what} are watched: end other watches, or raise {setting}")


@dataclass(frozen=True, slots=True)
class Batch:
    """What has happened.

    Attributes:
      changes: in their order.
      lost: why further changes are missing: `queue`, there were too many to keep; `watches`, there are more folders
        than the system allows to be watched. None where none are.
      gone: the folder itself is not there any more: there will be nothing else.
    """

    changes: list[Change]
    lost: Literal["queue", "watches"] | None
    gone: bool


class Watch:
    """See the module.

    Attributes:
      path: of the folder.
      folders: how many are watched.
      stopped: nothing more is to be told.
    """

    def __init__(self, files: FileSystem, path: str, tree: Tree) -> None:
        self.path = path
        self.stopped = False
        self._files = files
        self._tree = tree
        self._told_blind = False
        self._waiting = trio.CancelScope()
        self._at_work = threading.Lock()
        self._closed = False

    @property
    def folders(self) -> int:
        return self._tree.folders

    def stop(self) -> None:
        """Wake whoever waits, for good."""
        self.stopped = True
        self._waiting.cancel()

    def close(self) -> None:
        """Let go of everything: at once or, where a thread is at work that nobody waits for any more, by that."""
        self._closed = True
        if self._at_work.acquire(blocking=False):
            self._tree.close()
            self._at_work.release()

    async def wait(self) -> None:
        """Wait until something has happened, or it is stopped. May be cancelled and tried again."""
        with trio.CancelScope() as self._waiting:
            if self.stopped:
                return
            await self._tree.inotify.wait()

    async def take(self) -> Batch:
        """What has happened, and what does in the next moment."""
        await trio.sleep(WINDOW)
        return await self._files.run(self.path, self._work)

    def _work(self, _root: Root, _path: str) -> Batch:
        try:
            with self._at_work:
                return self._gathered()
        finally:
            if self._closed:
                self.close()

    def _gathered(self) -> Batch:
        changes = Changes()
        tree = self._tree
        lost = False
        # Again until there is nothing more: what was found in a new folder may be in the queue, too.
        while not lost and len(changes) < MOST and (notices := tree.inotify.read()):
            trio.from_thread.check_cancelled()
            lost = tree.take_in(notices, changes)
        if lost and not tree.gone:
            while tree.inotify.read():
                pass
            try:
                tree.renew()
            except FileNotFoundError:
                tree.gone = True
        blind = tree.blind and not self._told_blind
        self._told_blind = tree.blind
        return Batch(changes.told(), "queue" if lost else "watches" if blind else None, tree.gone)


async def open_watch(files: FileSystem, path: str, *, recursive: bool = True) -> Watch:
    """Begin to watch a folder: of what happens from now on, nothing is missed.

    Raises:
      TooManyWatches: the system allows no more.
      NotADirectory, InvalidRequest, OutsideRoot, PathNotFound, FileTrouble: it cannot be watched.
    """
    tree = await files.run(path, partial(_armed, recursive=recursive))
    return Watch(files, files.located(path), tree)


def _armed(root: Root, path: str, *, recursive: bool) -> Tree:
    try:
        with root.resolve(path, directory=True) as place:
            top = Descriptor(os.open(".", OPEN_FOLDER, dir_fd=place.number))
    except NotADirectoryError:
        raise NotADirectory(path) from None
    try:
        return Tree(top, path, recursive=recursive)
    except OSError as error:
        match error.errno:
            case errno.EMFILE:
                raise TooManyWatches("trees", "fs.inotify.max_user_instances") from None
            case errno.ENOSPC:
                raise TooManyWatches("folders", "fs.inotify.max_user_watches") from None
            case _:
                raise
