"""What a client changes in a repository. Its hooks and filters run, as they would at a terminal."""

from __future__ import annotations

import os
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..errors import InvalidRequest
from .revisions import checked_branch, checked_paths, pathspecs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from .repository import Repository

__all__ = ["Author", "add", "checkout_branch", "checkout_commit", "commit", "create_branch", "delete_branch", "restore"]

_FROM_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")


@dataclass(frozen=True, slots=True)
class Author:
    """Who has written a commit."""

    name: str
    email: str

    def checked(self) -> Author:
        """Raises `InvalidRequest` where Git would read something else out of it."""
        for text in (self.name, self.email):
            if not text.strip() or any(mark in text for mark in "<>\n\0"):
                raise InvalidRequest("an author has a name and an email, without '<', '>' or line ends")
        return self


async def add(repository: Repository, paths: Sequence[str] | None) -> None:
    """Put paths, or all that has changed, into the index."""
    if paths is None:
        words, stdin = ["add", "--all"], b""
    else:
        words, stdin = ["add", "--all", *_FROM_STDIN], pathspecs(checked_paths(paths))
    (await repository.run(*words, stdin=stdin)).checked("git add")


async def commit(
    repository: Repository, message: str, *, author: Author | None, paths: Sequence[str], everything: bool, empty: bool
) -> str:
    """Make a commit; returns its full name.

    Args:
      author: also the committer; None for what Git is configured with.
      paths: only these, added before; empty for what is in the index.
      everything: all that has changed is added before.
      empty: whether there may be nothing to commit.
    """
    if not message.strip() or "\0" in message:
        raise InvalidRequest("a commit needs a message")
    checked = checked_paths(paths)
    env: dict[str, str] = {}
    if author is not None:
        author.checked()
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": author.name, f"GIT_{role}_EMAIL": author.email}
    if checked or everything:
        await add(repository, checked or None)
    words = ["commit", "--quiet", "--no-status", "--cleanup=whitespace", *(["--allow-empty"] if empty else [])]
    async with _file(message) as file:
        if checked:
            words += ["--only", *_FROM_STDIN]
        output = await repository.run(*words, f"--file={file}", stdin=pathspecs(checked), env=env)
    output.checked("git commit")
    return await repository.known_commit("HEAD")


@asynccontextmanager
async def _file(message: str) -> AsyncGenerator[str]:
    """A message in a file of its own: standard input is for paths, and arguments are anybody's to see."""

    def write() -> str:
        descriptor, path = tempfile.mkstemp(prefix="sandbox-agent-commit-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.encode(errors="replace"))
        return path

    path = await trio.to_thread.run_sync(write)
    try:
        yield path
    finally:
        os.unlink(path)


async def create_branch(repository: Repository, name: str, start: str) -> None:
    """Make a branch, without going there."""
    checked_branch(name)
    commit = await repository.known_commit(start)
    (await repository.run("branch", "--no-track", name, commit)).checked("git branch")


async def delete_branch(repository: Repository, name: str, *, force: bool) -> None:
    """Delete a branch, by force also where its commits are nowhere else."""
    checked_branch(name)
    words = ["branch", "--delete", *(["--force"] if force else []), "--", name]
    (await repository.run(*words)).checked("git branch")


async def checkout_branch(repository: Repository, name: str, *, start: str | None, force: bool) -> None:
    """Go to a branch. One that only a remote has is made, and follows it.

    Args:
      start: the branch is made here first.
      force: whether to throw away what has changed.
    """
    checked_branch(name)
    words = ["switch", "--quiet", *(["--discard-changes"] if force else [])]
    if start is None:
        words += ["--guess", name]
    else:
        words += ["--no-track", "--create", name, await repository.known_commit(start)]
    (await repository.run(*words)).checked("git switch")


async def checkout_commit(repository: Repository, ref: str, *, force: bool) -> None:
    """Go to a commit, and leave the branch."""
    commit = await repository.known_commit(ref)
    words = ["checkout", "--quiet", *(["--force"] if force else []), "--detach", commit, "--"]
    (await repository.run(*words)).checked("git checkout")


async def restore(repository: Repository, paths: Sequence[str], ref: str | None) -> None:
    """Put paths back to what they are in the index, or in a commit. What has changed in them is lost."""
    words = ["checkout", "--quiet", *_FROM_STDIN]
    if ref is not None:
        words.append(await repository.known_commit(ref))
    (await repository.run(*words, stdin=pathspecs(checked_paths(paths)))).checked("git checkout")
