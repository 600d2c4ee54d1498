"""Files and directories as clients reach them: by paths, streamed, and confined to a root if so told."""

from .descriptor import Descriptor
from .entries import Entry, Stat
from .errors import NotADirectory, NotAFile, OutsideRoot, PathNotFound, PreconditionFailed, StorageFull, translated
from .filesystem import FileSystem, Upload
from .leftovers import Leftovers
from .reading import PIECE, OpenFile
from .root import Root
from .writing import Precondition

__all__ = [
    "PIECE",
    "Descriptor",
    "Entry",
    "FileSystem",
    "Leftovers",
    "NotADirectory",
    "NotAFile",
    "OpenFile",
    "OutsideRoot",
    "PathNotFound",
    "Precondition",
    "PreconditionFailed",
    "Root",
    "Stat",
    "StorageFull",
    "Upload",
    "translated",
]
