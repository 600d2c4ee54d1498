"""Globs, as ripgrep's `-g` has them: which paths of a tree are wanted.

    *  ?      anything, one letter; within a name
    **        any number of folders, as a part of its own
    [ab] [!a] one letter of some, or none of some
    {a,b}     one of several
    !glob     not these after all; the last glob that fits decides

A glob without a slash is one of names, wherever they are; with one, it is of paths from the top. A slash at the end is
for folders only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BadGlob", "Globs"]


class BadGlob(ValueError):
    """The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Glob:
    unwanted: bool
    of_names: bool
    folders_only: bool
    pattern: re.Pattern[str]


class Globs:
    """Some globs, in the order in which they were given. Without any, everything is wanted.

    Raises:
      BadGlob
    """

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = [_parsed(glob) for glob in globs]
        self._choosy = any(not glob.unwanted for glob in self._globs)

    def wants(self, path: str, *, folder: bool = False) -> bool:
        """Whether a path, from the top, is wanted itself."""
        last = self._last(path, folder)
        return not self._choosy if last is None else not last.unwanted

    def enters(self, path: str) -> bool:
        """Whether anything in a folder may be wanted."""
        last = self._last(path, True)
        return last is None or not last.unwanted

    def _last(self, path: str, folder: bool) -> _Glob | None:
        """The last glob that fits."""
        name = path.rpartition("/")[2]
        for glob in reversed(self._globs):
            if (folder or not glob.folders_only) and glob.pattern.fullmatch(name if glob.of_names else path):
                return glob
        return None


def _parsed(text: str) -> _Glob:
    glob = text.removeprefix("!")
    folders_only = glob.endswith("/")
    path = glob.removesuffix("/")
    if not path.strip("/"):
        raise BadGlob(f"the glob {text!r} is empty")
    pattern = _Translation(text, path.removeprefix("/")).whole()
    return _Glob(glob is not text, "/" not in path, folders_only, re.compile(pattern, re.DOTALL))


class _Translation:
    """A glob on its way to be a regular expression."""

    def __init__(self, text: str, glob: str) -> None:
        self._text = text
        self._glob = glob
        self._at = 0

    def whole(self) -> str:
        parts: list[str] = []
        depth = 0
        while self._at < len(self._glob):
            letter = self._glob[self._at]
            self._at += 1
            match letter:
                case "*":
                    parts.append(self._stars())
                case "?":
                    parts.append("[^/]")
                case "[":
                    parts.append(self._class())
                case "{":
                    depth += 1
                    parts.append("(?:")
                case "," if depth:
                    parts.append("|")
                case "}" if depth:
                    depth -= 1
                    parts.append(")")
                case "\\":
                    if self._at == len(self._glob):
                        raise BadGlob(f"the glob {self._text!r} ends in a backslash")
                    parts.append(re.escape(self._glob[self._at]))
                    self._at += 1
                case _:
                    parts.append(re.escape(letter))
        if depth:
            raise BadGlob(f"the glob {self._text!r} has a brace that is not closed")
        return "".join(parts)

    def _stars(self) -> str:
        start = self._at - 1
        while self._glob[self._at : self._at + 1] == "*":
            self._at += 1
        own_part = self._at - start == 2 and (start == 0 or self._glob[start - 1] == "/")
        if own_part and self._at == len(self._glob):
            return ".+" if start else ".*"
        if own_part and self._glob[self._at] == "/":
            self._at += 1
            return "(?:.*/)?"
        return "[^/]*"

    def _class(self) -> str:
        end = self._at
        if self._glob[end : end + 1] in ("!", "^"):
            end += 1
        end = self._glob.find("]", end + 1)  # one that comes first stands for itself
        if end < 0:
            raise BadGlob(f"the glob {self._text!r} has a bracket that is not closed")
        inside, self._at = self._glob[self._at : end], end + 1
        negated = inside[0] in "!^"
        letters = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[1:] if negated else inside)
        try:
            re.compile(f"[{letters}]")
        except re.error:
            raise BadGlob(f"the glob {self._text!r} has a range that goes backwards") from None
        return f"(?!/)[^{letters}]" if negated else f"(?!/)[{letters}]"
