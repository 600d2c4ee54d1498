"""Names that clients give: revisions, branches, paths. None of them can become an option, or end an argument."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["checked_branch", "checked_paths", "checked_revision", "pathspecs"]

LONGEST = 1000
"""Characters of a revision or a branch."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_BAD_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|\Z)|\A[-./]|[./]\Z")
"""git check-ref-format, and a hyphen at the start."""


def checked_revision(text: str) -> str:
    """A revision in any of Git's ways to write one (gitrevisions(7)). Raises `InvalidRequest`."""
    if not text or len(text) > LONGEST or text.startswith("-") or _CONTROL.search(text) or not _encodes(text):
        raise InvalidRequest(f"this can be no revision: {text[:LONGEST]!r}")
    return text


def checked_branch(text: str) -> str:
    """The name of a branch, without `refs/heads/`. Raises `InvalidRequest`."""
    bad = text in ("", "@", "HEAD") or len(text) > LONGEST or not _encodes(text)
    if bad or _BAD_IN_BRANCH.search(text):
        raise InvalidRequest(f"this can be no name of a branch: {text[:LONGEST]!r}")
    return text


def checked_paths(paths: Iterable[str]) -> list[str]:
    """Paths as `status` tells them: relative to the top of the working tree. Raises `InvalidRequest`."""
    checked: list[str] = []
    for path in paths:
        if not path or "\0" in path or path.startswith("/") or ".." in path.split("/") or not _encodes(path):
            raise InvalidRequest(f"a path is relative to the top of the working tree, without '..': {path!r}")
        checked.append(path)
    return checked


def pathspecs(paths: Iterable[str]) -> bytes:
    """Paths as Git reads them from its standard input."""
    return b"".join(path.encode() + b"\0" for path in paths)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate
        return False
    return True
