"""Files, opened to be read: small ones whole at once, large ones piece by piece."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .descriptor import Descriptor
from .entries import etag_of
from .errors import NotAFile

if TYPE_CHECKING:
    from .root import Root

__all__ = ["PIECE", "OpenFile", "open_file", "read_at", "read_cached"]

SMALL = 256 << 10
"""Bytes of a file that is read whole as soon as it is opened."""

PIECE = 1 << 20
"""Bytes of a larger one that are read at once: each piece costs a thread's wake-up, and a dozen steps to send."""

_NOT_CACHED = {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


@dataclass(slots=True)
class OpenFile:
    """A file to read from.

    Attributes:
      size: None where only reading to the end tells, as with many files of the kernel's own.
      whole: all of it, where it is small; else, of a file without a size, its beginning.
      modified: seconds since 1970.
      etag: without quotes; None for a file that does not say how long it is, nor when it changes.
      cached: whether it is worth a try to read what is in memory anyway.
    """

    file: Descriptor
    size: int | None
    whole: bytes | None
    modified: int
    etag: str | None
    cached: bool = True


def open_file(root: Root, path: str) -> OpenFile:
    """Open a regular file, and nothing else: opening a FIFO may wait for ever, opening a device may act. Blocks.

    Raises:
      NotAFile, OutsideRoot.
      OSError.
    """
    with root.resolve(path) as place:
        if not stat.S_ISREG(os.fstat(place.number).st_mode):
            raise NotAFile(path)
        file = Descriptor(os.open(place.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    status = os.fstat(file.number)
    opened = OpenFile(file, status.st_size, None, int(status.st_mtime), etag_of(status))
    if status.st_size <= SMALL:
        opened.whole = _read(file.number, SMALL + 1)
        if len(opened.whole) != status.st_size:
            # The kernel's own files say that they are empty, or a page long, whatever is in them.
            opened.size = len(opened.whole) if len(opened.whole) <= SMALL else None
            opened.etag = None
        if opened.size is not None:
            file.close()
    return opened


def read_at(file: Descriptor, start: int | None, size: int) -> bytes:
    """Some bytes from a position on, or the next ones; none at the end. Blocks. Raises `OSError`."""
    with file.in_use() as number:
        return os.read(number, size) if start is None else os.pread(number, size, start)


def read_cached(opened: OpenFile, start: int, size: int) -> bytes | None:
    """Bytes from a position on if that takes no waiting for a disk; else None."""
    if not opened.cached:
        return None
    buffer = bytearray(size)
    try:
        count = os.preadv(opened.file.number, [buffer], start, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in _NOT_CACHED:
            raise
        opened.cached = error.errno == errno.EAGAIN
        return None
    return bytes(memoryview(buffer)[:count])


def _read(file: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.read(file, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
