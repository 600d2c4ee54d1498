"""Git in the sandbox: looking, changing, cloning.

A `directory` is any one within a working tree, absolute, or below the server's home directory.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .git_models import Author, Branch, Clone, CloneProgress, Diff, Head, Log, Status
from .server_progress import Doing, ServerProgress, open_progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    import httpx

    from .transport import Params, Transport

__all__ = ["Git"]

T = TypeVar("T")

ENDS_WITHIN = 150.0
"""Seconds: the server gives a change 120."""


class _Branches(msgspec.Struct, frozen=True):
    branches: list[Branch]


class _Made(msgspec.Struct, frozen=True):
    commit: str


class Git:
    """See the module. Reached as `sandbox.git`.

    Methods raise `ApiError` where the server says no: `RepositoryNotFound`, `GitFailed` where Git would not
    (`problem["stderr"]`), `GitNotInstalled`, `Forbidden`, `InvalidRequest`; and `ConnectionFailed`. What changes
    something is not repeated after a break, when it may have happened.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def status(self, directory: str, *, limit: int | None = None) -> Status:
        """What has changed, and where HEAD is. Up to `limit` changes, 10,000 unless given."""
        return await self._looked(Status, "status", {"directory": directory, "limit": limit})

    async def diff(
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
        params = {
            "directory": directory,
            "staged": staged or None,
            "ref": ref,
            "to": to,
            "path": paths,
            "maxBytes": max_bytes,
        }
        response = await self._transport.request(
            "GET", "/v1/git/diff", params=params, headers={"Accept": "*/*"}, silence=ENDS_WITHIN
        )
        return Diff(response.content, response.headers.get("X-Truncated") == "true")

    async def log(
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
        params = {"directory": directory, "ref": ref, "path": paths, "limit": limit, "skip": skip}
        return await self._looked(Log, "log", params)

    async def branches(self, directory: str) -> list[Branch]:
        """Our own branches, then those of remotes as they are known here."""
        return (await self._looked(_Branches, "branches", {"directory": directory})).branches

    async def create_branch(self, directory: str, name: str, *, start: str = "HEAD") -> None:
        """Make a branch, without going there."""
        await self._change("branches", directory, {"name": name, "from": start})

    async def delete_branch(self, directory: str, name: str, *, force: bool = False) -> None:
        """Delete a branch; with `force` also where its commits are nowhere else."""
        params = {"directory": directory, "name": name, "force": force or None}
        await self._transport.request("DELETE", "/v1/git/branches", params=params, silence=ENDS_WITHIN, retry=False)

    async def checkout(
        self, directory: str, branch: str, *, create: bool = False, start: str = "HEAD", force: bool = False
    ) -> Head:
        """Go to a branch; one that only a remote has is made, and follows it.

        Args:
          create: make it, at `start`.
          force: throw away what is in the way.
        """
        told: dict[str, Any] = {"branch": branch, "force": force}
        if create:
            told |= {"create": True, "from": start}
        return await self._changed(Head, "checkout", directory, told)

    async def checkout_commit(self, directory: str, ref: str, *, force: bool = False) -> Head:
        """Go to a commit, and leave the branch."""
        return await self._changed(Head, "checkout", directory, {"ref": ref, "force": force})

    async def restore(self, directory: str, paths: Sequence[str], *, ref: str | None = None) -> Head:
        """Put paths back to the index, or to a commit: what has changed in them is lost."""
        return await self._changed(Head, "checkout", directory, {"paths": paths, "ref": ref})

    async def add(self, directory: str, paths: Sequence[str] | None = None) -> None:
        """Put paths into the index; all that has changed if none are given."""
        await self._change("add", directory, {"paths": paths})

    async def commit(
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
        told = {"message": message, "author": author, "paths": paths, "all": all, "allowEmpty": allow_empty}
        return (await self._changed(_Made, "commit", directory, told)).commit

    async def clone(
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
        async with self.cloning(
            url, directory, branch=branch, depth=depth, token=token, username=username, timeout=timeout
        ) as progress:
            async for _ in progress:
                continue
        return progress.outcome

    @asynccontextmanager
    async def cloning(
        self,
        url: str,
        directory: str,
        *,
        branch: str | None = None,
        depth: int | None = None,
        token: str | None = None,
        username: str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[ServerProgress[CloneProgress, Clone]]:
        """As `clone`, but one hears how far it is.

        async with git.cloning(url, "app") as progress:
            async for step in progress: print(step.phase, step.percent)
        print(progress.outcome.commit)
        """
        told = {
            "url": url,
            "branch": branch,
            "depth": depth,
            "token": token,
            "username": username,
            "timeoutMs": None if timeout is None else round(timeout * 1000),
        }
        given = {name: value for name, value in told.items() if value is not None}
        doing = Doing("/v1/git/clone", {"directory": directory}, given, again=False)
        async with open_progress(self._transport, doing, CloneProgress, "cloned", Clone) as progress:
            yield progress

    async def _looked(self, type: type[T], what: str, params: Params) -> T:
        return await self._transport.ask(type, "GET", f"/v1/git/{what}", params=params, silence=ENDS_WITHIN)

    async def _changed(self, type: type[T], what: str, directory: str, told: dict[str, Any]) -> T:
        return self._transport.decode(await self._change(what, directory, told), type)

    async def _change(self, what: str, directory: str, told: dict[str, Any]) -> httpx.Response:
        params = {"directory": directory}
        return await self._transport.request("POST", f"/v1/git/{what}", params=params, json=told, silence=ENDS_WITHIN)
