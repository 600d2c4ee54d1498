"""What has changed in a working tree (git-status(1), porcelain format version 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .repository import Repository

__all__ = ["Branch", "Change", "Status", "parse_status", "read_status"]

Kind: TypeAlias = Literal["changed", "renamed", "copied", "unmerged", "untracked"]


class Branch(msgspec.Struct, frozen=True, rename="camel"):
    """Where HEAD is.

    Attributes:
      head: the branch; None where HEAD is detached.
      commit: None before the first one.
      ahead, behind: of the upstream; None where it is not there.
    """

    head: str | None = None
    commit: str | None = None
    upstream: str | None = None
    ahead: int | None = None
    behind: int | None = None


class Change(msgspec.Struct, frozen=True, rename="camel"):
    """One path.

    Attributes:
      index, worktree: the letters of git-status(1), `.` for no change.
      original: where a renamed or copied one was.
      submodule: whether it is one.
    """

    path: str
    kind: Kind
    index: str
    worktree: str
    original: str | None = None
    submodule: bool = False


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """See the module.

    Attributes:
      root: the top of the working tree; paths are relative to it.
      clean: whether nothing has changed.
      truncated: whether there are more changes than these.
    """

    root: str
    branch: Branch
    clean: bool
    changes: list[Change]
    truncated: bool


async def read_status(repository: Repository, *, limit: int) -> Status:
    """The status, with so many changes at most."""
    output = await repository.run(
        "status",
        "--porcelain=v2",
        "--branch",
        "-z",
        "--untracked-files=all",
        "--ignored=no",
        "--ignore-submodules=dirty",
        "--renames",
    )
    output.checked("git status")
    data = output.data.rpartition(b"\0")[0] if output.truncated else output.data
    branch, changes = parse_status(data)
    return Status(
        repository.top.encode(errors="surrogateescape").decode(errors="replace"),
        branch,
        not changes,
        changes[:limit],
        output.truncated or len(changes) > limit,
    )


def parse_status(data: bytes) -> tuple[Branch, list[Change]]:
    """What the command has written."""
    lines = iter(data.decode(errors="replace").rstrip("\0").split("\0"))
    told: dict[str, str] = {}
    changes: list[Change] = []
    for line in lines:
        if line.startswith("# "):
            name, _, value = line[2:].partition(" ")
            told[name] = value
        elif line and (change := _change(line, lines)) is not None:
            changes.append(change)
    return _branch(told), changes


def _branch(told: dict[str, str]) -> Branch:
    head, commit = told.get("branch.head"), told.get("branch.oid")
    ahead, _, behind = told.get("branch.ab", "").partition(" ")
    return Branch(
        None if head == "(detached)" else head,
        None if commit == "(initial)" else commit,
        told.get("branch.upstream"),
        int(ahead) if ahead else None,
        -int(behind) if behind else None,
    )


def _change(line: str, following: Iterator[str]) -> Change | None:
    kind, _, rest = line.partition(" ")
    match kind:
        case "1":
            letters, submodule, *_, path = rest.split(" ", 7)
            return Change(path, "changed", letters[0], letters[1], submodule=submodule[0] == "S")
        case "2":
            letters, submodule, *_, score, path = rest.split(" ", 8)
            moved: Kind = "copied" if score[0] == "C" else "renamed"
            return Change(path, moved, letters[0], letters[1], next(following, None), submodule[0] == "S")
        case "u":
            letters, submodule, *_, path = rest.split(" ", 9)
            return Change(path, "unmerged", letters[0], letters[1], submodule=submodule[0] == "S")
        case "?":
            return Change(rest, "untracked", "?", "?")
        case _:
            return None
