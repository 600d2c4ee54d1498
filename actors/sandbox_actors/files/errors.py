"""What the file system refuses, and why: as on the public wire, what is missing is the client's own mistake."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, Refusal

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "DestinationExists",
    "FileTrouble",
    "NotADirectory",
    "NotAFile",
    "OutsideRoot",
    "PathNotFound",
    "PreconditionFailed",
    "StorageFull",
    "translated",
]


class PathNotFound(InvalidRequest):
    def __init__(self, path: str) -> None:
        super().__init__(f"path not found: {path}")


class NotADirectory(InvalidRequest):
    def __init__(self, path: str) -> None:
        super().__init__(f"path is not a directory: {path}")


class NotAFile(InvalidRequest):
    """A directory, or what must not be opened as a file is: a FIFO, a socket, a device."""

    def __init__(self, path: str) -> None:
        super().__init__(f"path is not a file: {path}")


class DestinationExists(InvalidRequest):
    def __init__(self, path: str) -> None:
        super().__init__(f"destination already exists: {path}")


class OutsideRoot(Refusal):
    """The path, or a link on its way, leads out of the directory that the daemon keeps its clients in."""

    name = "permission_denied"

    def __init__(self, path: str) -> None:
        super().__init__(f"the path is outside of the root: {path}")


class PreconditionFailed(Refusal):
    """The file is not, or no longer, the one that the client means. It is as it was."""

    name = "precondition_failed"

    def __init__(self, path: str) -> None:
        super().__init__(f"the file is not in the state that the request asks for: {path}")


class StorageFull(Refusal):
    """There is no room, or no quota, left. What was there before is as it was."""

    name = "insufficient_storage"

    def __init__(self, path: str) -> None:
        super().__init__(f"no space left to write {path}")


class FileTrouble(Refusal):
    """The operating system does not let us. The message is the one of the public wire, without the path."""

    name = "stream_error"

    def __init__(self, number: int) -> None:
        super().__init__(f"{os.strerror(number)} (os error {number})")


@contextmanager
def translated(path: str) -> Generator[None]:
    """The system's errors about a path become refusals."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOENT:
                raise PathNotFound(path) from None
            case errno.ENAMETOOLONG:
                raise InvalidRequest(f"the path is too long: {path}") from None
            case errno.ENOSPC | errno.EDQUOT:
                raise StorageFull(path) from None
            case number:
                raise FileTrouble(number or errno.EIO) from None
