"""`/v1/git`: a repository of the sandbox, named by `?directory=`, and clones of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio
from quart import Blueprint, Response, request

from sandbox_actors import git as git_commands
from sandbox_actors.errors import as_refusal
from sandbox_actors.git import Author, Wish, read_branches, read_diff, read_head, read_log, read_status
from sandbox_supervisor import ActorError

from .problems import Problem, of_refusal
from .requests import flag, require_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.envelope import Json
    from sandbox_actors.git import Clone, Git

    from .streams import Streams

__all__ = ["AddBody", "BranchBody", "CheckoutBody", "CloneBody", "CommitBody", "git_routes"]

T = TypeVar("T")

CHANGES, MOST_CHANGES = 10_000, 100_000
COMMITS, MOST_COMMITS = 50, 1000
DIFF_BYTES, MOST_DIFF_BYTES = 4 << 20, 64 << 20
CLONE_MS, LONGEST_CLONE_MS = 600_000, 3_600_000
LARGEST = 1_000_000_000

HEARTBEAT_EVERY = 10.0
"""Seconds of silence after which a stream of progress shows that it is alive."""

HEARTBEAT_COMMENT = b": heartbeat\n\n"


class BranchBody(msgspec.Struct, forbid_unknown_fields=True, rename={"start": "from"}):
    name: str
    start: str = "HEAD"


class CheckoutBody(msgspec.Struct, forbid_unknown_fields=True, rename={"start": "from"}):
    """One of `branch`, `ref` and `paths`; the last two go together."""

    branch: str | None = None
    create: bool = False
    start: str = "HEAD"
    ref: str | None = None
    paths: list[str] | None = None
    force: bool = False


class AddBody(msgspec.Struct, forbid_unknown_fields=True):
    paths: list[str] | None = None


class AuthorBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    email: str


class CommitBody(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    message: str
    author: AuthorBody | None = None
    paths: list[str] = []
    all: bool = False
    allow_empty: bool = False


class CloneBody(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    url: str
    branch: str | None = None
    depth: int | None = None
    token: str | None = None
    username: str | None = None
    timeout_ms: int = CLONE_MS


def git_routes(git: Git, streams: Streams) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("git", __name__)

    @routes.get("/v1/git/status")
    async def status() -> Response:
        limit = _number("limit", CHANGES, 1, MOST_CHANGES)
        async with git.looking(_directory()) as repository:
            return _json(await read_status(repository, limit=limit))

    @routes.get("/v1/git/diff")
    async def diff() -> Response:
        limit = _number("maxBytes", DIFF_BYTES, 1, MOST_DIFF_BYTES)
        ref, to = request.args.get("ref"), request.args.get("to")
        staged = flag("staged")
        if to is not None and (ref is None or staged):
            raise Problem("invalid_request", "'to' needs 'ref', and goes without 'staged'")
        async with git.looking(_directory()) as repository:
            found = await read_diff(repository, ref=ref, to=to, staged=staged, paths=_paths(), limit=limit)
        response = Response(found.text, content_type="text/x-diff")
        response.headers["X-Truncated"] = "true" if found.truncated else "false"
        return response

    @routes.get("/v1/git/log")
    async def log() -> Response:
        limit, skip = _number("limit", COMMITS, 1, MOST_COMMITS), _number("skip", 0, 0, LARGEST)
        ref = request.args.get("ref", "HEAD")
        async with git.looking(_directory()) as repository:
            return _json(await read_log(repository, ref=ref, paths=_paths(), limit=limit, skip=skip))

    @routes.get("/v1/git/branches")
    async def branches() -> Response:
        async with git.looking(_directory()) as repository:
            return _json({"branches": await read_branches(repository)})

    @routes.post("/v1/git/branches")
    async def create_branch() -> Response:
        wanted = await _body(BranchBody)
        async with git.changing(_directory()) as repository:
            await git_commands.create_branch(repository, wanted.name, wanted.start)
        return _done()

    @routes.delete("/v1/git/branches")
    async def delete_branch() -> Response:
        name, force = request.args.get("name", ""), flag("force")
        async with git.changing(_directory()) as repository:
            await git_commands.delete_branch(repository, name, force=force)
        return _done()

    @routes.post("/v1/git/checkout")
    async def checkout() -> Response:
        wanted = await _body(CheckoutBody)
        if (wanted.branch is None) == (wanted.ref is None and wanted.paths is None):
            raise Problem("invalid_request", "name either a 'branch', or a 'ref', 'paths' or both")
        async with git.changing(_directory()) as repository:
            if wanted.branch is not None:
                start = wanted.start if wanted.create else None
                await git_commands.checkout_branch(repository, wanted.branch, start=start, force=wanted.force)
            elif wanted.paths is not None:
                await git_commands.restore(repository, wanted.paths, wanted.ref)
            elif wanted.ref is not None:
                await git_commands.checkout_commit(repository, wanted.ref, force=wanted.force)
            return _json(await read_head(repository))

    @routes.post("/v1/git/add")
    async def add() -> Response:
        wanted = await _body(AddBody)
        async with git.changing(_directory()) as repository:
            await git_commands.add(repository, wanted.paths)
        return _done()

    @routes.post("/v1/git/commit")
    async def commit() -> Response:
        wanted = await _body(CommitBody)
        author = None if wanted.author is None else Author(wanted.author.name, wanted.author.email)
        async with git.changing(_directory()) as repository:
            made = await git_commands.commit(
                repository,
                wanted.message,
                author=author,
                paths=wanted.paths,
                everything=wanted.all,
                empty=wanted.allow_empty,
            )
        return _json({"commit": made})

    @routes.post("/v1/git/clone")
    async def clone() -> Response:
        wish = _wish(await _body(CloneBody)).checked()
        if "text/event-stream" in request.headers.get("Accept", ""):
            return _stream(_clone_events(git, wish, streams))
        cloning = git.clone(wish)
        try:
            return _json(_shown(await cloning.outcome.wait()))
        finally:
            cloning.cancel()

    return routes


async def _clone_events(git: Git, wish: Wish, streams: Streams) -> AsyncIterator[bytes]:
    """A clone as it goes: `progress` events, and at last `cloned` or `failed`. Who leaves cancels it."""
    cloning = git.clone(wish)
    try:
        with streams.told(cloning.cancel):
            yield HEARTBEAT_COMMENT
            told: object = None
            while not cloning.outcome.settled:
                progress = cloning.progress
                if progress is not None and progress != told:
                    told = progress
                    yield _event("progress", msgspec.to_builtins(progress))
                    continue
                with trio.move_on_after(HEARTBEAT_EVERY) as silence:
                    await cloning.changed()
                if silence.cancelled_caught:
                    yield HEARTBEAT_COMMENT
            try:
                yield _event("cloned", _shown(await cloning.outcome.wait()))
            except ActorError as error:
                yield _event("failed", of_refusal(as_refusal(error)).members)
    finally:
        cloning.cancel()


def _wish(wanted: CloneBody) -> Wish:
    for name, value, most in (("depth", wanted.depth, LARGEST), ("timeoutMs", wanted.timeout_ms, LONGEST_CLONE_MS)):
        if value is not None and not 1 <= value <= most:
            raise Problem("invalid_request", f"{name!r} must be a number from 1 to {most}", status=422)
    seconds = wanted.timeout_ms / 1000
    return Wish(wanted.url, _directory(), seconds, wanted.branch, wanted.depth, wanted.token, wanted.username)


def _shown(made: Clone) -> dict[str, Json]:
    return {"directory": made.directory, "branch": made.head.branch, "commit": made.head.commit}


def _directory() -> str:
    directory = request.args.get("directory", "")
    if not directory.strip():
        raise Problem("invalid_request", "missing required 'directory' query parameter")
    return directory


def _paths() -> list[str]:
    return request.args.getlist("path")


def _number(name: str, default: int, least: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or len(text) > 12 or not least <= int(text) <= most:
        raise Problem("invalid_request", f"{name!r} must be a number from {least} to {most}")
    return int(text)


async def _body(kind: type[T]) -> T:
    require_json()
    try:
        return msgspec.json.decode(bytes(await request.body), type=kind)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", str(error), status=422) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("invalid_request", f"the body is not JSON: {error}") from None


def _event(name: str, data: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def _done() -> Response:
    response = Response(b"", 204)  # without a body Quart would want a loop of asyncio
    del response.headers["Content-Type"]
    return response


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), content_type="application/json")


def _stream(events: AsyncIterator[bytes]) -> Response:
    response = Response(events, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"
    response.timeout = None
    return response
