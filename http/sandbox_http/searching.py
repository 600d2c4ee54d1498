"""`GET /v1/fs/find` and `GET /v1/fs/grep`: files by their names, and by what stands in them.

A client that accepts `application/x-ndjson` gets what is found line by line, as it is found; between a first line that
says who searches and a last one that says whether that is all. Others get one JSON document at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Blueprint, Response, request

from sandbox_actors.errors import as_refusal
from sandbox_actors.files.entries import entry_of
from sandbox_actors.searching.query import Query
from sandbox_actors.searching.records import Line
from sandbox_supervisor import ActorError

from .problems import Problem, of_refusal
from .requests import flag, required

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Literal

    from sandbox_actors.envelope import Json
    from sandbox_actors.searching.records import Name
    from sandbox_actors.searching.search import Finds, Search, Searches

__all__ = ["search_routes"]

NDJSON = "application/x-ndjson"

LIMIT = 1000
"""What is told where the client does not say how much it wants."""

MOST_IN_A_DOCUMENT = 10_000
"""What is kept in memory for one answer; line by line there may be more."""

MOST = 1_000_000

SECONDS = 30.0
LONGEST = 600.0
"""Seconds for a search: what is found by then is told."""


@dataclass(slots=True)
class _Bounds:
    """How much is told, and until when."""

    limit: int
    seconds: float


def search_routes(searches: Searches) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("searching", __name__)

    async def answered(query: Query, member: str) -> Response:
        lines = NDJSON in request.headers.get("Accept", "")
        bounds = _bounds(MOST if lines else MOST_IN_A_DOCUMENT)
        search = await searches.prepare(required("path"), query)
        if request.method == "HEAD":
            return Response(b"", content_type=NDJSON if lines else "application/json")
        if lines:
            response = Response(_lines(searches, search, bounds), content_type=NDJSON)
            response.timeout = None
            return response
        return await _document(searches, search, bounds, member)

    @routes.get("/v1/fs/find")
    async def find() -> Response:
        return await answered(Query(globs=_globs(), type=_type()), "entries")

    @routes.get("/v1/fs/grep")
    async def grep() -> Response:
        query = Query(required("pattern"), fixed=flag("fixed"), ignore_case=flag("ignoreCase"), globs=_globs())
        return await answered(query, "matches")

    return routes


class _Bounded:
    """What a search finds, up to its bounds.

    Attributes:
      told: how much that is so far.
      reason: why it is not all: `limit` or `deadline`.
    """

    def __init__(self, finds: Finds, bounds: _Bounds) -> None:
        self.told = 0
        self.reason: Literal["limit", "deadline"] | None = None
        self._finds = finds
        self._limit = bounds.limit
        self._deadline = trio.current_time() + bounds.seconds

    async def read(self) -> list[Name | Line] | None:
        """Some more; None at the end."""
        if self.reason is not None:
            return None
        found: list[Name | Line] | None = None
        with trio.move_on_at(self._deadline) as late:
            found = await self._finds.read()
        if late.cancelled_caught:
            self.reason = "deadline"
            return None
        if found is not None:
            if self.told + len(found) > self._limit:
                self.reason = "limit"
                found = found[: self._limit - self.told]
            self.told += len(found)
        return found

    def summary(self, search: Search) -> dict[str, Json]:
        return {
            "engine": search.engine,
            "truncated": self.reason is not None,
            "reason": self.reason,
            "passedOver": self._finds.passed_over,
        }


async def _document(searches: Searches, search: Search, bounds: _Bounds, member: str) -> Response:
    told: list[Json] = []
    async with searches.searching(search) as finds:
        bounded = _Bounded(finds, bounds)
        while (found := await bounded.read()) is not None:
            told += [_shown(one, search) for one in found]
    document = msgspec.json.encode({"path": search.path, member: told, **bounded.summary(search)})
    return Response(document, content_type="application/json")


async def _lines(searches: Searches, search: Search, bounds: _Bounds) -> AsyncIterator[bytes]:
    # Hypercorn sends the head of a response together with the first piece of its body.
    yield _line({"type": "begin", "path": search.path, "engine": search.engine})
    try:
        async with searches.searching(search) as finds:
            bounded = _Bounded(finds, bounds)
            while (found := await bounded.read()) is not None:
                if found:
                    yield b"".join([_line(_shown(one, search)) for one in found])
                # Hypercorn's send returns without a checkpoint once the peer is gone.
                await trio.lowlevel.checkpoint()
    except ActorError as error:
        yield _line({"type": "error", "problem": of_refusal(as_refusal(error)).members})
    else:
        yield _line({"type": "end", "count": bounded.told, **bounded.summary(search)})


def _shown(found: Name | Line, search: Search) -> dict[str, Json]:
    path = f"{search.path.rstrip('/')}/{found.path}" if search.file is None else search.path
    if isinstance(found, Line):
        shown: dict[str, Json] = {
            "type": "match",
            "path": path,
            "line": found.line,
            "column": found.column,
            "text": found.text,
            "matches": [{"start": start, "end": end} for start, end in found.spans],
        }
        return {**shown, "cut": True} if found.cut else shown
    entry = entry_of(path, found.mode, found.size, found.mtime_ns, found.target)
    return {"type": "entry", **msgspec.to_builtins(entry)}


def _line(members: dict[str, Json]) -> bytes:
    return msgspec.json.encode(members) + b"\n"


def _globs() -> tuple[str, ...]:
    return tuple(glob for glob in request.args.getlist("glob") if glob)


def _type() -> Literal["file", "directory"] | None:
    match request.args.get("type"):
        case None:
            return None
        case "file":
            return "file"
        case "directory":
            return "directory"
        case text:
            raise Problem("invalid_request", f"unknown type {text!r}, expected one of file, directory")


def _bounds(most: int) -> _Bounds:
    return _Bounds(min(most, int(_number("limit", LIMIT))), min(LONGEST, _number("timeout", SECONDS)))


def _number(name: str, default: float) -> float:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) == 0:
        raise Problem("invalid_request", f"the query parameter {name!r} must be a positive number")
    return int(text)
