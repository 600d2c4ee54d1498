"""inotify: the kernel tells what happens in folders. Sources: inotify(7).

The kernel keeps what was not read yet in a queue of limited length. When it is full it says so, once: nothing is lost
without a word.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from enum import IntFlag

import trio

from ..files import Descriptor

__all__ = ["Inotify", "Mask", "Notice"]

_HEAD = struct.Struct("iIII")
_READ_SIZE = 64 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]


class Mask(IntFlag):
    MODIFY = 0x2
    ATTRIB = 0x4
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x1000000
    DONT_FOLLOW = 0x2000000
    EXCL_UNLINK = 0x4000000
    ISDIR = 0x40000000


ALL_CHANGES = (
    Mask.MODIFY | Mask.ATTRIB | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.CREATE | Mask.DELETE
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.EXCL_UNLINK
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notice:
    """Something has happened.

    Attributes:
      watch: the number of the folder's watch; -1 where some notices were dropped.
      cookie: the same for both ends of a rename.
      name: in the folder; empty where it is the folder itself.
    """

    watch: int
    mask: int
    cookie: int
    name: str


class Inotify:
    """A queue of notices.

    Raises:
      OSError: `EMFILE`, the user has as many as the system allows.
    """

    def __init__(self) -> None:
        self._queue = Descriptor(_checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)))

    def close(self) -> None:
        self._queue.close()

    def add(self, folder: int, name: str, mask: Mask = ALL_CHANGES) -> int:
        """Watch a folder in a folder; gives the number of the watch, which is the same for the same folder. Blocks.

        Args:
          folder: its descriptor.
          mask: what to tell of.

        Raises:
          OSError: it is not there, no folder, or (`ENOSPC`) there are as many watches as the system allows.
        """
        path = os.fsencode(f"/proc/self/fd/{folder}/{name}")
        return _checked(_libc.inotify_add_watch(self._queue.number, path, mask | Mask.ONLYDIR | Mask.DONT_FOLLOW))

    def remove(self, watch: int) -> None:
        """Watch a folder no longer; one that has gone has no watch any more."""
        _libc.inotify_rm_watch(self._queue.number, watch)

    async def wait(self) -> None:
        """Wait until there is a notice."""
        await trio.lowlevel.wait_readable(self._queue.number)

    def read(self) -> list[Notice]:
        """Some notices; none where there are no more at present."""
        try:
            data = os.read(self._queue.number, _READ_SIZE)
        except BlockingIOError:
            return []
        notices: list[Notice] = []
        at = 0
        while at < len(data):
            watch, mask, cookie, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            notices.append(Notice(watch, mask, cookie, os.fsdecode(name)))
        return notices


def _checked(number: int) -> int:
    if number < 0:
        code = ctypes.get_errno() or errno.EIO
        raise OSError(code, os.strerror(code))
    return number
