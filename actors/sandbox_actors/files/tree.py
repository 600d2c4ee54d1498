"""Whole trees: removed, and copied from one file system to another. Links in them are never followed.

A tree may be deeper than any path is long, and deeper than there are descriptors. What lies too deep to be removed is
moved up first.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

import trio

from .descriptor import Descriptor

__all__ = ["TEMPORARY", "copy_tree", "remove_tree", "temporary_name"]

DEEPEST = 64
"""Levels that are gone down at once: each holds a descriptor, and a frame of Python's."""

DEEPEST_COPY = 128
"""Levels of a tree that is copied: each holds two. No tree that people make is so deep."""

COPY_SIZE = 8 << 20

TEMPORARY = r"\.sandbox-agent-[0-9a-f]{16}"
"""The names below."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def temporary_name() -> str:
    """A name that is nobody's, for what is on its way to its own."""
    return f".sandbox-agent-{secrets.token_hex(8)}"


def remove_tree(folder: int, name: str, *, to_the_end: bool = False) -> None:
    """Remove a directory of an open folder, with all in it. Blocks.

    Args:
      to_the_end: whether to go on when the task that waits for this is cancelled.

    Raises:
      OSError: something in it cannot be removed. What came before is gone.
    """
    with Descriptor(os.open(name, _FOLDER, dir_fd=folder)) as top:
        while _emptied(top.number, top.number, 1, to_the_end):
            pass
    os.rmdir(name, dir_fd=folder)


def copy_tree(source_folder: int, source: str, folder: int, name: str, depth: int = 0) -> None:
    """Copy a file or a directory under a new name: contents to the disk, links as links, modes, times and, where we
    may, owners. Blocks; ends early when its task is cancelled.

    Raises:
      OSError: something cannot be copied. What was copied so far is left.
    """
    trio.from_thread.check_cancelled()
    if depth > DEEPEST_COPY:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    status = os.stat(source, dir_fd=source_folder, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=folder)
        with (
            Descriptor(os.open(source, _FOLDER, dir_fd=source_folder)) as inside,
            Descriptor(os.open(name, _FOLDER, dir_fd=folder)) as copy,
        ):
            for entry in os.listdir(inside.number):
                copy_tree(inside.number, entry, copy.number, entry, depth + 1)
            _dress(copy.number, status)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source_folder, source, folder, name)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source, dir_fd=source_folder), name, dir_fd=folder)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=folder)


def _emptied(directory: int, top: int, depth: int, to_the_end: bool) -> bool:
    """Remove all that is in a directory; tell whether something was moved up to the top instead."""
    moved = False
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not to_the_end:
            trio.from_thread.check_cancelled()
        if not is_directory:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        elif depth == DEEPEST:
            os.rename(name, temporary_name(), src_dir_fd=directory, dst_dir_fd=top)
            moved = True
        else:
            with Descriptor(os.open(name, _FOLDER, dir_fd=directory)) as inside:
                moved |= _emptied(inside.number, top, depth + 1, to_the_end)
            os.rmdir(name, dir_fd=directory)
    return moved


def _copy_file(source_folder: int, source: str, folder: int, name: str) -> None:
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    making = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        Descriptor(os.open(source, reading, dir_fd=source_folder)) as original,
        Descriptor(os.open(name, making, 0o600, dir_fd=folder)) as copy,
    ):
        offset = 0
        while count := os.sendfile(copy.number, original.number, offset, COPY_SIZE):
            trio.from_thread.check_cancelled()
            offset += count
        _dress(copy.number, os.fstat(original.number))
        os.fsync(copy.number)


def _dress(copy: int, status: os.stat_result) -> None:
    """Give a copy the owner, mode and times of its original; by its descriptor, for its name may lead elsewhere."""
    mode = stat.S_IMODE(status.st_mode)
    try:
        os.fchown(copy, status.st_uid, status.st_gid)
    except PermissionError:
        mode &= 0o777  # what runs as its owner must not run as us
    os.fchmod(copy, mode)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
