"""Searches in the sandbox: files by their names, lines by what is in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from .entries import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .transport import Transport

__all__ = ["Found", "Line", "Matches", "Searches", "Span"]

TIMEOUT = 30.0
"""Seconds that the server searches, where nothing else is asked for."""

MARGIN = 30.0
"""Seconds that an answer may take beyond that."""


class _Summary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is told of a search.

    Attributes:
      path: that was searched, absolute.
      engine: `ripgrep` or `python`: they know slightly different expressions.
      truncated: this is not all; `reason` says why: `limit` or `deadline`.
      passed_over: how much could not be read.
    """

    path: str
    engine: str
    truncated: bool
    reason: str | None = None
    passed_over: int = 0


class Found(_Summary, frozen=True, rename="camel", kw_only=True):
    """What `Files.find` has found."""

    entries: list[Entry]


class Span(msgspec.Struct, frozen=True):
    """A match within the text of a line, in characters, as in a slice."""

    start: int
    end: int


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line that matches.

    Attributes:
      line, column: of the first match, from 1.
      cut: `text` is only a part of the line.
    """

    path: str
    line: int
    column: int
    text: str
    matches: list[Span]
    cut: bool = False


class Matches(_Summary, frozen=True, rename="camel", kw_only=True):
    """What `Files.grep` has found."""

    matches: list[Line]


class Searches:
    """What `Files` finds."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def find(
        self,
        path: str,
        *,
        globs: Sequence[str] = (),
        type: Literal["file", "directory"] | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Found:
        """Files and folders by their names. Hidden ones are found, too, and no link is followed.

        Args:
          globs: only these, such as `*.py` or `src/**/*.py`; `!` leaves out; the last one that fits decides.
          limit: 1,000 unless given, up to 10,000.
          timeout: whole seconds, 30 unless given, up to 600. What was found by then is the answer.
        """
        params = {"path": path, "glob": globs, "type": type, "limit": limit, "timeout": _seconds(timeout)}
        return await self._transport.ask(Found, "GET", "/v1/fs/find", params=params, silence=_silence(timeout))

    async def grep(
        self,
        path: str,
        pattern: str,
        *,
        fixed: bool = False,
        ignore_case: bool = False,
        globs: Sequence[str] = (),
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Matches:
        """Lines of a file, or of all files in a folder but for binary ones.

        Args:
          pattern: a regular expression, of one line; plain text if `fixed`.
          globs, limit, timeout: as of `find`.
        """
        params = {
            "path": path,
            "pattern": pattern,
            "fixed": fixed or None,
            "ignoreCase": ignore_case or None,
            "glob": globs,
            "limit": limit,
            "timeout": _seconds(timeout),
        }
        return await self._transport.ask(Matches, "GET", "/v1/fs/grep", params=params, silence=_silence(timeout))


def _seconds(timeout: float | None) -> int | None:
    return None if timeout is None else math.ceil(timeout)


def _silence(timeout: float | None) -> float:
    return (TIMEOUT if timeout is None else timeout) + MARGIN
