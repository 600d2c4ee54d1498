"""The places that a tool call touches, compared with the path patterns of rules.

A place is a normal absolute path, or None where what the agent has written cannot be told: `~` and URLs mean something
else to every program. A place that cannot be told fits no pattern.

    *  ?  [ab]    within a name, as in the shell
    **            any number of folders, as a part of its own; at the end, everything below
"""

from __future__ import annotations

import posixpath
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Place", "check_pattern", "fits", "normal", "place_of"]

Place: TypeAlias = "str | None"

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?i:file):")


def place_of(written: str, cwd: str) -> Place:
    """The place that is meant by what an agent has written, seen from a directory."""
    if URL.match(written):
        try:
            url = urlsplit(written)
        except ValueError:
            return None
        if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
            return None
        written = unquote(url.path)
        if not written.startswith("/"):
            return None
    if not written or written.startswith("~") or "\0" in written:
        return None
    return normal(posixpath.join(cwd, written))


def normal(path: str) -> str:
    """An absolute path without `.`, `..` and `//`, by words."""
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def check_pattern(pattern: str) -> None:
    """Raises `ValueError` if nothing sensible could fit."""
    if pattern.startswith("~") or "\0" in pattern or ".." in pattern.split("/"):
        raise ValueError(f"the path pattern {pattern!r} must be absolute, or relative without '~' and '..'")
    if not _names(pattern):
        raise ValueError(f"the path pattern {pattern!r} names nothing; everything is '/**'")


def fits(pattern: str, place: Place, cwd: str) -> bool:
    """Whether a place is one of those that a pattern means, seen from a directory."""
    if place is None:
        return False
    names = _names(place)
    if not pattern.startswith("/"):
        above = _names(normal(cwd))
        if names[: len(above)] != above:
            return False
        names = names[len(above) :]
    wanted = _names(pattern)
    if pattern.endswith("/"):
        wanted.append("**")
    if wanted[-1] == "**":
        wanted.append("*")  # below a folder, which is not the folder itself
    return _fit(wanted, names)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _fit(wanted: Sequence[str], names: Sequence[str]) -> bool:
    """Whether names fit the parts of a pattern. Only the latest `**` ever needs to take more, so this takes no time."""
    at = name = 0
    stars: tuple[int, int] | None = None
    while name < len(names):
        if at < len(wanted) and wanted[at] == "**":
            stars, at = (at, name), at + 1
        elif at < len(wanted) and fnmatchcase(names[name], wanted[at]):
            at, name = at + 1, name + 1
        elif stars is not None:
            stars = stars[0], stars[1] + 1
            at, name = stars[0] + 1, stars[1]
        else:
            return False
    return all(part == "**" for part in wanted[at:])
