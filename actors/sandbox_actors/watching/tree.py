"""The watched tree: which watch stands for which folder, wherever that has been moved in the meantime.

The kernel watches folders, not trees, and by the time that we hear of a new folder there may be something in it. So a
new folder is watched first and looked into then: whatever is in it was either found, or is told of by its own notice,
or both, which `Changes` takes for one.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import trio

from ..files import Descriptor
from ..files.paths import readable
from ..walking import OPEN_FOLDER, walk
from .changes import Change
from .inotify import Inotify, Mask

if TYPE_CHECKING:
    from .changes import Changes
    from .inotify import Notice

__all__ = ["Tree"]

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES}
"""Of a folder that has gone, was replaced, or is closed to us."""


class _Folder:
    """A folder that is watched."""

    __slots__ = ("above", "inside", "name", "watch")

    def __init__(self, watch: int, above: _Folder | None, name: str) -> None:
        self.watch = watch
        self.above = above
        self.name = name
        self.inside: dict[str, _Folder] = {}

    @property
    def attached(self) -> bool:
        """Whether the folder above knows it, by its name."""
        return self.above is not None and self.above.inside.get(self.name) is self

    def way(self) -> list[str]:
        """The names from the top down to here."""
        names: list[str] = []
        folder = self
        while folder.above is not None:
            names.append(folder.name)
            folder = folder.above
        return names[::-1]


class Tree:
    """See the module. All methods block, and are for threads of Trio's.

    Args:
      top: the topmost folder.
      path: its absolute path, as it is told.
      recursive: whether to watch what is in its folders, too.

    Attributes:
      gone: the topmost folder is not there any more.
      blind: a folder could not be watched: there are as many watches as the system allows.

    Raises:
      OSError: `EMFILE` and `ENOSPC`, there are as many trees or folders as the system allows to be watched.
    """

    def __init__(self, top: Descriptor, path: str, *, recursive: bool) -> None:
        self.inotify = Inotify()
        self.gone = False
        self.blind = False
        self._descriptor = top
        self._path = path.rstrip("/")
        self._recursive = recursive
        self._folders: dict[int, _Folder] = {}
        self._above = self._watch_above()
        self._top = self._arm()
        if self.blind:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @property
    def folders(self) -> int:
        """How many are watched."""
        return len(self._folders)

    def close(self) -> None:
        """Watch no longer."""
        self.inotify.close()
        self._descriptor.close()

    def renew(self) -> None:
        """Notices were lost: see to it that from now on all that is there is watched."""
        old = self._folders
        self._folders = {}
        self.blind = False
        self._top = self._arm()
        for watch in old.keys() - self._folders.keys():
            self.inotify.remove(watch)

    def take_in(self, notices: list[Notice], changes: Changes) -> bool:
        """Understand what has happened; tell whether notices were lost."""
        lost = False
        moving: dict[int, tuple[str, _Folder | None]] = {}  # by cookie: the old path, and the folder if it was watched
        for notice in notices:
            if notice.mask & Mask.Q_OVERFLOW:
                lost = True
            elif notice.watch == self._above:
                self.gone |= os.fstat(self._descriptor.number).st_nlink == 0
            elif (folder := self._folders.get(notice.watch)) is not None:
                if notice.name:
                    self._take_in(notice, folder, changes, moving)
                elif folder is self._top:
                    self.gone |= bool(notice.mask & (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED))
                elif notice.mask & Mask.IGNORED:
                    self._forget(folder)
        for _, folder in moving.values():
            if folder is not None and not folder.attached:  # out of the tree, and not back in again
                self._forget(folder)
        return lost

    def _take_in(
        self, notice: Notice, folder: _Folder, changes: Changes, moving: dict[int, tuple[str, _Folder | None]]
    ) -> None:
        path, is_folder = self._told([*folder.way(), notice.name]), bool(notice.mask & Mask.ISDIR)
        if notice.mask & Mask.CREATE:
            changes.add(Change("created", path, is_folder))
            self._enter(notice, folder, changes)
        elif notice.mask & (Mask.MODIFY | Mask.ATTRIB):
            changes.add(Change("modified", path, is_folder))
        elif notice.mask & Mask.DELETE:
            changes.add(Change("deleted", path, is_folder))
        elif notice.mask & Mask.MOVED_FROM:
            changes.add(Change("deleted", path, is_folder))
            moving[notice.cookie] = path, folder.inside.pop(notice.name, None)
        elif notice.mask & Mask.MOVED_TO:
            source, moved = moving.pop(notice.cookie, (None, None))
            if source is None:
                changes.add(Change("created", path, is_folder))
            else:
                changes.move(Change("moved", path, is_folder, source))
            if moved is None:
                self._enter(notice, folder, changes)
            else:
                moved.above, moved.name = folder, notice.name
                folder.inside[notice.name] = moved

    def _enter(self, notice: Notice, above: _Folder, changes: Changes) -> None:
        """Watch what is in a folder that is new here, and tell of it."""
        if not (self._recursive and notice.mask & Mask.ISDIR):
            return
        way = above.way()
        try:
            with self._opened(way) as descriptor:
                folder = self._watched(descriptor.number, notice.name, above)
                if folder is not None:
                    with Descriptor(os.open(notice.name, OPEN_FOLDER, dir_fd=descriptor.number)) as inside:
                        self._look(inside, folder, changes)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise

    def _watch_above(self) -> int | None:
        """Watch for the end of the topmost folder where it is: itself, it tells only when nobody has it open."""
        try:
            return self.inotify.add(self._descriptor.number, "..", Mask.DELETE)
        except OSError as error:
            if error.errno == errno.ENOSPC or error.errno in _NOT_THERE:
                return None
            raise

    def _arm(self) -> _Folder:
        top = _Folder(self.inotify.add(self._descriptor.number, "."), None, "")
        self._folders[top.watch] = top
        if self._recursive:
            self._look(self._descriptor, top, None)
        return top

    def _look(self, top: Descriptor, folder: _Folder, changes: Changes | None) -> None:
        """Watch every folder beneath one that is watched; tell of all that is there."""
        above = self._told(folder.way())
        known = {"": folder}
        for found in walk(top.number, enter=lambda found: found.path in known, refused=lambda _path, _error: None):
            trio.from_thread.check_cancelled()
            if changes is not None:
                changes.add(Change("created", f"{above}/{readable(found.path)}", found.is_folder))
            if found.is_folder:
                inside = self._watched(found.folder, found.name, known[found.path.rpartition("/")[0]])
                if inside is not None:
                    known[found.path] = inside

    def _watched(self, folder: int, name: str, above: _Folder) -> _Folder | None:
        """Watch a folder of an open one; None where that cannot be."""
        try:
            watch = self.inotify.add(folder, name)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.blind = True
            elif error.errno not in _NOT_THERE:
                raise
            return None
        watched = self._folders.get(watch)
        if watched is None:
            watched = self._folders[watch] = _Folder(watch, above, name)
        elif watched.attached and watched.above is not None:
            del watched.above.inside[watched.name]  # it has been moved; its notices are on their way
        watched.above, watched.name = above, name
        above.inside[name] = watched
        return watched

    def _forget(self, folder: _Folder) -> None:
        """A folder has gone, with all in it; what was moved away is watched no longer."""
        if folder.above is not None and folder.attached:
            del folder.above.inside[folder.name]
        left = [folder]
        while left:
            gone = left.pop()
            left += gone.inside.values()
            if self._folders.pop(gone.watch, None) is not None:
                self.inotify.remove(gone.watch)

    def _opened(self, way: list[str]) -> Descriptor:
        here = Descriptor(os.open(".", OPEN_FOLDER, dir_fd=self._descriptor.number))
        for name in way:
            with here as above:
                here = Descriptor(os.open(name, OPEN_FOLDER, dir_fd=above.number))
        return here

    def _told(self, way: list[str]) -> str:
        return readable("/".join([self._path, *way]))
