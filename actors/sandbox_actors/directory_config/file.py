"""One configuration file on disk: read whole, changed under a lock, replaced at once.

Whoever reads sees the file before a change or after it, also where the writer is killed in the middle. Whoever changes
it holds a lock on a file beside it, so two daemons that share a directory do not lose each other's changes. Everything
here blocks and belongs into a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from .errors import InvalidConfigFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["LARGEST", "change_file", "read_file"]

LARGEST = 8 << 20
"""Bytes of a file that is read or written: thousands of entries. It is read as a whole, by every session there."""


def read_file(path: Path) -> bytes | None:
    """What the file holds; None where there is none.

    Raises:
      InvalidConfigFile: it is no regular file, or too large.
      OSError: it cannot be read.
    """
    try:
        _check(path, os.stat(path))  # before it is opened: a device may act on being opened
        # Should it be a FIFO by now, opening it does not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        _check(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(text) > LARGEST:
        raise InvalidConfigFile(path, f"larger than {LARGEST} bytes")
    return text


def change_file(path: Path, change: Callable[[bytes | None], Iterable[tuple[Path, bytes]]]) -> bool:
    """Change the file and what lies beside it; folders that are not there are made.

    Args:
      change: says, of what the file holds, which files of its folder are to hold what. They are replaced in this order.

    Returns:
      False if another process holds the lock: nothing was done.

    Raises:
      InvalidConfigFile: as `read_file`.
      OSError: a file cannot be read or written. It is as it was, and those that follow it are.
    """
    _make(path.parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    lock = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        for target, text in change(read_file(path)):
            _replace(target, text)
        _sync(path.parent)
    finally:
        os.close(lock)
    return True


def _check(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise InvalidConfigFile(path, "not a regular file")


def _make(folder: Path) -> None:
    """Make a folder with all above it; ours are private, since entries may hold secrets."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync(folder.parent)


def _replace(path: Path, text: bytes) -> None:
    # One name is enough under the lock, and what a killed daemon left under it goes with the next change.
    temporary = path.with_name(f".{path.name.removeprefix('.')}.new")
    temporary.unlink(missing_ok=True)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """A new name in a folder survives a power cut once the folder itself is on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
