"""What has changed, in the order in which it did, without repetitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Change", "ChangeKind", "Changes"]

ChangeKind: TypeAlias = Literal["created", "modified", "deleted", "moved"]


@dataclass(frozen=True, slots=True)
class Change:
    """See the module.

    Attributes:
      path: absolute; of what was moved, the new one.
      folder: whether it is a folder.
      source: of what was moved, the old path.
    """

    kind: ChangeKind
    path: str
    folder: bool
    source: str | None = None


class Changes:
    """The changes of a short while.

    What happens to a path several times in a row is one change, and to be written to is part of being created. Nothing
    else is merged: what was created and deleted is told as both.
    """

    def __init__(self) -> None:
        self._changes: list[Change | None] = []
        self._last: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._changes)

    def add(self, change: Change) -> None:
        before = self._kind(change.path)
        if change.kind == before != "moved" or (change.kind == "modified" and before in ("created", "moved")):
            return
        self._last[change.path] = len(self._changes)
        self._changes.append(change)

    def move(self, change: Change) -> None:
        """Add a move, of which the first half was added as a deletion: that it was is not told.

        What was found in its new place before the move was heard of stays created there and deleted here.
        """
        assert change.source is not None
        if self._kind(change.path) == "created":
            return
        if self._kind(change.source) == "deleted":
            self._changes[self._last.pop(change.source)] = None
        self.add(change)

    def _kind(self, path: str) -> ChangeKind | None:
        """What happened to a path last."""
        last = self._last.get(path)
        change = None if last is None else self._changes[last]
        return None if change is None else change.kind

    def told(self) -> list[Change]:
        return [change for change in self._changes if change is not None]
