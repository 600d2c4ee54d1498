"""What is on its way under a name of nobody's, recorded, so that what a killed daemon has left is deleted by the next.

For each there is a small file in a directory of the daemon's own: it has the temporary name, and holds the path of the
folder that this is a name in. It is there before the thing itself, and goes after it.

What is found at the next start is deleted only if it has just this name, is our own, and is in just the folder that is
recorded: one that a link leads to now, or that is outside of the root by now, is left alone.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from .tree import TEMPORARY, remove_tree

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from .root import Root

__all__ = ["Leftovers", "remove_leftover"]

log = structlog.get_logger()

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class Leftovers:
    """See the module. Everything blocks.

    Args:
      records: the directory of the records, of this daemon alone; None to keep none.

    Attributes:
      found: the names that an earlier daemon has left records of.
    """

    def __init__(self, records: Path | None) -> None:
        self._records = records
        self.found: list[str] = []
        if records is not None:
            try:
                records.mkdir(mode=0o700, exist_ok=True)
                self.found = [name for name in os.listdir(records) if re.fullmatch(TEMPORARY, name)]
            except OSError as error:
                _warn(error)

    @contextmanager
    def recorded(self, folder: int, name: str) -> Generator[None]:
        """While the block runs there may be something of this name in an open folder."""
        self.record(folder, name)
        try:
            yield
        finally:
            self.settle(folder, name)

    def record(self, folder: int, name: str) -> None:
        """From now on there may be something of this name in an open folder."""
        if self._records is None:
            return
        try:
            (self._records / name).write_bytes(os.fsencode(os.readlink(f"/proc/self/fd/{folder}")))
        except OSError as error:
            _warn(error)

    def settle(self, folder: int, name: str) -> None:
        """There should be nothing of this name any more: where there is, the record stays."""
        if self._records is not None and not _is_there(folder, name):
            self.forget(name)

    def forget(self, name: str) -> None:
        """Drop a record."""
        if self._records is not None:
            with suppress(OSError):
                os.unlink(self._records / name)

    def folder_of(self, name: str) -> str:
        """The path of the folder that a record is of; empty where the daemon was killed before it was written.

        Raises:
          OSError: it cannot be read.
        """
        assert self._records is not None, "nothing was found"
        return os.fsdecode((self._records / name).read_bytes())


def remove_leftover(root: Root, folder: str, name: str) -> bool:
    """Delete what was left in a folder, if it is there and is ours; tell whether it was. Blocks.

    Raises:
      OutsideRoot: the folder cannot be reached any more.
      OSError: it cannot be deleted.
    """
    try:
        with root.resolve(folder, follow=False, directory=True) as place:
            if os.readlink(place.path) != folder:  # a link led us elsewhere
                return False
            status = os.stat(name, dir_fd=place.number, follow_symlinks=False)
            if status.st_uid != os.geteuid():
                return False
            if stat.S_ISDIR(status.st_mode):
                remove_tree(place.number, name)
            elif stat.S_ISREG(status.st_mode):
                os.unlink(name, dir_fd=place.number)
            else:
                return False
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return False
    return True


def _warn(error: OSError) -> None:
    # What clients want done does not depend on it.
    log.warning("temporary names cannot be recorded", error=str(error))


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        return error.errno not in _NOT_THERE
    return True
