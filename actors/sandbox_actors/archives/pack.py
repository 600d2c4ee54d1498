"""Packing: a folder becomes an archive, piece by piece, while it is read.

An archive tells the size of a file before its content, and files change. What is small is read before it is told. Of
what is large, as much is packed as there was at the beginning: what comes later is left out, and what goes meanwhile
is made up for with zeros, as other packers do. What vanishes altogether, and what is neither file, folder nor link, is
left out.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import tarfile
import time
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING

import trio

from ..files import Descriptor
from ..files.paths import readable
from ..walking import walk
from .counting import COPY_SIZE
from .formats import ArchiveFormat, compressor

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from typing_extensions import Buffer

    from ..walking import Found

__all__ = ["pack"]

PIECE = 256 << 10
"""Bytes that are handed on at a time, at least: each piece is a trip to a thread and back."""

MOST_GATHERED = 256
"""Pieces before they were compressed, which are of `COPY_SIZE` at most."""

_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_REPLACED = {errno.ELOOP, errno.ENXIO, errno.ENODEV}
"""Of opening what was a file a moment ago: now it is a link, or a pipe or device that nobody serves."""

_ZIP_YEARS = (1980, 2107)


def pack(top: Descriptor, format: ArchiveFormat) -> Generator[bytes]:
    """The archive of a folder. Blocks; for a thread of Trio's, step by step.

    Raises:
      OSError: a file or folder may not be read.
    """
    return _gathered(_zip(top) if format is ArchiveFormat.ZIP else _compressed(_tar(top), format))


def _gathered(pieces: Generator[bytes]) -> Generator[bytes]:
    waiting: list[bytes] = []
    size = 0
    with closing(pieces):  # at once, also where a traceback keeps it: it has files open
        for piece in pieces:
            trio.from_thread.check_cancelled()
            waiting.append(piece)
            size += len(piece)
            # Little may come of much: whoever waits shall see that there is work going on.
            if size >= PIECE or (size and len(waiting) >= MOST_GATHERED):
                yield b"".join(waiting)
                waiting, size = [], 0
    if size:
        yield b"".join(waiting)


def _compressed(pieces: Iterator[bytes], format: ArchiveFormat) -> Generator[bytes]:
    by = compressor(format)
    for piece in pieces:
        yield by.compress(piece)
    yield by.flush()


def _tar(top: Descriptor) -> Iterator[bytes]:
    for found in walk(top.number):
        info = tarfile.TarInfo(found.path)
        info.mode = stat.S_IMODE(found.status.st_mode)
        info.uid, info.gid = found.status.st_uid, found.status.st_gid
        info.mtime = int(found.status.st_mtime)
        if found.is_folder:
            info.type = tarfile.DIRTYPE
            yield _header(info)
        elif (target := _target(found)) is not None:
            info.type, info.linkname = tarfile.SYMTYPE, target
            yield _header(info)
        elif (file := _opened(found)) is not None:
            with file:
                start, size = _start(file)
                info.size = size
                yield _header(info)
                yield start
                yield from _rest(file, size - len(start))
            yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _zip(top: Descriptor) -> Generator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for found in walk(top.number):
            name = readable(found.path)
            if found.is_folder:
                archive.writestr(_zip_info(found, name + "/"), b"")
            elif (target := _target(found)) is not None:
                archive.writestr(_zip_info(found, name), os.fsencode(target))
            elif (file := _opened(found)) is not None:
                info = _zip_info(found, name)
                info.compress_type = zipfile.ZIP_DEFLATED
                with file:
                    start, size = _start(file)
                    info.file_size = size
                    with archive.open(info, "w") as inside:
                        inside.write(start)
                        for piece in _rest(file, size - len(start)):
                            inside.write(piece)
                            yield sink.taken()
            yield sink.taken()
    yield sink.taken()


def _zip_info(found: Found, name: str) -> zipfile.ZipInfo:
    seconds = int(found.status.st_mtime)
    at = time.localtime(seconds)
    first, last = _ZIP_YEARS
    date = at[:6] if first <= at.tm_year <= last else (first, 1, 1, 0, 0, 0)
    info = zipfile.ZipInfo(name, date)
    info.external_attr = found.status.st_mode << 16 | (0x10 if found.is_folder else 0)
    if -(1 << 31) <= seconds < 1 << 31:
        # The extended timestamp (Info-ZIP): that of the format has neither a time zone nor odd seconds.
        info.extra = struct.pack("<HHBi", 0x5455, 5, 1, seconds)
    return info


class _Sink(io.RawIOBase):
    """Where the zip is written to: it cannot seek, so sizes are told behind each file."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _target(found: Found) -> str | None:
    """Where a link leads; None of anything else."""
    if not stat.S_ISLNK(found.status.st_mode):
        return None
    try:
        return os.readlink(found.name, dir_fd=found.folder)
    except OSError:  # it has vanished, or is no link any more
        return None


def _opened(found: Found) -> Descriptor | None:
    """A regular file, to be read; None of anything else."""
    if not stat.S_ISREG(found.status.st_mode):
        return None
    try:
        file = Descriptor(os.open(found.name, _REGULAR, dir_fd=found.folder))
    except (FileNotFoundError, IsADirectoryError):
        return None
    except OSError as error:
        if error.errno in _REPLACED:
            return None
        raise
    return file if stat.S_ISREG(os.fstat(file.number).st_mode) else None


def _start(file: Descriptor) -> tuple[bytes, int]:
    """The beginning of a file, and how much of it will be packed."""
    start = os.read(file.number, COPY_SIZE)
    if len(start) < COPY_SIZE:
        return start, len(start)
    return start, max(os.fstat(file.number).st_size, len(start))


def _rest(file: Descriptor, size: int) -> Iterator[bytes]:
    while size:
        piece = os.read(file.number, min(size, COPY_SIZE)) or bytes(min(size, COPY_SIZE))
        size -= len(piece)
        yield piece
