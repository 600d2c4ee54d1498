"""An entry of an archive: somebody else's name for something, and what it is to become."""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from .errors import BadEntryPath, UnsafeArchive

if TYPE_CHECKING:
    from .counting import Readable  # noqa: TC004  # msgspec reads annotations only of what it decodes

__all__ = ["DEEPEST", "Entry", "EntryKind", "link_target", "path_parts"]

DEEPEST = 100
"""Folders in folders. Real trees have a tenth of it; each one more is a descriptor and a step of the recursion."""

LONGEST_NAME = 255
"""Bytes of a name: what file systems take."""


_SPECIAL = frozenset(("", ".", ".."))


class EntryKind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"


class Entry(msgspec.Struct, gc=False):
    """See the module. There may be a hundred thousand of them, and nothing is made as fast as such a struct.

    Attributes:
      name: as the archive has it: to be checked.
      mode: the permissions; None where the archive does not tell.
      mtime_ns: None where the archive does not tell.
      target: of a link, as the archive has it: to be checked.
      content: of a file. Read, if at all, before the next entry is asked for.
      whole: the content, instead of that, where it is small.
    """

    name: str
    kind: EntryKind
    mode: int | None = None
    mtime_ns: int | None = None
    target: str = ""
    content: Readable | None = None
    whole: bytes | None = None


def path_parts(name: str) -> tuple[str, ...]:
    """The parts of an entry's name, without `.`; none for the folder itself.

    Raises:
      BadEntryPath: it is absolute, goes up, or cannot be a path.
      UnsafeArchive: it is too deep.
    """
    if "/" not in name and len(name) <= LONGEST_NAME // 4 and name not in _SPECIAL and "\0" not in name:
        return (name,)
    parts = tuple([part for part in name.split("/") if part not in ("", ".")])
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadEntryPath(_shown(name))
    # A character is four bytes at most.
    if len(name) > LONGEST_NAME // 4 and any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        raise BadEntryPath(_shown(name))
    if len(parts) > DEEPEST:
        raise UnsafeArchive(f"{_shown(name)!r} is more than {DEEPEST} folders deep")
    return parts


def link_target(parts: tuple[str, ...], target: str) -> None:
    """Check where a symbolic link leads that is to be at `parts`.

    It may go up first, not above the folder, and then down. As no entry is written through a link, the way up is over
    real folders; the way down is over real ones or over links that were checked in the same way. So none leads out,
    however they are combined. After the first step down it may not go up again: that could be a link's other side.

    Raises:
      UnsafeArchive: it leads out, or may.
    """
    steps = [step for step in target.split("/") if step not in ("", ".")]
    up = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    if not target or "\0" in target or target.startswith("/") or up > len(parts) - 1 or ".." in steps[up:]:
        raise UnsafeArchive(f"the link {'/'.join(map(_shown, parts))!r} leads out of it, to {_shown(target)!r}")


def _shown(text: str) -> str:
    """A text that can be told: names are bytes of any kind, and may be long."""
    text = os.fsencode(text).decode(errors="replace")
    return text if len(text) <= 2 * LONGEST_NAME else text[: 2 * LONGEST_NAME] + "…"
