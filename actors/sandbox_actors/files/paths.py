"""Paths as clients write them: absolute, or below HOME."""

from __future__ import annotations

import os

from ..errors import InvalidRequest

__all__ = ["above", "absolute", "parts_of", "readable"]

LONGEST = 4095
"""Bytes of a path that the kernel takes."""


def absolute(path: str, home: str) -> str:
    """The absolute path that a client means.

    An absolute one is taken as it is. In a relative one `..` is refused, so that it stays below HOME as far as words
    go; what links do is another matter, see `root`.

    Raises:
      InvalidRequest: it can be no path at all, or has a `..`.
    """
    if "\0" in path:
        raise InvalidRequest("invalid path: it has a NUL character")
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise InvalidRequest("invalid path: it is not Unicode") from None
    if length > LONGEST:
        raise InvalidRequest(f"invalid path: it is longer than {LONGEST} bytes")
    if path.startswith("/"):
        return path
    parts = parts_of(path)
    if ".." in parts:
        raise InvalidRequest(f"invalid relative path: {path}")
    return f"{home.rstrip('/')}/{'/'.join(parts)}"


def parts_of(path: str) -> list[str]:
    """The names on the way; `..` is one of them, for what it means depends on links."""
    return [part for part in path.split("/") if part not in ("", ".")]


def above(path: str) -> str:
    """The path of the folder that an absolute path is in, by words."""
    return path.rstrip("/").rpartition("/")[0] or "/"


def readable(name: str) -> str:
    """A name from the disk as it can be told: bytes that are no UTF-8 are replaced."""
    return name if name.isascii() else os.fsencode(name).decode(errors="replace")
