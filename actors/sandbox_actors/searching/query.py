"""What is searched for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import InvalidRequest
from .globs import BadGlob, Globs

__all__ = ["BadPattern", "EntryKind", "Query"]

EntryKind: TypeAlias = Literal["file", "directory"]

LONGEST = 4096
"""Characters of a pattern or a glob."""

MOST_GLOBS = 100


class BadPattern(InvalidRequest):
    """It is no regular expression. The message is of whoever would have searched."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the pattern is no regular expression: {why}")


@dataclass(frozen=True, slots=True)
class Query:
    """See the module.

    Attributes:
      pattern: a regular expression that lines are searched for; None: names are searched.
      fixed: it is a text, and nothing in it means anything else.
      globs: of the paths that are wanted, see `globs`.
      type: of what names are wanted; None: of both.
    """

    pattern: str | None = None
    fixed: bool = False
    ignore_case: bool = False
    globs: tuple[str, ...] = ()
    type: EntryKind | None = None

    def checked(self) -> Query:
        """Raises `InvalidRequest` where this makes no sense, whoever is going to search."""
        if self.pattern is not None and ("\0" in self.pattern or "\n" in self.pattern):
            raise InvalidRequest("the pattern has a NUL or a line feed: lines are searched, one by one")
        if self.pattern == "":
            raise InvalidRequest("the pattern is empty: it would be found everywhere")
        if max(len(self.pattern or ""), *map(len, self.globs), 0) > LONGEST or len(self.globs) > MOST_GLOBS:
            raise InvalidRequest(f"a pattern or glob has more than {LONGEST} letters, or there are many globs")
        try:
            Globs(self.globs)
        except (BadGlob, re.error) as error:
            raise InvalidRequest(str(error)) from None
        return self

    def expression(self) -> str | None:
        """The pattern as Python's expression.

        Raises:
          BadPattern
        """
        if self.pattern is None:
            return None
        if self.fixed:
            return re.escape(self.pattern)
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise BadPattern(str(error)) from None
        return self.pattern
