"""The formats: what each is called on the wire, and how it becomes the bytes of a tar, or a tar becomes it."""

from __future__ import annotations

import gzip
import sys
import zlib
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from .errors import DamagedArchive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Generator
    from io import BufferedReader

    from .counting import Body, ReadableInto

__all__ = ["ArchiveFormat", "Compressor", "compressor", "decompressed"]


class ArchiveFormat(Enum):
    """The value is what a file's name ends with, and what `?format=` takes."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_ZST = "tar.zst"
    ZIP = "zip"

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self]

    @classmethod
    def of_media_type(cls, media_type: str) -> ArchiveFormat | None:
        """Which one a `Content-Type` names; None where it names none."""
        # The public wire looks at the beginning only.
        if media_type.startswith("application/x-tar"):
            return cls.TAR
        return _BY_MEDIA_TYPE.get(media_type.partition(";")[0].strip().lower())


_MEDIA_TYPES = {
    ArchiveFormat.TAR: "application/x-tar",
    ArchiveFormat.TAR_GZ: "application/gzip",
    ArchiveFormat.TAR_ZST: "application/zstd",
    ArchiveFormat.ZIP: "application/zip",
}
_BY_MEDIA_TYPE = {
    **{name: format for format, name in _MEDIA_TYPES.items()},
    "application/x-gzip": ArchiveFormat.TAR_GZ,
    "application/x-gtar": ArchiveFormat.TAR_GZ,
    "application/x-gtar+gzip": ArchiveFormat.TAR_GZ,
    "application/x-tgz": ArchiveFormat.TAR_GZ,
    "application/x-zstd": ArchiveFormat.TAR_ZST,
    "application/x-zip-compressed": ArchiveFormat.ZIP,
}

ZSTD_WINDOW_LOG = 23
"""8 MiB: what RFC 8878 (section 3.1.1.1.2) asks decoders for. More is memory that the archive's sender chooses."""

GZIP_LEVEL = 6
ZSTD_LEVEL = 3

_GZIP_HEADER = 31
"""Of zlib: a gzip header and trailer round it, and the largest window."""


@contextmanager
def decompressed(stream: BufferedReader[Body], format: ArchiveFormat) -> Generator[ReadableInto]:
    """What is inside a compressed tar."""
    try:
        match format:
            case ArchiveFormat.TAR_GZ:
                with gzip.GzipFile(fileobj=stream, mode="rb") as inside:
                    yield inside
            case _:
                options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG}
                with zstd.ZstdFile(stream, options=options) as inside:
                    yield inside
    except (gzip.BadGzipFile, zlib.error, zstd.ZstdError, EOFError) as error:
        raise DamagedArchive(str(error)) from None


class Compressor(Protocol):
    """Takes a stream in pieces, and gives it back smaller."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(format: ArchiveFormat) -> Compressor:
    """What makes a tar one of a format."""
    match format:
        case ArchiveFormat.TAR_GZ:
            return zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_HEADER)
        case ArchiveFormat.TAR_ZST:
            return zstd.ZstdCompressor(ZSTD_LEVEL)
        case _:
            return _Plain()
