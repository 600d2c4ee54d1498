"""Why the configuration of a directory cannot be read or changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, Refusal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ConfigInaccessible", "ConfigLocked", "InvalidConfigFile", "InvalidEntry"]


class InvalidEntry(ValueError):
    """What is to be stored has not the shape of an entry. The message says where and why, and quotes no value."""


class InvalidConfigFile(InvalidRequest):
    """The file is not what it has to be, so nothing of it is used or changed: mend it, or delete it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"invalid config file {path}: {reason}")


class ConfigInaccessible(Refusal):
    """The operating system does not let us read or write the file."""

    name = "stream_error"

    def __init__(self, path: Path, errno: int) -> None:
        super().__init__(f"{os.strerror(errno)} (os error {errno}): {path}")


class ConfigLocked(Refusal):
    """Another process holds the lock of the file and does not let go."""

    name = "overloaded"
    retry_after = 1.0

    def __init__(self, path: Path) -> None:
        super().__init__(f"another process changes {path}")
