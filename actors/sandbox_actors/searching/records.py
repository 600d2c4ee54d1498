"""What a search finds, as the program that searches tells it, line by line."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .excerpt import Span

__all__ = ["End", "Line", "Name", "Record"]


class Name(msgspec.Struct, frozen=True, tag="name"):
    """A file or folder. `path` is from the top; `target` is only of a link."""

    path: str
    mode: int
    size: int
    mtime_ns: int
    target: str | None


class Line(msgspec.Struct, frozen=True, tag="line"):
    """A line of a file.

    Attributes:
      path: from the top.
      line, column: of the first match, from 1; in characters.
      text: of the line, or the part of it round the first match.
      spans: where in the text the matches are.
      cut: whether there is more of the line, or more matches in it.
    """

    path: str
    line: int
    column: int
    text: str
    spans: list[Span]
    cut: bool


class End(msgspec.Struct, frozen=True, tag="end"):
    """All was searched, but for what could not be read."""

    passed_over: int


Record: TypeAlias = Name | Line | End
