"""Git repositories made by the `git` program itself, away from the settings of whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["GIT", "git", "new_repository"]

GIT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "LC_ALL": "C",
}
"""The environment of Git in the tests."""


def git(directory: Path, *words: str, input: str | None = None) -> str:
    """Run Git; gives what it writes, and fails where it fails."""
    return subprocess.run(
        ["git", *words], cwd=directory, env=GIT, input=input, capture_output=True, text=True, check=True
    ).stdout


def new_repository(directory: Path, **files: str) -> Path:
    """A repository on the branch `main`, whose one commit has these files; `__` in a name stands for a dot."""
    directory.mkdir(parents=True)
    git(directory, "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    if files:
        git(directory, "add", "--all")
        git(directory, "commit", "--quiet", "--message=first")
    return directory
