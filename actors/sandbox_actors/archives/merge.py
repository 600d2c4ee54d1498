"""An unpacked tree moves to its place: first everything is checked, then everything is renamed.

Where there is nothing yet, one rename puts the whole folder there. Where there is a folder, the two are merged: what is
new comes in whole, file by file or folder by folder, files take the place of files and links, and what the archive does
not have stays. A folder never takes the place of something else, nor something else that of a folder, and nothing is
moved through a link: that is checked for the whole tree before the first rename. So nobody sees half a file, and a
conflict changes nothing. What can still go wrong between two renames (somebody else changes the folder at the same
moment, the disk fails) leaves the files before it new and those behind it old.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..files import Descriptor, NotADirectory
from ..files.paths import above, readable
from ..walking import OPEN_FOLDER
from .errors import ArchiveConflict
from .staging import apply_to_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..files import Root
    from .staging import Staging

__all__ = ["Destination", "locate", "move_into_place"]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an archive is to be unpacked.

    Attributes:
      anchor: the folder itself, or the nearest one above it that exists.
      missing: the names on the way from there to the folder.
      path: the folder's path, as it is told.
    """

    anchor: Descriptor
    missing: tuple[str, ...]
    path: str


def locate(root: Root, path: str) -> Destination:
    """Find out what there is of a folder. Blocks.

    Args:
      path: absolute.

    Raises:
      NotADirectory, OutsideRoot, InvalidRequest: a folder cannot be there.
      OSError.
    """
    missing: list[str] = []
    way = path.rstrip("/") or "/"
    while True:
        try:
            anchor = root.resolve(way, directory=True)
        except FileNotFoundError:
            name = way.rpartition("/")[2]
            if name == "..":
                raise InvalidRequest(f"the path goes up from a folder that is not there: {path}") from None
            if name != ".":
                missing.append(name)
            way = above(way)
        except NotADirectoryError:
            raise NotADirectory(readable(way)) from None
        else:
            return Destination(anchor, tuple(reversed(missing)), path)


def move_into_place(staging: Staging, destination: Destination) -> None:
    """See the module.

    Raises:
      ArchiveConflict: what is there already is of another kind.
      OSError: it cannot be moved.
    """
    if destination.missing and _moved_whole(staging, destination):
        return
    with _reached(destination.anchor, destination.missing) as place:
        _check(staging.root, place.number, readable(destination.path).rstrip("/"))
        _merge(staging, staging.root, place.number, ())


def _moved_whole(staging: Staging, destination: Destination) -> bool:
    """Make the way and put the folder at its end; False where somebody else has put one there in the meantime."""
    *way, name = destination.missing
    with _reached(destination.anchor, way) as place:
        try:
            os.rename(staging.tree, name, src_dir_fd=staging.folder, dst_dir_fd=place.number)
        except NotADirectoryError:
            raise ArchiveConflict(readable(destination.path), "is no folder") from None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True


def _reached(anchor: Descriptor, way: Iterable[str]) -> Descriptor:
    """The folder at the end of a way, whose parts are made where there are none."""
    place = _opened(".", anchor.number, os.O_PATH)
    for part in way:
        with place as last:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=last.number)
            place = _opened(part, last.number, os.O_PATH)
    return place


def _opened(name: str, folder: int, flags: int = 0) -> Descriptor:
    return Descriptor(os.open(name, OPEN_FOLDER | flags, dir_fd=folder))


def _check(source: int, place: int, path: str) -> None:
    """Whether all of one folder can be moved into another. Raises what `move_into_place` raises."""
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=place, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    if os.fstat(place).st_dev != os.fstat(source).st_dev:
        raise ArchiveConflict(path, "is on another file system than the folder round it")
    for name in os.listdir(source):
        there = _mode(name, place)
        if there is None:
            continue
        inside = f"{path}/{readable(name)}"
        if not stat.S_ISDIR(_mode(name, source) or 0):
            if stat.S_ISDIR(there):
                raise ArchiveConflict(inside, "is a folder, and something else in the archive")
        elif not stat.S_ISDIR(there):
            raise ArchiveConflict(inside, "is a folder in the archive, and something else here")
        else:
            with _opened(name, source) as below, _opened(name, place) as beneath:
                _check(below.number, beneath.number, inside)


def _merge(staging: Staging, source: int, place: int, parts: tuple[str, ...]) -> None:
    for name in os.listdir(source):
        if stat.S_ISDIR(_mode(name, source) or 0) and _mode(name, place) is not None:
            with _opened(name, source) as below, _opened(name, place) as beneath:
                _merge(staging, below.number, beneath.number, (*parts, name))
        else:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=place)
    if (told := staging.told(parts)) is not None:
        apply_to_folder(place, *told)


def _mode(name: str, folder: int) -> int | None:
    """What there is of a name; None where there is nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
