"""Changes of names: folders made, things moved and deleted. Nothing that is to be kept is ever without a name."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import DestinationExists, PathNotFound
from .paths import above
from .root import parent
from .system_calls import rename_new
from .tree import copy_tree, remove_tree, temporary_name

if TYPE_CHECKING:
    from .descriptor import Descriptor
    from .leftovers import Leftovers
    from .root import Root

__all__ = ["delete", "make_folders", "move"]

_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}
"""What a plain rename does not replace: a directory by a file, a file by a directory, a directory that is not empty."""


def make_folders(root: Root, path: str) -> None:
    """Make a directory with all above it; one that is there is fine. Blocks.

    Raises:
      OutsideRoot.
      OSError: `EEXIST` where there is something else.
    """
    missing: list[str] = []
    there = path
    while True:
        try:
            root.resolve(there, directory=True).close()
            break
        except NotADirectoryError:
            if missing:
                raise
            missing.append(there)  # say so as mkdir does
            break
        except FileNotFoundError:
            missing.append(there)
            there = above(there)
    for one in reversed(missing):
        if one.rstrip("/").endswith("/.."):
            continue  # it is there since what is in front of it is
        folder, name = parent(root, one)
        with folder:
            try:
                os.mkdir(name, dir_fd=folder.number)
            except FileExistsError:
                if not _is_directory(root, one):
                    raise


def delete(root: Root, path: str, *, recursive: bool) -> None:
    """Delete what has this name; a link is deleted itself, wherever it leads. Blocks.

    Args:
      recursive: whether a directory is deleted with all that is in it.

    Raises:
      InvalidRequest, OutsideRoot.
      OSError.
    """
    folder, name = parent(root, path)
    with folder:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder.number, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder.number)
        elif recursive:
            remove_tree(folder.number, name)
        else:
            os.rmdir(name, dir_fd=folder.number)


def move(root: Root, source: str, destination: str, *, overwrite: bool, leftovers: Leftovers) -> None:
    """Give something another name, also on another file system. Folders above the new name are made. Blocks.

    Whatever fails: the source, or the whole of its copy, is there, and what was to be overwritten is unless it was.

    Args:
      leftovers: where copies are recorded as long as they are on their way.

    Raises:
      PathNotFound, DestinationExists, InvalidRequest, OutsideRoot.
      OSError.
    """
    try:
        old, name = parent(root, source)
        status = os.stat(name, dir_fd=old.number, follow_symlinks=False)
    except FileNotFoundError:
        raise PathNotFound(source) from None
    try:
        new, new_name = parent(root, destination)
    except FileNotFoundError:
        make_folders(root, above(destination))
        new, new_name = parent(root, destination)
    there = _status(new, new_name)
    if there is not None and not overwrite:
        raise DestinationExists(destination)
    if there is not None and os.path.samestat(status, there):
        if name == new_name and os.path.samestat(os.fstat(old.number), os.fstat(new.number)):
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=old.number)  # two names of one file: rename would keep both
            return
    try:
        _rename(old, name, new, new_name, overwrite=overwrite, leftovers=leftovers)
    except FileExistsError:
        raise DestinationExists(destination) from None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _bring(old, name, new, new_name, destination, overwrite=overwrite, leftovers=leftovers)


def _rename(
    old: Descriptor, name: str, new: Descriptor, new_name: str, *, overwrite: bool, leftovers: Leftovers
) -> None:
    """Raises `FileExistsError` if there is something and it is not to be overwritten."""
    if not overwrite:
        rename_new(name, new_name, src_dir_fd=old.number, dst_dir_fd=new.number)
        return
    try:
        os.rename(name, new_name, src_dir_fd=old.number, dst_dir_fd=new.number)
        return
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
    aside = temporary_name()
    os.rename(new_name, aside, src_dir_fd=new.number, dst_dir_fd=new.number)
    try:
        os.rename(name, new_name, src_dir_fd=old.number, dst_dir_fd=new.number)
    except BaseException:
        os.rename(aside, new_name, src_dir_fd=new.number, dst_dir_fd=new.number)
        raise
    with leftovers.recorded(new.number, aside):  # not earlier: up to here it is all that there is of it
        _remove(new, aside)


def _bring(
    old: Descriptor,
    name: str,
    new: Descriptor,
    new_name: str,
    destination: str,
    *,
    overwrite: bool,
    leftovers: Leftovers,
) -> None:
    """Move something to another file system: a copy under a name of nobody's, renamed once it is whole."""
    copy = temporary_name()
    with leftovers.recorded(new.number, copy):
        try:
            copy_tree(old.number, name, new.number, copy)
            _rename(new, copy, new, new_name, overwrite=overwrite, leftovers=leftovers)
        except BaseException as error:
            with suppress(FileNotFoundError):
                _remove(new, copy)
            if isinstance(error, FileExistsError):
                raise DestinationExists(destination) from None
            raise
    _remove(old, name)


def _remove(folder: Descriptor, name: str) -> None:
    """Remove what a move leaves over, also for a client that has gone meanwhile."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder.number, follow_symlinks=False).st_mode):
        remove_tree(folder.number, name, to_the_end=True)
    else:
        os.unlink(name, dir_fd=folder.number)


def _status(folder: Descriptor, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder.number, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_directory(root: Root, path: str) -> bool:
    try:
        root.resolve(path, directory=True).close()
    except OSError:
        return False
    return True
