"""Commits, branches and checkouts in real repositories."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import FileSystem
from sandbox_actors.git import (
    Author,
    GitFailed,
    add,
    checkout_branch,
    checkout_commit,
    commit,
    create_branch,
    delete_branch,
    read_head,
    restore,
)
from sandbox_actors.git.repository import open_repository
from sandbox_actors.git.runner import Runner
from support.repositories import GIT, git, new_repository

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.git.repository import Repository

ADA = Author("Ada Lovelace", "ada@example.org")
NOBODY = {name: value for name, value in GIT.items() if not name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))}


async def to_change(directory: Path, environment: dict[str, str] = GIT) -> Repository:
    runner = Runner(environment, "tests", uuid.uuid4().hex, None)
    return await open_repository(str(directory), runner, FileSystem(directory.parent), reading=False)


async def commit_index(repository: Repository, message: str = "m", author: Author | None = None) -> str:
    return await commit(repository, message, author=author, paths=[], everything=False, empty=False)


async def test_what_is_in_the_index_is_committed_with_message_and_author(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    (top / "b").write_text("2\n")
    (top / "c").write_text("3\n")
    repository = await to_change(top, NOBODY)
    await add(repository, ["b"])
    message = "-m Sübject\n\n# not a comment\nCo-Authored-By: x"
    made = await commit_index(repository, message, ADA)
    assert made == git(top, "rev-parse", "HEAD").strip()
    shown = git(top, "show", "--no-patch", "--format=%an|%ae|%cn|%ce|%B", "HEAD").strip()
    assert shown == f"Ada Lovelace|ada@example.org|Ada Lovelace|ada@example.org|{message}"
    assert git(top, "ls-tree", "--name-only", "HEAD").split() == ["a", "b"]


async def test_only_the_named_paths_are_committed(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n", b="1\n")
    for name in ("a", "b", "-c", "d *"):
        (top / name).write_text("2\n")
    git(top, "add", "b")
    repository = await to_change(top)
    await commit(repository, "m", author=None, paths=["a", "-c", "d *"], everything=False, empty=False)
    shown = git(top, "show", "--name-only", "--format=", "HEAD").splitlines()
    assert sorted(shown) == ["-c", "a", "d *"]
    assert git(top, "diff", "--cached", "--name-only").split() == ["b"]


async def test_everything_is_committed_deletions_and_new_files_included(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n", b="1\n")
    (top / "a").unlink()
    (top / "new").write_text("")
    repository = await to_change(top)
    await commit(repository, "m", author=None, paths=[], everything=True, empty=False)
    assert git(top, "ls-tree", "--name-only", "HEAD").split() == ["b", "new"]


async def test_an_empty_commit_is_refused_unless_asked_for(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    repository = await to_change(top)
    with pytest.raises(GitFailed, match=r"^git commit: nothing to commit, working tree clean$") as failed:
        await commit_index(repository)
    assert (failed.value.code, failed.value.stderr[0]) == (1, "On branch main")
    (top / "a").write_text("2\n")
    with pytest.raises(GitFailed, match=r"^git commit: no changes added to commit"):
        await commit_index(repository)
    made = await commit(repository, "m", author=None, paths=[], everything=False, empty=True)
    assert made == git(top, "rev-parse", "HEAD").strip()


async def test_what_git_says_on_its_output_is_told_without_secrets(tmp_path: Path) -> None:
    """The names of files are in it, and a bound is on it."""
    top = new_repository(tmp_path / "r", a="1\n")
    (top / "the-key-sk-ant-0123456789").write_text("")
    for number in range(30):
        (top / f"z{number:02}").write_text("")
    with pytest.raises(GitFailed, match="nothing added to commit but untracked files present") as failed:
        await commit_index(await to_change(top))
    assert len(failed.value.stderr) <= 20
    for number in range(30):
        (top / f"z{number:02}").unlink()
    with pytest.raises(GitFailed) as failed:
        await commit_index(await to_change(top, {**GIT, "GIT_HTTP_TOKEN": "the-key-sk-ant-0123456789"}))
    assert "[redacted]" in failed.value.stderr
    assert "sk-ant" not in "".join(failed.value.stderr)


async def test_the_first_commit_of_a_repository_can_be_made(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r")
    (top / "a").write_text("1\n")
    repository = await to_change(top)
    await add(repository, None)
    assert await commit_index(repository) == git(top, "rev-parse", "main").strip()


async def test_without_an_author_git_says_who_is_missing(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    repository = await to_change(top, {**NOBODY, "GIT_CONFIG_GLOBAL": str(tmp_path / "config")})
    (tmp_path / "config").write_text("[user]\n\tuseConfigOnly = true\n")
    with pytest.raises(GitFailed, match="no email was given"):
        await commit(repository, "m", author=None, paths=[], everything=False, empty=True)


@pytest.mark.parametrize("author", [Author("", "a@b"), Author("a", " "), Author("a <b>", "c"), Author("a\nb", "c")])
async def test_an_author_that_git_would_read_otherwise_is_refused(tmp_path: Path, author: Author) -> None:
    repository = await to_change(new_repository(tmp_path / "r", a="1\n"))
    with pytest.raises(InvalidRequest, match="author"):
        await commit(repository, "m", author=author, paths=[], everything=False, empty=True)
    with pytest.raises(InvalidRequest, match="message"):
        await commit_index(repository, " \n")


async def test_a_hook_runs_and_its_last_words_are_told(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    hook = top / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'the linter says no' >&2\nexit 1\n")
    hook.chmod(0o755)
    repository = await to_change(top)
    with pytest.raises(GitFailed, match="the linter says no") as failed:
        await commit(repository, "m", author=None, paths=[], everything=False, empty=True)
    assert failed.value.details == {"exitCode": 1, "stderr": ["the linter says no"]}


async def test_branches_are_made_and_deleted(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    first = git(top, "rev-parse", "HEAD").strip()
    git(top, "commit", "--quiet", "--allow-empty", "--message=second")
    repository = await to_change(top)
    await create_branch(repository, "feature/ü", "HEAD~1")
    assert git(top, "rev-parse", "feature/ü").strip() == first
    with pytest.raises(GitFailed, match="already exists"):
        await create_branch(repository, "feature/ü", "HEAD")
    await delete_branch(repository, "feature/ü", force=False)
    await create_branch(repository, "other", "HEAD")
    await checkout_branch(repository, "other", start=None, force=False)
    git(top, "commit", "--quiet", "--allow-empty", "--message=nowhere else")
    await checkout_branch(repository, "main", start=None, force=False)
    with pytest.raises(GitFailed, match="not fully merged"):
        await delete_branch(repository, "other", force=False)
    await delete_branch(repository, "other", force=True)
    assert git(top, "branch", "--format=%(refname:short)").split() == ["main"]


BAD_BRANCHES = [
    *["", "-", "-d", "--force", "HEAD", "@", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a@{1}"],
    *["/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock", "a.lock/b", "a\nb", "a\0b", "\x7f", "x" * 2000, "\ud800"],
]


@pytest.mark.parametrize("name", BAD_BRANCHES)
async def test_what_is_no_name_of_a_branch_is_refused(tmp_path: Path, name: str) -> None:
    repository = await to_change(new_repository(tmp_path / "r", a="1\n"))
    with pytest.raises(InvalidRequest, match="no name of a branch"):
        await create_branch(repository, name, "HEAD")
    with pytest.raises(InvalidRequest, match="no name of a branch"):
        await delete_branch(repository, name, force=True)
    with pytest.raises(InvalidRequest, match="no name of a branch"):
        await checkout_branch(repository, name, start=None, force=False)


async def test_a_checkout_goes_to_a_branch_or_makes_it_or_follows_a_remotes(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    git(origin, "branch", "theirs")
    git(tmp_path, "clone", "--quiet", f"file://{origin}", "r")
    top = tmp_path / "r"
    repository = await to_change(top)
    await checkout_branch(repository, "mine", start="HEAD", force=False)
    assert (await read_head(repository)).branch == "mine"
    await checkout_branch(repository, "theirs", start=None, force=False)
    assert git(top, "rev-parse", "--abbrev-ref", "@{upstream}").strip() == "origin/theirs"
    with pytest.raises(GitFailed, match="invalid reference: nobodys"):
        await checkout_branch(repository, "nobodys", start=None, force=False)
    await checkout_commit(repository, "mine", force=False)
    head = await read_head(repository)
    assert (head.branch, head.commit) == (None, git(top, "rev-parse", "mine").strip())


async def test_a_checkout_does_not_lose_changes_unless_told_to(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    git(top, "switch", "--quiet", "-c", "other")
    (top / "a").write_text("2\n")
    git(top, "commit", "--quiet", "-am", "2")
    (top / "a").write_text("precious\n")
    repository = await to_change(top)
    for checkout in (checkout_branch(repository, "main", start=None, force=False),):
        with pytest.raises(GitFailed, match="would be overwritten"):
            await checkout
    assert (top / "a").read_text() == "precious\n"
    await checkout_branch(repository, "main", start=None, force=True)
    assert (top / "a").read_text() == "1\n"


async def test_paths_are_put_back_by_the_letter(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n", b="1\n")
    git(top, "commit", "--quiet", "--allow-empty", "--message=second")
    for name in ("a", "b"):
        (top / name).write_text("2\n")
    repository = await to_change(top)
    with pytest.raises(GitFailed, match="did not match"):
        await restore(repository, ["*"], None)
    await restore(repository, ["a"], None)
    assert ((top / "a").read_text(), (top / "b").read_text()) == ("1\n", "2\n")
    await restore(repository, ["b"], "HEAD~1")
    assert (top / "b").read_text() == "1\n"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a\0b"])
async def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    repository = await to_change(new_repository(tmp_path / "r", a="1\n"))
    with pytest.raises(InvalidRequest, match="relative to the top"):
        await add(repository, [path])
    with pytest.raises(InvalidRequest, match="relative to the top"):
        await restore(repository, [path], None)
