"""What Git refuses, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GitDistrusts", "GitFailed", "GitNotInstalled", "GitTimeout", "RemoteFailed", "RepositoryNotFound"]


class GitNotInstalled(Refusal):
    name = "git_not_installed"

    def __init__(self) -> None:
        super().__init__("there is no 'git' on the server's PATH; install Git (your system's package manager has it)")


class RepositoryNotFound(Refusal):
    """The directory is in no working tree."""

    name = "repository_not_found"

    def __init__(self, directory: str) -> None:
        super().__init__(f"not a Git working tree: {directory}")
        self.directory = directory

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        return {"directory": self.directory}


class GitDistrusts(Refusal):
    """The repository is another user's, whose hooks and settings would run as us."""

    name = "permission_denied"

    def __init__(self, directory: str) -> None:
        super().__init__(
            f"the repository at {directory} belongs to another user, whose hooks would run as the server's; change its"
            f" owner, or trust it: git config --global --add safe.directory {directory}"
        )


class GitFailed(Refusal):
    """Git would not, or could not.

    Attributes:
      stderr: its last lines; where it failed without any, those of its output.
    """

    name = "git_failed"

    def __init__(self, what: str, code: int | None, stderr: Sequence[str]) -> None:
        super().__init__(f"{what}: {_reason(stderr)}")
        self.code = code
        self.stderr = list(stderr)

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        details: dict[str, str | int | list[str]] = {"stderr": self.stderr}
        return details if self.code is None else {"exitCode": self.code, **details}


class RemoteFailed(GitFailed):
    """A repository elsewhere could not be reached, or would not let us in."""

    name = "git_remote_failed"


class GitTimeout(Refusal):
    name = "timeout"

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}: Git has not finished within {seconds:g} s, and was ended")


def _reason(stderr: Sequence[str]) -> str:
    """The line that says why: the first that Git marks as such, or else the last."""
    for line in stderr:
        for mark in ("fatal: ", "error: "):
            if line.startswith(mark):
                return line.removeprefix(mark)
    return stderr[-1] if stderr else "Git does not say why"
