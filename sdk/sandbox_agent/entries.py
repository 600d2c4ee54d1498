"""What is told of files and folders: an entry of a folder, and what a path leads to."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Entry", "Stat"]


class Entry(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An entry of a folder. A link is told as itself.

    Attributes:
      entry_type: `file` stands for whatever is no directory.
      size: bytes.
      modified: RFC 3339, in UTC, with up to nine digits behind the point.
      mode: its permissions, four octal digits.
      target: where a link points.
    """

    name: str
    path: str
    entry_type: Literal["file", "directory"]
    size: int
    modified: str
    mode: str = ""
    symlink: bool = False
    target: str | None = None

    @property
    def permissions(self) -> int:
        """`mode` as a number, as `chmod` takes it."""
        return int(self.mode, 8)


class Stat(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a path leads to; members as those of `Entry`.

    Attributes:
      symlink: the path itself is a link, to `target`.
      dangling: the link leads to nothing; all else is told of the link.
    """

    path: str
    entry_type: Literal["file", "directory"]
    size: int
    modified: str
    mode: str = ""
    symlink: bool = False
    target: str | None = None
    dangling: bool = False

    @property
    def permissions(self) -> int:
        """`mode` as a number, as `chmod` takes it."""
        return int(self.mode, 8)
