"""Repositories that would like to run something for whoever looks at them."""

from __future__ import annotations

import os
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import FileSystem
from sandbox_actors.git import GitFailed, open_git, read_branches, read_diff, read_head, read_log, read_status
from support.repositories import GIT, git, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUN = uuid.uuid4().hex


def config(top: Path, **settings: str) -> None:
    for name, value in settings.items():
        git(top, "config", name.replace("__", "."), value)


def trap(top: Path, then: str = "exec cat") -> str:
    """A program that leaves a mark when it is run, and passes its input on."""
    program = top.parent / "trap"
    program.write_text(f'#!/bin/sh\ntouch "{top.parent / "sprung"}"\n{then}\n')
    program.chmod(0o755)
    return str(program)


def monitor(top: Path) -> list[str]:
    config(top, core__fsmonitor=trap(top))
    return ["status"]


def hook(top: Path) -> list[str]:
    (top / ".git" / "hooks").mkdir(exist_ok=True)
    os.symlink(trap(top), top / ".git" / "hooks" / "post-index-change")
    os.utime(top / "a", (1, 1))  # so that the index is written anew
    return ["status"]


def hooks_elsewhere(top: Path) -> list[str]:
    (top.parent / "hooks").mkdir()
    os.symlink(trap(top), top.parent / "hooks" / "post-index-change")
    config(top, core__hooksPath=str(top.parent / "hooks"))
    os.utime(top / "a", (1, 1))
    return ["status"]


def external_diff(top: Path) -> list[str]:
    config(top, diff__external=trap(top))
    return ["diff"]


def driver(top: Path) -> list[str]:
    config(top, diff__evil__command=trap(top))
    (top / ".git" / "info" / "attributes").write_text("* diff=evil\n")
    return ["diff"]


def text_conversion(top: Path) -> list[str]:
    config(top, diff__evil__textconv=trap(top))
    (top / ".git" / "info" / "attributes").write_text("* diff=evil\n")
    return ["diff"]


def filter_(top: Path, name: str = "evil") -> list[str]:
    git(top, "config", f"filter.{name}.clean", trap(top))
    git(top, "config", f"filter.{name}.required", "true")
    (top / ".gitattributes").write_text(f"* filter={name}\n")
    return ["status"]


def long_running_filter(top: Path) -> list[str]:
    git(top, "config", "filter.Evil.Name.process", trap(top))
    (top / ".git" / "info" / "attributes").write_text("* filter=Evil.Name\n")
    return ["diff"]


def included_filter(top: Path) -> list[str]:
    (top / "more").write_text(f'[filter "evil"]\n\tclean = {trap(top)}\n')
    config(top, include__path=str(top / "more"))
    (top / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    return ["diff"]


def signature(top: Path) -> list[str]:
    commit = git(top, "cat-file", "commit", "HEAD").replace("\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n\n", 1)
    name = git(top, "hash-object", "-t", "commit", "-w", "--stdin", input=commit).strip()
    git(top, "update-ref", "refs/heads/main", name)
    config(top, log__showSignature="true", gpg__program=trap(top))
    return ["log"]


def missing_objects(top: Path) -> list[str]:
    config(
        top,
        core__repositoryFormatVersion="1",
        extensions__partialClone="origin",
        remote__origin__promisor="true",
        remote__origin__url=f"file://{top}",
        remote__origin__uploadpack=trap(top, "exit 1"),
    )
    blob = git(top, "rev-parse", "HEAD:a").strip()
    (top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    return ["diff"]


TRAPS = [
    monitor,
    hook,
    hooks_elsewhere,
    external_diff,
    driver,
    text_conversion,
    filter_,
    long_running_filter,
    included_filter,
    signature,
    missing_objects,
]


@pytest.mark.parametrize("lay", TRAPS, ids=lambda lay: lay.__name__)
async def test_looking_at_a_repository_runs_nothing_of_it(tmp_path: Path, lay: Callable[[Path], list[str]]) -> None:
    top = new_repository(tmp_path / "r", a="1\n", b="2\n")
    words = lay(top)
    sprung = tmp_path / "sprung"
    (top / "a").write_text("2\n")  # of the same size, so that its contents have to be looked at

    async with (
        open_git(GIT, FileSystem(tmp_path), owner="tests", run=RUN, reaper=None) as opened,
        opened.looking(str(top)) as repository,
    ):
        await read_status(repository, limit=100)
        await read_branches(repository)
        await read_head(repository)
        await read_log(repository, ref="HEAD", paths=["a"], limit=10, skip=0)
        for ref, staged in ((None, False), (None, True), ("HEAD", False)):
            try:
                await read_diff(repository, ref=ref, to=None, staged=staged, paths=[], limit=10_000)
            except GitFailed:
                assert lay is missing_objects
    assert not sprung.exists()

    # The trap is one: Git as it comes springs it.
    with trio.fail_after(20):
        await trio.run_process(["git", *words], cwd=top, env=GIT, capture_stdout=True, capture_stderr=True, check=False)
    assert sprung.exists()


async def test_a_filter_that_cannot_be_named_on_the_command_line_keeps_us_out(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    filter_(top, "a=b")
    async with open_git(GIT, FileSystem(tmp_path), owner="tests", run=RUN, reaper=None) as opened:
        with pytest.raises(InvalidRequest, match="filter with '='"):
            async with opened.looking(str(top)):
                pass
    assert not (tmp_path / "sprung").exists()


async def test_filters_of_the_users_own_settings_work(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", __gitattributes="a filter=upper\n", a="A\n")
    (tmp_path / ".gitconfig").write_text('[filter "upper"]\n\tclean = tr a-z A-Z\n')
    (top / "a").write_text("a\n")
    async with open_git(
        {**GIT, "HOME": str(tmp_path)}, FileSystem(tmp_path), owner="tests", run=RUN, reaper=None
    ) as git_:
        for _ in range(2):
            async with git_.looking(str(top)) as repository:
                assert (await read_status(repository, limit=10)).clean
            config(top, filter__upper__clean=trap(top))  # and where the repository would replace them
            os.utime(top / "a", (1, 1))
    assert not (tmp_path / "sprung").exists()


async def test_a_submodule_is_not_entered(tmp_path: Path) -> None:
    inner = new_repository(tmp_path / "inner", a="1\n")
    top = new_repository(tmp_path / "r", b="1\n")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{inner}", "sub")
    git(top, "commit", "--quiet", "--message=sub")
    config(top / "sub", core__fsmonitor=trap(top), filter__evil__clean=trap(top))
    (top / ".git" / "modules" / "sub" / "info" / "attributes").write_text("* filter=evil\n")
    (top / "sub" / "a").write_text("2\n")
    config(top, diff__submodule="log", status__submoduleSummary="true")
    async with (
        open_git(GIT, FileSystem(tmp_path), owner="tests", run=RUN, reaper=None) as opened,
        opened.looking(str(top)) as repository,
    ):
        assert (await read_status(repository, limit=10)).clean
        await read_diff(repository, ref="HEAD", to=None, staged=False, paths=[], limit=10_000)
    assert not (tmp_path / "sprung").exists()
    git(top, "status")
    assert (tmp_path / "sprung").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_belongs_to_others_may_be_looked_at_and_not_changed(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    await trio.to_thread.run_sync(lambda: subprocess.run(["chown", "-R", "12345", str(top)], check=True))
    async with open_git(GIT, FileSystem(tmp_path), owner="tests", run=RUN, reaper=None) as opened:
        async with opened.looking(str(top)) as repository:
            assert (await read_status(repository, limit=10)).clean
        with pytest.raises(Exception, match="belongs to another user"):
            async with opened.changing(str(top)):
                pass
