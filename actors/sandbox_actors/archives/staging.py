"""Where an archive is unpacked first: a new folder beside or in its destination, which nobody else may enter.

Everything is made by descriptor, one name at a time, and no link is ever followed: neither one of the archive nor one
that somebody slips in meanwhile. When all of the archive is there and sound, it is moved to its place by renaming,
which copies nothing: see `merge`.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..files import Descriptor
from ..files.tree import temporary_name
from ..walking import OPEN_FOLDER
from .counting import COPY_SIZE
from .entry import EntryKind, link_target
from .errors import UnsafeArchive

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..files import Leftovers
    from .entry import Entry

__all__ = ["Staging", "apply_to_folder", "open_staging"]

TREE = "tree"

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_staging(anchor: int, leftovers: Leftovers) -> Generator[Staging]:
    """A folder for as long as the block runs; then it is deleted with all that is still in it.

    Args:
      anchor: the descriptor of the folder that it is made in, on the file system of the destination.
      leftovers: where it is recorded as long as it is there.
    """
    name = temporary_name()
    with leftovers.recorded(anchor, name):
        os.mkdir(name, 0o700, dir_fd=anchor)
        try:
            with Descriptor(os.open(name, OPEN_FOLDER, dir_fd=anchor)) as folder:
                os.mkdir(TREE, dir_fd=folder.number)
                staging = Staging(folder.number)
                try:
                    yield staging
                finally:
                    staging.leave()
        finally:
            shutil.rmtree(name, dir_fd=anchor)


class Staging:
    """The tree that an archive becomes.

    Attributes:
      folder: the descriptor of the folder that is nobody else's; in it lies the tree, under the name `tree`.
    """

    tree = TREE

    def __init__(self, folder: int) -> None:
        self.folder = folder
        # Entries of one folder follow each other: the way to the last one is kept open.
        self._way: tuple[str, ...] = ()
        self._open = [os.open(TREE, OPEN_FOLDER, dir_fd=folder)]
        # What is left of permissions that are asked for when something is made.
        self._granted = stat.S_IMODE(os.fstat(self._open[0]).st_mode)
        self._told: dict[tuple[str, ...], tuple[int | None, int | None]] = {}

    @property
    def root(self) -> int:
        """The tree's descriptor."""
        return self._open[0]

    def leave(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.pop())

    def add(self, parts: tuple[str, ...], entry: Entry) -> None:
        """Make what an entry says, in the place of what an earlier one of the same name has made.

        Raises:
          UnsafeArchive: it is beneath a link or a file, or a link that leads out.
        """
        folder, name = self._folder(parts[:-1]), parts[-1]
        if entry.kind is EntryKind.FILE:
            self._file(folder, name, entry)
            return
        match entry.kind:
            case EntryKind.DIRECTORY:
                self._folder(parts)
                self._told[parts] = entry.mode, entry.mtime_ns
            case EntryKind.SYMLINK:
                link_target(parts, entry.target)
                self._make_room(folder, name)
                os.symlink(entry.target, name, dir_fd=folder)
                if entry.mtime_ns is not None:
                    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)
            case EntryKind.HARD_LINK:
                raise AssertionError("hard links are made by `link`")

    def link(self, parts: tuple[str, ...], to: tuple[str, ...], shown: str) -> None:
        """Make a second name for a file of the archive.

        Raises:
          UnsafeArchive: there is no such file in it.
        """
        nothing = UnsafeArchive(f"the hard link {'/'.join(parts)!r} leads to {shown!r}, which is no file in it")
        if not to:
            raise nothing
        try:
            with Descriptor(os.dup(self._folder(to[:-1], make=False))) as source:
                if not stat.S_ISREG(os.stat(to[-1], dir_fd=source.number, follow_symlinks=False).st_mode):
                    raise nothing
                folder, name = self._folder(parts[:-1]), parts[-1]
                if to != parts:
                    self._make_room(folder, name)
                    os.link(to[-1], name, src_dir_fd=source.number, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise nothing from None

    def settle(self) -> None:
        """Give the folders their modes and times: last, because what is put into a folder changes its time."""
        for parts in sorted(self._told, key=len, reverse=True):
            apply_to_folder(self._folder(parts), *self._told[parts])

    def told(self, parts: tuple[str, ...]) -> tuple[int | None, int | None] | None:
        """Mode and time of a folder that the archive has an entry of its own for."""
        return self._told.get(parts)

    def _file(self, folder: int, name: str, entry: Entry) -> None:
        # Not setuid, setgid, sticky: they would be somebody else's idea of our users.
        mode = 0o666 if entry.mode is None else entry.mode & 0o777
        try:
            file = os.open(name, _NEW_FILE, mode, dir_fd=folder)
        except FileExistsError:
            self._make_room(folder, name)
            file = os.open(name, _NEW_FILE, mode, dir_fd=folder)
        try:
            if whole := entry.whole:
                if os.write(file, whole) < len(whole):
                    os.lseek(file, 0, os.SEEK_SET)
                    _write(file, whole)
            elif entry.content is not None:
                while chunk := entry.content.read(COPY_SIZE):
                    _write(file, chunk)
            if entry.mode is not None and mode & ~self._granted:
                os.fchmod(file, mode)
            if (at := entry.mtime_ns) is not None:
                os.utime(file, ns=(at, at))
        finally:
            os.close(file)

    def _make_room(self, folder: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise UnsafeArchive(f"{name!r} is a folder and something else in it") from None

    def _folder(self, parts: tuple[str, ...], *, make: bool = True) -> int:
        """The descriptor of a folder of the tree, made if there is none; valid until the next call."""
        if parts == self._way:
            return self._open[-1]
        same = 0
        while same < min(len(parts), len(self._way)) and parts[same] == self._way[same]:
            same += 1
        while len(self._way) > same:
            self._way = self._way[:-1]
            os.close(self._open.pop())
        for part in parts[same:]:
            above = self._open[-1]
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=above)
            try:
                folder = os.open(part, OPEN_FOLDER, dir_fd=above)
            except NotADirectoryError:
                shown = "/".join([*self._way, part])
                raise UnsafeArchive(f"{shown!r} is a folder and something else in it") from None
            self._open.append(folder)
            self._way = (*self._way, part)
        return self._open[-1]


def apply_to_folder(folder: int, mode: int | None, mtime_ns: int | None) -> None:
    if mode is not None:
        # Whoever may list a folder may enter it, and its owner both: a mode that is a file's would lock its contents.
        os.fchmod(folder, (mode & 0o777) | ((mode & 0o444) >> 2) | 0o700)
    if mtime_ns is not None:
        os.utime(folder, ns=(mtime_ns, mtime_ns))


def _write(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])
