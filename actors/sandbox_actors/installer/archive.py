"""Archives: unpacked below one directory and nowhere else, and never larger than an agent can be.

An archive is somebody else's list of file names. Names that lead out of the directory (absolute, with `..`, through a
link that points out) are refused, and so is the whole archive. Links are judged by what is written, too: what the
system makes of a path can be led astray by links upon links, as the standard library's own check was until 2025. What
is unpacked is counted while it is, for what the archive says of itself may be a lie.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from .trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol, Self

    from _typeshed import WriteableBuffer

    class _Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...


__all__ = ["Limits", "find_program", "unpack"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold. The largest agents unpack to some hundred megabytes in some ten thousand files."""

    bytes: int = 4 << 30
    entries: int = 200_000


DEFAULT_LIMITS = Limits()
COPY_SIZE = 1 << 20
HEADER_LIMIT = 1 << 20

INDEX_LIMIT = 32 << 20
"""Bytes of a zip's index, which is read into memory as a whole: the names of some hundred thousand files."""

_HEADERS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}

# The last three are what the standard library makes of names, times and methods that nobody has written in good faith.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
)


def unpack(archive: Path, url: str, command: str, directory: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack an archive into a new directory, or put a bare program there. Blocks; for a thread of Trio's.

    Args:
      url: where it is from: its ending says what it is.
      command: the program's path; a bare program gets its name.

    Raises:
      Trouble: it is damaged, not safe, or too large. What was unpacked so far is left in the directory.
      OSError: it cannot be written.
    """
    directory.mkdir()
    name = PurePosixPath(urlsplit(url).path).name
    counted = _Counted(limits)
    try:
        if name.endswith((".tar.gz", ".tgz")):
            with gzip.open(archive) as stream:
                _untar(stream, directory, counted)
        elif name.endswith((".tar.bz2", ".tbz2")):
            with bz2.open(archive) as stream:
                _untar(stream, directory, counted)
        elif name.endswith((".tar.xz", ".txz")):
            with lzma.open(archive) as stream:
                _untar(stream, directory, counted)
        elif name.endswith(".tar"):
            with archive.open("rb") as stream:
                _untar(stream, directory, counted)
        elif name.endswith(".zip"):
            _unzip(archive, directory, counted)
        else:
            program = directory / PurePosixPath(command).name
            shutil.copyfile(archive, program)
            program.chmod(0o755)
    except tarfile.FilterError as error:
        raise _unsafe(str(error)) from None
    except _DAMAGED as error:
        raise _damaged(error) from None
    except OSError as error:
        if error.filename is not None or error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(error) from None  # bz2 has no exception of its own, and a zip may point before its start


def find_program(directory: Path, command: str) -> Path:
    """The program of an unpacked archive: by its path, or else by its name, wherever it lies.

    Raises:
      Trouble: there is none, or its path leads out of the directory.
    """
    inside = directory.resolve()
    name = PurePosixPath(command.replace("\\", "/")).name
    named = [path for path in [directory / command] if path.is_file()]
    for path in named or sorted(path for path in directory.rglob("*") if path.name == name):
        if path.is_file():
            if not path.resolve().is_relative_to(inside):
                raise _unsafe(f"the program {command!r} is outside of it")
            if not path.stat().st_mode & stat.S_IXUSR:
                path.chmod(0o755)
            return path
    raise Trouble("failed", f"there is no program {command!r} in the archive")


@dataclass(slots=True, eq=False)
class _Counted:
    """What was unpacked so far."""

    limits: Limits
    bytes: int = 0
    entries: int = 0

    def entry(self) -> None:
        trio.from_thread.check_cancelled()
        self.entries += 1
        if self.entries > self.limits.entries:
            raise _unsafe(f"it has more than {self.limits.entries} entries")

    def more(self, bytes: int) -> None:
        trio.from_thread.check_cancelled()
        self.bytes += bytes
        if self.bytes > self.limits.bytes:
            raise _unsafe(f"it unpacks to more than {self.limits.bytes >> 20} MB")


class _CountedStream(io.RawIOBase):
    """What a compressed tar becomes, up to the limit: what is between its entries counts, too."""

    def __init__(self, stream: _Readable, counted: _Counted) -> None:
        self._stream = stream
        self._counted = counted

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        chunk = self._stream.read(len(view))
        self._counted.more(len(chunk))
        view[: len(chunk)] = chunk
        return len(chunk)


class _Entry(tarfile.TarInfo):
    """An entry whose extended headers, which are read into memory as a whole, are of a sensible size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _HEADERS and entry.size > HEADER_LIMIT:
            raise _unsafe(f"it has a header of {entry.size} bytes")
        return entry


def _untar(stream: _Readable, directory: Path, counted: _Counted) -> None:
    # As a stream, read once from start to end: nothing is looked for elsewhere in the file.
    with tarfile.open(fileobj=io.BufferedReader(_CountedStream(stream, counted)), mode="r|", tarinfo=_Entry) as tar:
        for member in tar:
            counted.entry()
            _check_links(member, directory)
            # The standard library's filter refuses what leads out, links included, and devices.
            tar.extract(member, directory, filter="data")


def _check_links(member: tarfile.TarInfo, directory: Path) -> None:
    """Every link points to somewhere inside, by its words alone; these are true, since no entry lies behind a link."""
    path = PurePosixPath(member.name.lstrip("/"))
    if ".." in path.parts or any(os.path.islink(directory / folder) for folder in path.parents):
        raise _unsafe(f"{member.name!r} would be written outside of it, or behind a link")
    if member.issym() or member.islnk():
        ups = list(PurePosixPath(member.linkname).parts)
        deep = len(path.parts) - 1 if member.issym() else 0
        while ups and ups[0] == "..":
            del ups[0]
            deep -= 1
        if deep < 0 or ".." in ups:
            raise _unsafe(f"the link {member.name!r} points out of it")


class _Index(io.BufferedReader):
    """A zip of which no more is read at once than its index may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > INDEX_LIMIT:
            raise _unsafe(f"its index has {size} bytes")
        return super().read(size)


def _unzip(archive: Path, directory: Path, counted: _Counted) -> None:
    with _Index(io.FileIO(archive)) as stream, zipfile.ZipFile(stream) as file:
        for entry in file.infolist():
            counted.entry()
            mode = entry.external_attr >> 16
            path = PurePosixPath(entry.orig_filename)
            if path.is_absolute() or ".." in path.parts or "\\" in entry.orig_filename:
                raise _unsafe(f"{entry.orig_filename!r} would be written outside of it")
            if "\0" in entry.orig_filename or stat.S_ISLNK(mode):
                raise _unsafe(f"{entry.orig_filename!r} is a link")
            target = directory / path
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(entry) as source, target.open("xb") as out:
                while chunk := source.read(COPY_SIZE):
                    counted.more(len(chunk))
                    out.write(chunk)
            target.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _damaged(error: Exception) -> Trouble:
    return Trouble("failed", f"the archive is damaged: {error}")


def _unsafe(why: str) -> Trouble:
    return Trouble("unsafe_archive", f"the archive is not safe: {why}; nothing of it is used")
