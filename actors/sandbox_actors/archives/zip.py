"""Reading a zip. Its list of entries is at its end, so it is a file before it is read."""

from __future__ import annotations

import stat
import struct
import time
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .counting import COPY_SIZE
from .entry import Entry, EntryKind
from .errors import ArchiveTooLarge, BadEntryPath, DamagedArchive, UnsafeArchive

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import IO

    from .counting import Counted

__all__ = ["read_zip"]

LIST_LIMIT = 16 << 20
"""Bytes of the list of entries, which is read into memory as a whole: enough for a hundred thousand."""

LONGEST_TARGET = 4096
"""Bytes of a link's target: the longest path of the system."""

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What all the world writes. Others want as much memory as the archive says."""

_END = b"PK\5\6"
_END_SIZE = 22
_END_64 = b"PK\6\6"
_END_64_SIZE = 56
_LOCATOR = b"PK\6\7"
_LOCATOR_SIZE = 20
_ENCRYPTED = 1


def read_zip(file: IO[bytes], counted: Counted) -> Iterator[Entry]:
    """The entries of a zip.

    Raises:
      DamagedArchive: it is cut off, or no zip.
      UnsafeArchive, ArchiveTooLarge: it has an entry of a kind that is not taken, or is more than its limits.
    """
    if _list_size(file) > LIST_LIMIT:
        raise ArchiveTooLarge(f"its list of entries is larger than {LIST_LIMIT >> 20} MB")
    with _translated():
        archive = zipfile.ZipFile(file)
    with archive:
        for info in archive.infolist():
            yield _entry(archive, info, counted)


@contextmanager
def _translated() -> Generator[None]:
    """What the standard library says of a zip, in our terms."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeDecodeError) as error:
        raise DamagedArchive(str(error) or "it is cut off") from None
    except NotImplementedError as error:  # a version or feature that it does not know
        raise UnsafeArchive(f"it cannot be read: {error}") from None


class _Content:
    """The bytes of one file, counted."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, counted: Counted) -> None:
        with _translated():
            self._file = archive.open(info)
        self._counted = counted

    def read(self, size: int, /) -> bytes:
        with _translated():
            chunk = self._file.read(min(size, COPY_SIZE))
        self._counted.more(len(chunk))
        return chunk


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, counted: Counted) -> Entry:
    name = info.orig_filename  # the other one is cut at a NUL
    if "\\" in name:  # a folder to some readers, a letter to others
        raise BadEntryPath(name)
    if info.flag_bits & _ENCRYPTED:
        raise UnsafeArchive(f"{name!r} is encrypted")
    if info.compress_type not in METHODS:
        raise UnsafeArchive(f"{name!r} is compressed by a method that is not taken")
    system_mode = info.external_attr >> 16
    mode = stat.S_IMODE(system_mode) if system_mode else None
    mtime_ns = _mtime_ns(info)
    match stat.S_IFMT(system_mode):
        case stat.S_IFLNK:
            target = _Content(archive, info, counted).read(LONGEST_TARGET)
            return Entry(name, EntryKind.SYMLINK, mode, mtime_ns, target.decode(errors="surrogateescape"))
        case 0 | stat.S_IFREG | stat.S_IFDIR:
            pass
        case _:
            raise UnsafeArchive(f"{name!r} is neither a file nor a folder nor a link")
    if name.endswith("/") or stat.S_ISDIR(system_mode):
        return Entry(name, EntryKind.DIRECTORY, mode, mtime_ns)
    return Entry(name, EntryKind.FILE, mode, mtime_ns, content=_Content(archive, info, counted))


def _mtime_ns(info: zipfile.ZipInfo) -> int | None:
    """When it was changed: by the extended timestamp (Info-ZIP, 0x5455), or else by the clock on some wall."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            (seconds,) = struct.unpack_from("<i", extra, 5)
            return int(seconds) * 1_000_000_000
        extra = extra[4 + size :]
    try:
        return int(time.mktime((*info.date_time, 0, 0, -1))) * 1_000_000_000
    except (ValueError, OverflowError):
        return None


def _list_size(file: IO[bytes]) -> int:
    """How long the list of entries says it is, before anything of it is read.

    Raises:
      DamagedArchive: there is none.
    """
    length = file.seek(0, 2)
    start = max(0, length - _END_SIZE - 0xFFFF)  # a comment of up to 64 KiB may follow
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise DamagedArchive("it is cut off, or no zip")
    (size,) = struct.unpack_from("<L", tail, at + 12)
    # The larger one, which stands right before where there is one, counts.
    file.seek(max(0, start + at - _LOCATOR_SIZE - _END_64_SIZE))
    before = file.read(_END_64_SIZE + _LOCATOR_SIZE)
    if before.startswith(_END_64) and before[_END_64_SIZE:].startswith(_LOCATOR):
        (size,) = struct.unpack_from("<Q", before, 40)
    return int(size)
