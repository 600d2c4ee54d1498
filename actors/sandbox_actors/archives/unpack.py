"""Unpacking: an archive comes in as a stream, and its folder is there when all of it was good, or not at all."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..files.paths import readable
from .counting import COPY_SIZE, Body, Counted, CountedStream
from .entry import EntryKind, path_parts
from .formats import ArchiveFormat, decompressed
from .merge import move_into_place
from .staging import open_staging
from .tar import read_tar
from .zip import read_zip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from ..files import Leftovers
    from .counting import Limits
    from .entry import Entry
    from .merge import Destination
    from .staging import Staging

__all__ = ["PATHS_TOLD", "Unpacked", "unpack"]

PATHS_TOLD = 1024
"""Of how many entries the paths are told, as on the public wire."""

ZIP_FILE = "archive"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked.

    Attributes:
      paths: of the entries, in their order, the first `PATHS_TOLD`.
      truncated: whether there were more.
    """

    paths: list[str]
    truncated: bool


def unpack(
    receive: Callable[[], Sequence[bytes]],
    format: ArchiveFormat,
    destination: Destination,
    limits: Limits,
    leftovers: Leftovers,
) -> Unpacked:
    """Unpack an archive. Blocks; for a thread of Trio's, whose cancellation ends it.

    Args:
      receive: gives the archive's next pieces; an empty list at its end.

    Raises:
      UnsafeArchive, ArchiveTooLarge, DamagedArchive, ArchiveConflict: nothing of it was unpacked.
      OSError: it cannot be written.
    """
    counted = Counted(limits)
    with open_staging(destination.anchor.number, leftovers) as staging:
        with _entries(Body(receive, counted), format, staging, counted) as entries:
            unpacked = _stage(entries, staging, counted, destination.path)
        staging.settle()
        move_into_place(staging, destination)
    return unpacked


@contextmanager
def _entries(body: Body, format: ArchiveFormat, staging: Staging, counted: Counted) -> Generator[Iterable[Entry]]:
    if format is ArchiveFormat.TAR:
        yield read_tar(io.BufferedReader(CountedStream(body, counted), COPY_SIZE))
        return
    with io.BufferedReader(body, COPY_SIZE) as stream:
        if format is not ArchiveFormat.ZIP:
            with decompressed(stream, format) as inside:
                yield read_tar(io.BufferedReader(CountedStream(inside, counted), COPY_SIZE))
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(ZIP_FILE, flags, 0o600, dir_fd=staging.folder), "r+b") as file:
            while chunk := stream.read(COPY_SIZE):
                file.write(chunk)
            file.seek(0)
            yield read_zip(file, counted)


def _stage(entries: Iterable[Entry], staging: Staging, counted: Counted, path: str) -> Unpacked:
    paths: list[str] = []
    above = path.rstrip("/")
    made = 0
    for entry in entries:
        counted.entry()
        parts = path_parts(entry.name)
        if not parts:
            continue
        if entry.kind is EntryKind.HARD_LINK:
            staging.link(parts, path_parts(entry.target), entry.target)
        else:
            staging.add(parts, entry)
        made += 1
        if made <= PATHS_TOLD:
            paths.append(readable(f"{above}/{'/'.join(parts)}"))
    return Unpacked(paths, truncated=made > PATHS_TOLD)
