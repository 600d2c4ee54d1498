"""What was changed: differences, commits, branches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from .errors import GitFailed
from .revisions import checked_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .repository import Repository

__all__ = [
    "BranchInfo",
    "Commit",
    "Diff",
    "Head",
    "Log",
    "Person",
    "read_branches",
    "read_diff",
    "read_head",
    "read_log",
]

_COMMIT_FORMAT = "%x00".join(("%H", "%P", "%an", "%ae", "%aI", "%cn", "%ce", "%cI", "%D", "%s", "%b"))
_FIELDS = 11

_BRANCH_FORMAT = "%00".join(
    (
        "%(refname)",
        "%(objectname)",
        "%(symref)",
        "%(HEAD)",
        "%(upstream:short)",
        "%(upstream:track,nobracket)",
        "%(committerdate:iso-strict)",
        "%(contents:subject)",
    )
)
_AHEAD = re.compile(r"ahead (\d+)")
_BEHIND = re.compile(r"behind (\d+)")


class Person(msgspec.Struct, frozen=True):
    name: str
    email: str
    date: str


class Commit(msgspec.Struct, frozen=True):
    """A commit.

    Attributes:
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
    commits: list[Commit]
    truncated: bool
    """Whether there are more than were asked for, or than could be held."""


class BranchInfo(msgspec.Struct, frozen=True):
    """A branch.

    Attributes:
      name: a remote's has the remote's name before it.
      current: whether HEAD is on it.
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
    """Where HEAD is: the branch is None where it is detached, the commit before the first one."""

    branch: str | None
    commit: str | None


class Diff(msgspec.Struct, frozen=True):
    """A unified diff, as bytes: contents may be in any encoding."""

    text: bytes
    truncated: bool


async def read_diff(
    repository: Repository, *, ref: str | None, to: str | None, staged: bool, paths: Sequence[str], limit: int
) -> Diff:
    """The difference between two states.

    Args:
      ref: a revision; None for the index, or for HEAD where `staged`.
      to: another revision; None for the working tree, or for the index where `staged`.
      limit: bytes; what is longer is cut at the end of a line.
    """
    commits = [await repository.known_commit(each) for each in (ref, to) if each is not None]
    output = await repository.run(
        "diff",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--no-relative",
        "--submodule=short",
        "--ignore-submodules=dirty",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        *(["--cached"] if staged else []),
        *commits,
        "--",
        *checked_paths(paths),
        limit=limit,
    )
    output.checked("git diff")
    text = output.data
    if output.truncated:
        text = text[: text.rfind(b"\n") + 1]
    return Diff(text, output.truncated)


async def read_log(repository: Repository, *, ref: str, paths: Sequence[str], limit: int, skip: int) -> Log:
    """Commits, the youngest first; none before the first one."""
    commit = await (repository.commit(ref) if ref == "HEAD" else repository.known_commit(ref))
    if commit is None:
        return Log([], truncated=False)
    output = await repository.run(
        "log",
        "-z",
        f"--format={_COMMIT_FORMAT}",
        "--encoding=UTF-8",
        "--no-color",
        "--no-patch",
        "--no-show-signature",
        "--decorate=short",
        f"--max-count={limit + 1}",
        f"--skip={skip}",
        commit,
        "--",
        *checked_paths(paths),
    )
    output.checked("git log")
    fields = output.data.decode(errors="replace").removesuffix("\0").split("\0") if output.data else []
    whole = len(fields) // _FIELDS - (1 if output.truncated and len(fields) % _FIELDS == 0 else 0)
    commits = [_commit(fields[_FIELDS * number : _FIELDS * (number + 1)]) for number in range(whole)]
    return Log(commits[:limit], output.truncated or len(commits) > limit)


def _commit(fields: Sequence[str]) -> Commit:
    id, parents, name, email, date, c_name, c_email, c_date, refs, subject, body = fields
    return Commit(
        id,
        parents.split(),
        Person(name, email, date),
        Person(c_name, c_email, c_date),
        [ref.strip() for ref in refs.split(",") if ref],
        subject,
        body.rstrip("\n"),
    )


async def read_head(repository: Repository) -> Head:
    output = await repository.run("symbolic-ref", "--quiet", "--short", "HEAD")
    branch = output.data.decode(errors="replace").removesuffix("\n") if output.code == 0 else None
    return Head(branch, await repository.commit("HEAD"))


async def read_branches(repository: Repository) -> list[BranchInfo]:
    """All branches: our own first, then those of remotes as we know them."""
    output = await repository.run("for-each-ref", f"--format={_BRANCH_FORMAT}", "refs/heads/", "refs/remotes/")
    output.checked("git for-each-ref")
    if output.truncated:
        raise GitFailed("git for-each-ref", None, ["there are too many branches to list"])
    lines = output.data.decode(errors="replace").splitlines()
    return [branch for line in lines if (branch := _branch(line.split("\0"))) is not None]


def _branch(fields: Sequence[str]) -> BranchInfo | None:
    ref, commit, target, head, upstream, track, date, subject = fields
    _, kind, name = ref.split("/", 2)
    if target:  # refs/remotes/origin/HEAD: another name for a branch
        return None
    ahead, behind = _AHEAD.search(track), _BEHIND.search(track)
    tracked = bool(upstream) and track != "gone"
    return BranchInfo(
        name,
        kind == "remotes",
        head == "*",
        commit,
        date,
        subject,
        upstream or None,
        (int(ahead[1]) if ahead else 0) if tracked else None,
        (int(behind[1]) if behind else 0) if tracked else None,
    )
