"""Status, differences, history and branches of real repositories."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox_actors.errors import InvalidRequest, Refusal
from sandbox_actors.files import FileSystem
from sandbox_actors.git import (
    GitNotInstalled,
    RepositoryNotFound,
    read_branches,
    read_diff,
    read_head,
    read_log,
    read_status,
)
from sandbox_actors.git.repository import open_repository
from sandbox_actors.git.runner import Runner
from support.repositories import GIT, git, new_repository

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.git.repository import Repository


async def look(directory: Path, root: Path | None = None, **env: str) -> Repository:
    """A repository to look at."""
    runner = Runner({**GIT, **env}, "tests", uuid.uuid4().hex, None)
    return await open_repository(str(directory), runner, FileSystem(directory.parent, root), reading=True)


async def test_the_status_tells_every_kind_of_change(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n", b="a long enough line\n" * 5, c="3\n", d="4\n")
    (top / "a").write_text("changed\n")
    git(top, "mv", "b", "moved to")
    git(top, "rm", "--quiet", "c")
    (top / "d").write_text("staged\n")
    git(top, "add", "d")
    (top / "d").write_text("and changed again\n")
    (top / "new").mkdir()
    (top / "new" / 'ünï "quoted"\nname').write_text("x")
    repository = await look(top)
    status = await read_status(repository, limit=100)
    assert status.root == str(top)
    assert not status.clean
    assert not status.truncated
    told = {change.path: (change.kind, change.index, change.worktree, change.original) for change in status.changes}
    assert told == {
        "a": ("changed", ".", "M", None),
        "moved to": ("renamed", "R", ".", "b"),
        "c": ("changed", "D", ".", None),
        "d": ("changed", "M", "M", None),
        'new/ünï "quoted"\nname': ("untracked", "?", "?", None),
    }


async def test_a_conflict_is_told_as_unmerged(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    git(top, "switch", "--quiet", "-c", "other")
    (top / "a").write_text("theirs\n")
    git(top, "commit", "--quiet", "-am", "theirs")
    git(top, "switch", "--quiet", "main")
    (top / "a").write_text("ours\n")
    git(top, "commit", "--quiet", "-am", "ours")
    with pytest.raises(Exception, match="merge"):
        git(top, "merge", "--quiet", "other")
    repository = await look(top)
    (change,) = (await read_status(repository, limit=100)).changes
    assert (change.path, change.kind, change.index, change.worktree) == ("a", "unmerged", "U", "U")


async def test_the_status_knows_branch_upstream_and_distance(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    git(tmp_path, "clone", "--quiet", f"file://{origin}", "r")
    top = tmp_path / "r"
    git(top, "commit", "--quiet", "--allow-empty", "--message=mine")
    repository = await look(top)
    status = await read_status(repository, limit=100)
    assert status.clean
    assert status.branch.commit == git(top, "rev-parse", "HEAD").strip()
    assert (status.branch.head, status.branch.upstream) == ("main", "origin/main")
    assert (status.branch.ahead, status.branch.behind) == (1, 0)
    git(top, "checkout", "--quiet", "--detach")
    assert (await read_status(repository, limit=100)).branch.head is None


async def test_a_repository_without_a_commit_can_be_looked_at(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r")
    repository = await look(top)
    status = await read_status(repository, limit=100)
    assert (status.clean, status.branch.head, status.branch.commit) == (True, "main", None)
    assert (await read_log(repository, ref="HEAD", paths=[], limit=10, skip=0)).commits == []
    assert await read_branches(repository) == []
    assert (await read_diff(repository, ref=None, to=None, staged=False, paths=[], limit=1000)).text == b""
    head = await read_head(repository)
    assert (head.branch, head.commit) == ("main", None)


async def test_more_changes_than_asked_for_are_told_as_such(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r")
    for number in range(12):
        (top / str(number)).write_text("")
    repository = await look(top)
    status = await read_status(repository, limit=10)
    assert (len(status.changes), status.truncated) == (10, True)
    assert not (await read_status(repository, limit=12)).truncated


async def test_a_subdirectory_names_the_repository_it_is_in(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    (top / "sub" / "folder").mkdir(parents=True)
    repository = await look(top / "sub" / "folder")
    assert repository.top == str(top)


async def test_differences_are_those_git_shows(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="one\n", b="two\n")
    first = git(top, "rev-parse", "HEAD").strip()
    (top / "a").write_bytes(b"\xff\xfe not UTF-8\n")
    git(top, "add", "a")
    (top / "b").write_text("three\n")
    repository = await look(top)

    async def diff(**options: object) -> bytes:
        asked = {"ref": None, "to": None, "staged": False, "paths": [], "limit": 100_000, **options}
        return (await read_diff(repository, **asked)).text  # type: ignore[arg-type]

    assert await diff() == git(top, "diff").encode()
    staged = await diff(staged=True)
    assert b"+\xff\xfe not UTF-8\n" in staged
    assert b"three" not in staged
    both = await diff(ref="HEAD")
    assert both.count(b"diff --git a/") == 2
    assert await diff(ref="HEAD", paths=["b"]) == await diff(paths=["b"])
    git(top, "commit", "--quiet", "-am", "second")
    assert b"diff --git a/a b/a" in await diff(ref=first, to="main")
    assert await diff(ref="HEAD~1", to="HEAD") == await diff(ref=first, to="main")
    assert await diff() == b""


async def test_a_long_difference_is_cut_at_a_line_and_told_so(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="")
    (top / "a").write_text("0123456789\n" * 100_000)
    repository = await look(top)
    found = await read_diff(repository, ref=None, to=None, staged=False, paths=[], limit=1000)
    assert found.truncated
    assert 900 < len(found.text) <= 1000
    assert found.text.endswith(b"+0123456789\n")


async def test_the_log_tells_commits_as_they_were_written(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    message = "Sübject \x1f line\n\nBody with\n\n  lines,\t\"quotes\" and 'more'\n"
    git(top, "commit", "--quiet", "--allow-empty", "--file=-", input=message)
    git(top, "tag", "v1")
    repository = await look(top)
    log = await read_log(repository, ref="HEAD", paths=[], limit=10, skip=0)
    assert not log.truncated
    second, first = log.commits
    assert second.subject == "Sübject \x1f line"
    assert second.body == "Body with\n\n  lines,\t\"quotes\" and 'more'"
    assert second.parents == [first.id]
    assert second.refs == ["HEAD -> main", "tag: v1"]
    assert (first.author.name, first.author.email, first.subject, first.body) == (
        "Ada",
        "ada@example.org",
        "first",
        "",
    )
    one = await read_log(repository, ref="v1", paths=[], limit=1, skip=0)
    assert ([commit.id for commit in one.commits], one.truncated) == ([second.id], True)
    rest = await read_log(repository, ref="main", paths=[], limit=1, skip=1)
    assert ([commit.id for commit in rest.commits], rest.truncated) == ([first.id], False)
    of_path = await read_log(repository, ref="HEAD", paths=["a"], limit=10, skip=0)
    assert [commit.id for commit in of_path.commits] == [first.id]


async def test_branches_are_listed_with_their_upstreams(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    git(origin, "branch", "feature/x")
    git(tmp_path, "clone", "--quiet", f"file://{origin}", "r")
    top = tmp_path / "r"
    git(top, "branch", "--no-track", "mine")
    git(top, "commit", "--quiet", "--allow-empty", "--message=ahead")
    repository = await look(top)
    branches = {(branch.name, branch.remote): branch for branch in await read_branches(repository)}
    assert set(branches) == {("main", False), ("mine", False), ("origin/main", True), ("origin/feature/x", True)}
    main = branches["main", False]
    assert (main.current, main.upstream, main.ahead, main.behind) == (True, "origin/main", 1, 0)
    assert main.subject == "ahead"
    mine = branches["mine", False]
    assert (mine.current, mine.upstream, mine.ahead, mine.behind) == (False, None, None, None)


async def test_a_directory_outside_of_any_repository_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound, match="not a Git working tree"):
        await look(tmp_path, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    with pytest.raises(InvalidRequest, match="path not found"):
        await look(tmp_path / "not there")


async def test_a_bare_repository_has_no_working_tree(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(RepositoryNotFound):
        await look(tmp_path / "bare.git")


async def test_a_working_tree_above_the_root_is_out_of_reach(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    (top / "sub").mkdir()
    with pytest.raises(Refusal, match="outside of the root"):
        await look(top / "sub", root=top / "sub")
    repository = await look(top, root=top)
    assert repository.top == str(top)


async def test_without_git_the_answer_says_what_to_install(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    with pytest.raises(GitNotInstalled, match="install Git"):
        await look(top, PATH=str(tmp_path))


async def test_variables_that_would_lead_elsewhere_are_not_inherited(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    other = new_repository(tmp_path / "other", b="1\n")
    repository = await look(top, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other), GIT_TRACE="1")
    assert repository.top == str(top)
    assert [change.path for change in (await read_status(repository, limit=10)).changes] == []


@pytest.mark.parametrize(
    "revision",
    ["", "-", "--output=marker", "-Omarker", "no-such", "HEAD..main", "^HEAD", "a\0b", "a\nb", "x" * 2000, "HEAD:a"],
)
async def test_what_is_no_commit_is_refused_and_never_an_option(tmp_path: Path, revision: str) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    repository = await look(top)
    with pytest.raises(InvalidRequest):
        await read_log(repository, ref=revision, paths=[], limit=10, skip=0)
    with pytest.raises(InvalidRequest):
        await read_diff(repository, ref=revision, to=None, staged=False, paths=[], limit=1000)
    assert sorted(each.name for each in top.iterdir()) == [".git", "a"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\0b"])
async def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    repository = await look(top)
    with pytest.raises(InvalidRequest, match="relative to the top"):
        await read_diff(repository, ref=None, to=None, staged=False, paths=[path], limit=1000)


@pytest.mark.parametrize("path", ["--output=marker", ":(top)b", "*", ":!a"])
async def test_a_path_is_taken_by_the_letter(tmp_path: Path, path: str) -> None:
    top = new_repository(tmp_path / "r", a="1\n", b="2\n")
    (top / "a").write_text("changed\n")
    repository = await look(top)
    found = await read_diff(repository, ref=None, to=None, staged=False, paths=[path], limit=1000)
    assert found.text == b""
    assert not (top / "marker").exists()
