"""Whole folders, as one archive: into the sandbox and out of it."""

from __future__ import annotations

import tarfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from .errors import ConnectionFailed
from .file_reading import Pieces, open_pieces
from .local_files import place_folder
from .tars import Packing, unpack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from .transport import Transport

__all__ = ["ArchiveFormat", "Archives", "Unpacked"]

ArchiveFormat: TypeAlias = Literal["tar", "tar.gz", "tar.zst", "zip"]

MEDIA_TYPES: dict[ArchiveFormat, str] = {
    "tar": "application/x-tar",
    "tar.gz": "application/gzip",
    "tar.zst": "application/zstd",
    "zip": "application/zip",
}

UNPACK_WITHIN = 300.0
"""Seconds of silence: once all has come, the server compares and renames, which for many folders takes a while."""


class Unpacked(msgspec.Struct, frozen=True):
    """What came out of an archive.

    Attributes:
      paths: of files and folders, the first 1,024.
      truncated: there are more.
    """

    paths: list[str]
    truncated: bool = False


class Archives:
    """What `Files` does with whole folders."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def unpack(
        self, data: bytes | Callable[[], AsyncIterator[bytes]], path: str, format: ArchiveFormat = "tar"
    ) -> Unpacked:
        """Unpack an archive into a folder: all of it or nothing.

        Args:
          data: the archive, or what gives its pieces from the beginning, should it have to be sent again after a break.

        Raises:
          InvalidRequest: it is unsafe or too large, or the path makes no sense.
          StreamError: it is damaged.
          Conflict: something is a folder on one side and something else on the other.
        """
        return await self._transport.ask(
            Unpacked,
            "POST",
            "/v1/fs/upload-batch",
            params={"path": path},
            content=data,
            headers={"Content-Type": MEDIA_TYPES[format]},
            silence=UNPACK_WITHIN,
            # To unpack the same twice comes to the same.
            retry=True,
        )

    @asynccontextmanager
    async def open_archive(self, path: str, format: ArchiveFormat = "tar.gz") -> AsyncGenerator[Pieces]:
        """A folder as one archive: an async iterator over its bytes, packed while it is sent.

        Raises:
          ConnectionFailed: also out of the iteration, where the archive breaks off.
        """
        async with open_pieces(self._transport, "/v1/fs/archive", {"path": path, "format": format}) as pieces:
            yield pieces

    async def _upload_folder(self, folder: Path, path: str) -> tuple[str, ...]:
        packings: list[Packing] = []

        def begun() -> Packing:
            packings.append(Packing(folder))
            return packings[-1]

        try:
            await self.unpack(begun, path)
        finally:
            for packing in packings:
                packing.close()
        return tuple(packings[-1].left_out)

    async def _download_folder(self, path: str, folder: Path) -> tuple[str, ...]:
        async with place_folder(folder) as draft, self.open_archive(path, "tar") as pieces:
            try:
                return await unpack(pieces, draft)
            except tarfile.TarError as error:
                raise ConnectionFailed(f"the archive of {path} is damaged: {error}") from None
