"""Where paths lead: anywhere, or nowhere but below one directory.

A path is resolved once, to a descriptor, and whatever is done is done by that descriptor, never by the path again. So
nobody can swap a folder for a link in between. Below a directory, the kernel itself keeps to it (`openat2` with
`RESOLVE_BENEATH`). Where it cannot, or where it would refuse an absolute link although that leads back in, the path is
walked name by name: each is opened without following, each link is read and walked in turn, and `..` goes back to the
descriptor that we came from.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

from ..errors import InvalidRequest
from .descriptor import Descriptor
from .errors import OutsideRoot
from .paths import above, parts_of
from .system_calls import OPENAT2_UNKNOWN, open_beneath

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Beneath", "Everything", "Root", "parent"]

MOST_LINKS = 40
"""Links on one way, as the kernel has it."""

DEEPEST = 512
"""Names on one way that is walked: each is a descriptor."""

TRIES = 4
"""The kernel may be disturbed by renames elsewhere; after some tries the path is walked."""


class Root(Protocol):
    """What can be reached.

    Attributes:
      home: the absolute path that relative ones start from.
    """

    @property
    def home(self) -> str: ...

    def resolve(self, path: str, *, follow: bool = True, directory: bool = False) -> Descriptor:
        """What an absolute path leads to: a descriptor that names it (`O_PATH`) and opens nothing. Blocks.

        Args:
          follow: whether a link at the very end is followed.
          directory: whether it has to be a directory.

        Raises:
          OutsideRoot: it leads to where it must not.
          OSError: it leads nowhere.
        """
        ...


class Everything:
    """The whole file system."""

    def __init__(self, home: str) -> None:
        self.home = home

    def resolve(self, path: str, *, follow: bool = True, directory: bool = False) -> Descriptor:
        return Descriptor(os.open(path, _flags(follow, directory)))


class Beneath:
    """A directory with all below it. It stays the one that it was at the start, also where it is renamed.

    Args:
      by_kernel: whether to let the kernel resolve paths where it can.

    Raises:
      OSError: there is no such directory.
    """

    def __init__(self, directory: Path, home: str, *, by_kernel: bool = True) -> None:
        real = os.path.realpath(directory, strict=True)
        self._top = Descriptor(os.open(real, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        self._spellings = [parts_of(real), parts_of(os.path.abspath(directory))]
        self._by_kernel = by_kernel
        home = os.path.realpath(home)
        self.home = home if self._below(home) is not None else real

    def resolve(self, path: str, *, follow: bool = True, directory: bool = False) -> Descriptor:
        below = self._below(path)
        if below is None:
            raise OutsideRoot(path)
        flags = _flags(follow, directory)
        if self._by_kernel:
            for _ in range(TRIES):
                try:
                    return Descriptor(open_beneath(self._top.number, "/".join(below) or ".", flags))
                except OSError as error:
                    if error.errno in OPENAT2_UNKNOWN:
                        self._by_kernel = False
                        break
                    if error.errno == errno.EXDEV:
                        break
                    if error.errno != errno.EAGAIN:
                        raise
        return self._walk(path, below, flags)

    def _below(self, path: str) -> list[str] | None:
        """The way from the top, or None where the path is another's."""
        parts = parts_of(path)
        for spelling in self._spellings:
            if parts[: len(spelling)] == spelling:
                # A slash at the end says that a directory is meant.
                return [*parts[len(spelling) :], *(["."] if path.endswith("/") else [])]
        return None

    def _walk(self, path: str, below: list[str], flags: int) -> Descriptor:
        here = [Descriptor(os.open(".", flags & ~os.O_NOFOLLOW, dir_fd=self._top.number))]
        todo = below[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                os.stat(".", dir_fd=here[-1].number)  # of a file there is no `..`
                here.pop().close()
                if not here:
                    raise OutsideRoot(path)
                continue
            found = Descriptor(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here[-1].number))
            if len(here) > DEEPEST:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            if not stat.S_ISLNK(os.fstat(found.number).st_mode) or not (todo or not flags & os.O_NOFOLLOW):
                here.append(found)
                continue
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=found.number)
            if target.startswith("/"):
                onwards = self._below(target)
                if onwards is None:
                    raise OutsideRoot(path)
                del here[1:]
            else:
                onwards = [*parts_of(target), *(["."] if target.endswith("/") else [])]
            todo += onwards[::-1]
        if flags & os.O_DIRECTORY:
            os.stat(".", dir_fd=here[-1].number)
        return here[-1]


def parent(root: Root, path: str) -> tuple[Descriptor, str]:
    """The folder that an absolute path is in, and its name there; a link at the end is not followed.

    Raises:
      InvalidRequest: it ends in `..`, or is the topmost directory itself.
      And what `resolve` raises.
    """
    name = path.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        raise InvalidRequest(f"the path does not end in a name: {path}")
    return root.resolve(above(path), directory=True), name


def _flags(follow: bool, directory: bool) -> int:
    return os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW) | (os.O_DIRECTORY if directory else 0)
