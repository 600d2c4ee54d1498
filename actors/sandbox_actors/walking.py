"""A tree, walked by descriptors: no link in it is followed, neither one that is there nor one that is slipped in.

Nothing but the standard library is imported here: a child process that searches walks, too, and must start at once.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["OPEN_FOLDER", "Found", "walk"]

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

DEEPEST = 256
"""Folders in folders: each is a descriptor while what is in it is looked at."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something in the tree.

    Attributes:
      path: from the top, with slashes.
      folder: the descriptor of the folder that it is in, open until the next step.
      status: its own where it is a link.
    """

    path: str
    name: str
    folder: int
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


@dataclass(slots=True)
class _Level:
    folder: int
    names: list[str]
    above: str


def walk(
    top: int,
    *,
    enter: Callable[[Found], bool] | None = None,
    refused: Callable[[str, OSError], None] | None = None,
) -> Generator[Found]:
    """Everything in a folder, by name, a folder before what is in it. What vanishes meanwhile is left out.

    Args:
      top: the folder's descriptor; may be open by `O_PATH`.
      enter: whether to look into a folder; into each by default.
      refused: is told of what cannot be looked at, or into; by default the error is raised.

    Raises:
      OSError: the top, or with no `refused` anything in it, cannot be looked at.
    """
    levels = [_level(".", top, "")]
    try:
        while levels:
            level = levels[-1]
            if not level.names:
                os.close(levels.pop().folder)
                continue
            name = level.names.pop()
            try:
                status = os.stat(name, dir_fd=level.folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                if refused is None:
                    raise
                refused(level.above + name, error)
                continue
            found = Found(level.above + name, name, level.folder, status)
            yield found
            if not found.is_folder or (enter is not None and not enter(found)):
                continue
            try:
                if len(levels) > DEEPEST:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                levels.append(_level(name, level.folder, found.path + "/"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if refused is None:
                    raise
                refused(found.path, error)
    finally:
        for level in levels:
            os.close(level.folder)


def _level(name: str, folder: int, above: str) -> _Level:
    opened = os.open(name, OPEN_FOLDER, dir_fd=folder)
    try:
        return _Level(opened, sorted(os.listdir(opened), reverse=True), above)
    except BaseException:
        os.close(opened)
        raise
