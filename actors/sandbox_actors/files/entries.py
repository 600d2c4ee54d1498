"""What there is: the entries of a directory, and one by itself, as the public wire tells them, and some more."""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import trio

from .errors import NotADirectory
from .paths import readable

if TYPE_CHECKING:
    from .root import Root

__all__ = ["Entry", "EntryType", "Stat", "entry_of", "etag_of", "list_entries", "stat_path"]

EntryType: TypeAlias = Literal["file", "directory"]
"""Whatever is no directory is a file, as on the public wire; what kind of one, the further members say."""

CHECK_EVERY = 512
"""Entries between two looks whether the client is still there."""


class Entry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An entry of a directory; a link is told as itself.

    Attributes:
      modified: RFC 3339, in UTC.
      mode: of permissions, four octal digits.
      symlink, target: only of a link.
    """

    name: str
    path: str
    entry_type: EntryType
    size: int
    modified: str
    mode: str
    symlink: bool = False
    target: str | None = None


class Stat(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a path leads to.

    Attributes:
      symlink, target: the path itself is a link, and where that points.
      dangling: it points to nothing; what is told is told of the link.
    """

    path: str
    entry_type: EntryType
    size: int
    modified: str
    mode: str
    symlink: bool = False
    target: str | None = None
    dangling: bool = False


def list_entries(root: Root, path: str, *, after: str = "", limit: int | None = None) -> list[Entry]:
    """The entries of a directory, by name. Blocks.

    Args:
      after: only those whose names come behind this one.
      limit: not more than so many.

    Raises:
      NotADirectory, OutsideRoot.
      OSError.
    """
    try:
        place = root.resolve(path, directory=True)
    except NotADirectoryError:
        raise NotADirectory(path) from None
    with place:
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.number)
    try:
        names = sorted(os.listdir(directory), key=readable)
        start = bisect_right(names, after, key=readable) if after else 0
        base = path.rstrip("/")
        entries: list[Entry] = []
        for name in names[start:]:
            if len(entries) == limit:
                break
            if len(entries) % CHECK_EVERY == 0:
                trio.from_thread.check_cancelled()
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                target = readable(os.readlink(name, dir_fd=directory)) if stat.S_ISLNK(status.st_mode) else None
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):  # gone by now, or no link any more
                    raise
                continue
            shown = readable(name)
            entries.append(Entry(shown, f"{base}/{shown}", *_told(status), target is not None, target))
        return entries
    finally:
        os.close(directory)


def stat_path(root: Root, path: str) -> Stat:
    """What a path leads to; of a link that leads nowhere, the link. Blocks.

    Raises:
      OutsideRoot.
      OSError.
    """
    with root.resolve(path, follow=False) as place:
        status = os.fstat(place.number)
        if not stat.S_ISLNK(status.st_mode):
            return Stat(path, *_told(status))
        target = readable(os.readlink("", dir_fd=place.number))
    try:
        with root.resolve(path) as place:
            return Stat(path, *_told(os.fstat(place.number)), True, target)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return Stat(path, *_told(status), True, target, True)


def entry_of(path: str, mode: int, size: int, mtime_ns: int, target: str | None) -> Entry:
    """The entry of what somebody else has looked at."""
    kind: EntryType = "directory" if stat.S_ISDIR(mode) else "file"
    name = path.rpartition("/")[2]
    return Entry(name, path, kind, size, _modified(mtime_ns), _mode(mode), target is not None, target)


def etag_of(status: os.stat_result) -> str:
    """The validator of a file's content, without quotes.

    A file that is replaced has another inode, one that is changed in place another time. It is the time of the change
    (ctime), which unlike that of the modification no program can set back.
    """
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_ctime_ns:x}"


def _told(status: os.stat_result) -> tuple[EntryType, int, str, str]:
    kind: EntryType = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    return kind, status.st_size, _modified(status.st_mtime_ns), _mode(status.st_mode)


def _modified(nanoseconds: int) -> str:
    """RFC 3339 with no, three, six or nine digits behind the point: what clients of the public wire have seen."""
    seconds, rest = divmod(nanoseconds, 10**9)
    second = _second(seconds)
    if rest % 1000:
        return f"{second}.{rest:09d}+00:00"
    if rest % 1_000_000:
        return f"{second}.{rest // 1000:06d}+00:00"
    return f"{second}.{rest // 1_000_000:03d}+00:00" if rest else f"{second}+00:00"


@lru_cache(4096)
def _second(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    except (ValueError, OverflowError, OSError):  # files may be dated beyond the year 9999
        return "9999-12-31T23:59:59" if seconds > 0 else "0001-01-01T00:00:00"


@lru_cache(4096)
def _mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"
