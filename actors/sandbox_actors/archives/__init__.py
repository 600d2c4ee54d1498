"""Archives: a folder comes in as one file, and goes out as one."""

from .archives import Archives, Packing
from .counting import Limits
from .errors import ArchiveConflict, ArchiveTooLarge, BadEntryPath, DamagedArchive, UnsafeArchive
from .formats import ArchiveFormat
from .unpack import Unpacked

__all__ = [
    "ArchiveConflict",
    "ArchiveFormat",
    "ArchiveTooLarge",
    "Archives",
    "BadEntryPath",
    "DamagedArchive",
    "Limits",
    "Packing",
    "Unpacked",
    "UnsafeArchive",
]
