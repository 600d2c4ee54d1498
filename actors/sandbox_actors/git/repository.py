"""A repository as a client names it: by a directory within its working tree.

Commands that only look run under settings that switch off what the repository would have them run. Filters of contents
are called what the repository likes, so they are looked up first: each that its own settings define is switched off, or
put back to what the user's and the system's settings say.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from .environment import READING, READING_ENVIRONMENT, WRITING
from .errors import GitDistrusts, GitFailed, RepositoryNotFound
from .revisions import checked_revision
from .runner import LONGEST_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..files import FileSystem
    from .runner import Output, Runner

__all__ = ["Repository", "open_repository"]

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""SHA-1 or SHA-256. `^main` has a name with something before it."""

OWN_SCOPES = frozenset({"local", "worktree"})
"""The scopes of settings that come with a repository."""


@dataclass(frozen=True, slots=True)
class Repository:
    """See the module.

    Attributes:
      top: the directory of the working tree, where commands run.
    """

    top: str
    _runner: Runner
    _settings: tuple[str, ...]
    _environment: Mapping[str, str]

    async def run(
        self, *words: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", limit: int = LONGEST_OUTPUT
    ) -> Output:
        """Run a command, see `Runner.run`."""
        environment = {**self._environment, **(env or {})}
        return await self._runner.run(
            *words, cwd=self.top, settings=self._settings, env=environment, stdin=stdin, limit=limit
        )

    async def commit(self, revision: str) -> str | None:
        """The full name of the commit that a revision means; None where there is none.

        Only this name goes on as an argument, so no revision is ever taken for an option or a path.

        Raises:
          InvalidRequest: it can be no revision.
        """
        checked_revision(revision)
        found = await self.run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        name = found.data.decode(errors="replace").strip()
        return name if found.code == 0 and COMMIT.fullmatch(name) else None

    async def known_commit(self, revision: str) -> str:
        """As `commit`, where it must be there. Raises `InvalidRequest`."""
        commit = await self.commit(revision)
        if commit is None:
            raise InvalidRequest(f"there is no such revision: {revision}")
        return commit


async def open_repository(directory: str, runner: Runner, files: FileSystem, *, reading: bool) -> Repository:
    """The repository that a directory is in.

    Args:
      reading: whether it is only looked at.

    Raises:
      RepositoryNotFound: the directory is in no working tree.
      GitDistrusts: it is another user's, and is to be changed.
      Refusal: as `FileSystem.directory`, for the directory and for the top of the working tree.
    """
    with await files.directory(directory) as descriptor:
        place = os.readlink(descriptor.path)
    settings, environment = (READING, READING_ENVIRONMENT) if reading else (WRITING, {})
    found = await runner.run("rev-parse", "--show-toplevel", cwd=place, settings=settings, env=environment)
    if found.code != 0:
        raise _why_not(place, found)
    top = os.fsdecode(found.data.removesuffix(b"\n"))
    with await files.directory(top):
        pass  # a root may lie within a working tree: that one is out of reach
    repository = Repository(top, runner, settings, environment)
    if not reading:
        return repository
    return Repository(top, runner, (*settings, *await _without_filters(repository)), environment)


def _why_not(place: str, found: Output) -> Exception:
    text = "\n".join(found.stderr)
    if "dubious ownership" in text or "unsafe repository" in text:
        return GitDistrusts(place)
    if "not a git repository" in text or "work tree" in text or "cannot use bare repository" in text:
        return RepositoryNotFound(place)
    return GitFailed("the repository cannot be opened", found.code, found.stderr)


async def _without_filters(repository: Repository) -> list[str]:
    """Settings that undo the filters that the repository defines itself."""
    words = ("config", "--null", "--show-scope", "--get-regexp", r"^filter\..*\.")
    listed = await repository.run(*words)
    if listed.code not in (0, 1) or listed.truncated:  # 1: there are none
        raise GitFailed("the repository's settings cannot be read", listed.code, listed.stderr)
    own: set[str] = set()
    others: dict[str, str] = {}
    for scope, key, value in _settings(listed.data):
        if scope in OWN_SCOPES:
            own.add(key)
        elif scope != "command":
            others[key] = value
    if any("=" in key for key in own):
        # On the command line, the name of a setting ends at the first of them.
        raise InvalidRequest("the repository defines a filter with '=' in its name, which cannot be switched off")
    # Only what it defines: a `process` that is empty would be one all the same, and keep a `clean` from being used.
    return [f"{key}={others.get(key, 'false' if key.endswith('.required') else '')}" for key in sorted(own)]


def _settings(data: bytes) -> Iterator[tuple[str, str, str]]:
    """Scope, name and value of each."""
    parts = os.fsdecode(data).split("\0")
    for scope, setting in zip(parts[0::2], parts[1::2], strict=False):
        name, newline, value = setting.partition("\n")
        yield scope, name, value if newline else "true"  # a name alone is a switch that is on
