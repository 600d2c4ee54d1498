"""What is told of a Git repository. Paths are relative to the top of its working tree; dates are ISO 8601."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

__all__ = [
    "Author",
    "Branch",
    "Change",
    "Clone",
    "CloneProgress",
    "Commit",
    "Diff",
    "Head",
    "Log",
    "Person",
    "Status",
    "StatusBranch",
]


class StatusBranch(msgspec.Struct, frozen=True, kw_only=True):
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


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A path that is not as it was.

    Attributes:
      kind: `changed`, `renamed`, `copied`, `unmerged` or `untracked`.
      index, worktree: the letters of git-status(1), `.` for no change.
      original: where a renamed or copied one was.
    """

    path: str
    kind: str
    index: str
    worktree: str
    original: str | None = None
    submodule: bool = False


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What has changed in a working tree.

    Attributes:
      root: its top, absolute.
      truncated: there are more changes than these.
    """

    root: str
    branch: StatusBranch
    clean: bool
    changes: list[Change]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Diff:
    """A unified diff, in whatever encoding the files have.

    Attributes:
      truncated: it was cut, at the end of a line.
    """

    data: bytes
    truncated: bool


class Person(msgspec.Struct, frozen=True):
    name: str
    email: str
    date: str


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit.

    Attributes:
      id: its full name.
      refs: branches and tags that point to it.
      subject, body: of its message.
    """

    id: str
    parents: list[str]
    author: Person
    committer: Person
    refs: list[str]
    subject: str
    body: str


class Log(msgspec.Struct, frozen=True):
    """Commits, the youngest first.

    Attributes:
      truncated: there are more.
    """

    commits: list[Commit]
    truncated: bool


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A branch.

    Attributes:
      name: that of a remote has the remote's name before it.
      current: HEAD is on it.
      commit, date, subject: of its newest commit.
      ahead, behind: of the upstream; None where there is none, or it is gone.
    """

    name: str
    remote: bool
    current: bool
    commit: str
    date: str
    subject: str
    upstream: str | None = None
    ahead: int | None = None
    behind: int | None = None


class Head(msgspec.Struct, frozen=True):
    """Where HEAD is: `branch` is None where it is detached, `commit` before the first one."""

    branch: str | None
    commit: str | None


class Author(msgspec.Struct, frozen=True):
    """Who makes a commit."""

    name: str
    email: str


class Clone(msgspec.Struct, frozen=True):
    """A clone that is there.

    Attributes:
      directory: absolute.
    """

    directory: str
    branch: str | None
    commit: str | None


class CloneProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a clone is.

    Attributes:
      phase: in Git's words.
      done, total: of what the phase counts.
    """

    phase: str
    percent: int | None = None
    done: int | None = None
    total: int | None = None
