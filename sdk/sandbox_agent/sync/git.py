# Written by scripts/make-sync from ../git.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.git`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .server_progress import ServerProgress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ..git import Git as AsyncGit
    from ..git_models import Author, Branch, Clone, CloneProgress, Diff, Head, Log, Status
    from ._line import Line


__all__ = ["Git"]


class Git:
    """See the module. Reached as `sandbox.git`.

    Methods raise `ApiError` where the server says no: `RepositoryNotFound`, `GitFailed` where Git would not
    (`problem["stderr"]`), `GitNotInstalled`, `Forbidden`, `InvalidRequest`; and `ConnectionFailed`. What changes
    something is not repeated after a break, when it may have happened.
    """

    def __init__(self, actual: AsyncGit, line: Line) -> None:
        self._actual = actual
        self._line = line

    def status(self, directory: str, *, limit: int | None = None) -> Status:
        """What has changed, and where HEAD is. Up to `limit` changes, 10,000 unless given."""
        return self._line.call(self._actual.status, directory, limit=limit)

    def diff(
        self,
        directory: str,
        *,
        staged: bool = False,
        ref: str | None = None,
        to: str | None = None,
        paths: Sequence[str] = (),
        max_bytes: int | None = None,
    ) -> Diff:
        """The difference between the index and the working tree; untracked files are not in it.

        Args:
          staged: of the index from HEAD, or from `ref`.
          ref: of the working tree from this commit; with `to`, of that commit from this one.
          paths: only of these.
          max_bytes: 4 MiB unless given, up to 64.
        """
        return self._line.call(
            self._actual.diff, directory, staged=staged, ref=ref, to=to, paths=paths, max_bytes=max_bytes
        )

    def log(
        self,
        directory: str,
        *,
        ref: str | None = None,
        paths: Sequence[str] = (),
        limit: int | None = None,
        skip: int | None = None,
    ) -> Log:
        """Commits.

        Args:
          ref: from this revision back; from HEAD unless given.
          paths: only those that changed these.
          limit: 50 unless given, up to 1,000.
          skip: without so many of the first.
        """
        return self._line.call(self._actual.log, directory, ref=ref, paths=paths, limit=limit, skip=skip)

    def branches(self, directory: str) -> list[Branch]:
        """Our own branches, then those of remotes as they are known here."""
        return self._line.call(self._actual.branches, directory)

    def create_branch(self, directory: str, name: str, *, start: str = "HEAD") -> None:
        """Make a branch, without going there."""
        self._line.call(self._actual.create_branch, directory, name, start=start)

    def delete_branch(self, directory: str, name: str, *, force: bool = False) -> None:
        """Delete a branch; with `force` also where its commits are nowhere else."""
        self._line.call(self._actual.delete_branch, directory, name, force=force)

    def checkout(
        self, directory: str, branch: str, *, create: bool = False, start: str = "HEAD", force: bool = False
    ) -> Head:
        """Go to a branch; one that only a remote has is made, and follows it.

        Args:
          create: make it, at `start`.
          force: throw away what is in the way.
        """
        return self._line.call(self._actual.checkout, directory, branch, create=create, start=start, force=force)

    def checkout_commit(self, directory: str, ref: str, *, force: bool = False) -> Head:
        """Go to a commit, and leave the branch."""
        return self._line.call(self._actual.checkout_commit, directory, ref, force=force)

    def restore(self, directory: str, paths: Sequence[str], *, ref: str | None = None) -> Head:
        """Put paths back to the index, or to a commit: what has changed in them is lost."""
        return self._line.call(self._actual.restore, directory, paths, ref=ref)

    def add(self, directory: str, paths: Sequence[str] | None = None) -> None:
        """Put paths into the index; all that has changed if none are given."""
        self._line.call(self._actual.add, directory, paths)

    def commit(
        self,
        directory: str,
        message: str,
        *,
        author: Author | None = None,
        paths: Sequence[str] = (),
        all: bool = False,
        allow_empty: bool = False,
    ) -> str:
        """Make a commit of what is in the index; gives its full name.

        Args:
          author: and committer; else Git's settings tell who it is.
          paths: these alone, as they are now.
          all: everything that has changed.
        """
        return self._line.call(
            self._actual.commit, directory, message, author=author, paths=paths, all=all, allow_empty=allow_empty
        )

    def clone(
        self,
        url: str,
        directory: str,
        *,
        branch: str | None = None,
        depth: int | None = None,
        token: str | None = None,
        username: str | None = None,
        timeout: float | None = None,
    ) -> Clone:
        """Clone a repository, whole or not at all. Who leaves ends it.

        Args:
          directory: where to: nothing, or an empty folder.
          branch: or a tag.
          token: the password for HTTP, with `username`. It is stored nowhere.
          timeout: seconds, 600 unless given, up to 3,600.

        Raises:
          GitRemoteFailed: the other side cannot be reached, or does not let us in.
        """
        return self._line.call(
            self._actual.clone,
            url,
            directory,
            branch=branch,
            depth=depth,
            token=token,
            username=username,
            timeout=timeout,
        )

    def cloning(
        self,
        url: str,
        directory: str,
        *,
        branch: str | None = None,
        depth: int | None = None,
        token: str | None = None,
        username: str | None = None,
        timeout: float | None = None,
    ) -> AbstractContextManager[ServerProgress[CloneProgress, Clone]]:
        """As `clone`, but one hears how far it is.

        with git.cloning(url, "app") as progress:
            for step in progress: print(step.phase, step.percent)
        print(progress.outcome.commit)
        """
        return self._line.enter(
            self._actual.cloning(
                url, directory, branch=branch, depth=depth, token=token, username=username, timeout=timeout
            ),
            ServerProgress,
        )
