"""Archives as somebody else would make them: sound ones, broken ones and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backports import zstd

from sandbox_actors.archives import ArchiveFormat, Archives, Limits
from sandbox_actors.files import FileSystem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sandbox_actors.archives import Unpacked

__all__ = ["Item", "compressed", "listing", "packed", "tar", "unpacked", "zip_archive"]


@dataclass(frozen=True, slots=True)
class Item:
    """An entry to be. `type` is one of `tarfile`'s."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    mtime: float = 1_700_000_000


def tar(items: Sequence[Item], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.mode, info.mtime = item.type, item.target, item.mode, item.mtime
            info.size = len(item.content)
            archive.addfile(info, io.BytesIO(item.content))
    return buffer.getvalue()


def zip_archive(items: Sequence[Item], method: int = zipfile.ZIP_DEFLATED, *, utc: bool = True) -> bytes:
    """A zip; a symbolic link is what its target is the content of.

    Args:
      utc: whether it tells times by the clock of all the world, too.
    """
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice is what we are after
        for item in items:
            info = zipfile.ZipInfo(item.name, (2023, 11, 14, 22, 13, 20))
            info.compress_type = method
            info.external_attr = (kinds.get(item.type, stat.S_IFREG) | item.mode) << 16
            if utc:
                info.extra = struct.pack("<HHBi", 0x5455, 5, 1, int(item.mtime))
            archive.writestr(info, item.target.encode() if item.target else item.content)
    return buffer.getvalue()


def compressed(content: bytes, format: ArchiveFormat) -> bytes:
    """A tar as one of a format."""
    match format:
        case ArchiveFormat.TAR_GZ:
            return gzip.compress(content)
        case ArchiveFormat.TAR_ZST:
            return zstd.compress(content)
        case _:
            return content


async def unpacked(
    content: bytes,
    folder: Path,
    format: ArchiveFormat = ArchiveFormat.TAR,
    limits: Limits | None = None,
    *,
    chunk: int = 1 << 16,
    root: Path | None = None,
) -> Unpacked:
    """Unpack as the daemon does.

    Args:
      root: nothing outside of it can be reached.
    """
    left = memoryview(content)

    async def receive() -> bytes:
        nonlocal left
        piece, left = left[:chunk], left[chunk:]
        return bytes(piece)

    return await Archives(FileSystem(folder.parent, root), limits).unpack(receive, format, str(folder))


async def packed(folder: Path, format: ArchiveFormat = ArchiveFormat.TAR) -> bytes:
    packing = await Archives(FileSystem(folder)).pack(str(folder), format)
    pieces: list[bytes] = []
    while piece := await packing.read():
        pieces.append(piece)
    return b"".join(pieces)


def listing(folder: Path) -> dict[str, str]:
    """What is in a folder: of files the content, of links where they lead, of folders a slash."""
    found: dict[str, str] = {}
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(above, name)
            shown = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[shown] = "-> " + os.readlink(path)
            elif os.path.isdir(path):
                found[shown] = "/"
            else:
                with open(path, "rb") as file:
                    found[shown] = file.read().decode(errors="replace")
    return dict(sorted(found.items()))
