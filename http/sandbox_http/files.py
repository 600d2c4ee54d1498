"""`/v1/fs`: files and directories, as clients of the public wire know them, and beyond.

Beyond: ranges and conditions, links shown as such, pages of large directories, appending, permissions. Bodies of any
size go through in pieces, both ways.
"""

from __future__ import annotations

import re
from contextlib import aclosing, asynccontextmanager, contextmanager
from mimetypes import MimeTypes
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import trio
from quart import Blueprint, Response, request
from quart.wrappers.response import ResponseBody
from werkzeug.http import http_date

from sandbox_actors.files import PIECE

from .bulk import bulk_body
from .problems import Cut, Problem
from .ranges import is_wanted, last_modified, range_of, write_precondition
from .requests import flag, require_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Generator
    from types import TracebackType

    from sandbox_actors.envelope import Json
    from sandbox_actors.files import FileSystem, OpenFile

__all__ = ["MoveBody", "file_routes"]

PLAIN = "application/octet-stream"

MODE = re.compile("[0-7]{3,4}")

_types = MimeTypes()  # without the machine's own lists: the same everywhere


class MoveBody(msgspec.Struct, rename={"source": "from", "destination": "to"}):
    source: str
    destination: str
    overwrite: bool | None = None


def file_routes(files: FileSystem) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("files", __name__)

    @routes.get("/v1/fs/entries")
    async def entries() -> Response:
        path = request.args.get("path", "")
        found = await files.entries(path, after=request.args.get("after", ""), limit=_limit())
        return _json(msgspec.json.encode(found))

    @routes.get("/v1/fs/stat")
    async def stat() -> Response:
        return _json(msgspec.json.encode(await files.stat(_path())))

    @routes.get("/v1/fs/file")
    async def read() -> Response:
        path = _path()
        guess, attached = flag("guess"), flag("download")
        opened = await files.open(path)
        response = _sent(files, opened)
        if response.status_code in (200, 206):
            _describe(response, path, guess, attached)
        return response

    @routes.put("/v1/fs/file")
    async def write() -> Response:
        body = bulk_body()
        async with files.writing(_path(), write_precondition(), append=flag("append"), mode=_mode()) as upload:
            while piece := await body.receive_some():
                await upload.write(piece)
            written = await upload.finish()
        response = _told(path=upload.path, bytesWritten=written.bytes)
        response.headers["ETag"] = f'"{written.etag}"'
        return response

    @routes.delete("/v1/fs/entry")
    async def delete() -> Response:
        path = _path()
        await files.delete(path, recursive=flag("recursive"))
        return _told(path=files.located(path))

    @routes.post("/v1/fs/mkdir")
    async def make_directory() -> Response:
        path = _path()
        await files.make_directory(path)
        return _told(path=files.located(path))

    @routes.post("/v1/fs/move")
    async def move() -> Response:
        require_json()
        asked = _move(bytes(await request.body))
        await files.move(asked.source, asked.destination, overwrite=bool(asked.overwrite))
        return _told(**{"from": files.located(asked.source), "to": files.located(asked.destination)})

    @routes.post("/v1/fs/chmod")
    async def set_mode() -> Response:
        path, mode = _path(), _mode()
        if mode is None:
            raise Problem("invalid_request", "missing required 'mode' query parameter")
        await files.set_mode(path, mode)
        return _told(path=files.located(path), mode=f"{mode:04o}")

    return routes


def _sent(files: FileSystem, opened: OpenFile) -> Response:
    """The answer to a request for a file: all of it, a part, or that the client has it.

    Raises:
      Problem: `precondition_failed`, `range_not_satisfiable`.
    """
    if opened.size is None:
        return Response(_until_its_end(files, opened))
    if opened.etag is None:
        return Response(opened.whole or b"")
    modified = last_modified(opened.modified)
    headers = {"ETag": f'"{opened.etag}"', "Accept-Ranges": "bytes"}
    if modified is not None:
        headers["Last-Modified"] = http_date(modified)
    if not is_wanted(opened.etag, modified):
        response = Response(b"", 304, headers)
        del response.headers["Content-Type"]
        return response
    part = range_of(opened.size, opened.etag, modified)
    start, end = part or (0, opened.size)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{opened.size}"
    if request.method == "HEAD":
        opened.file.close()
        body: bytes | ResponseBody = b""
    elif opened.whole is not None:
        body = opened.whole[start:end]
    else:
        body = _ReadAhead(_pieces(files, opened, start, end))
    response = Response(body, 200 if part is None else 206, headers)
    response.content_length = end - start
    return response


class _ReadAhead(ResponseBody):
    """The body of an answer of which one piece is read while the one before is sent."""

    def __init__(self, pieces: AsyncGenerator[bytes]) -> None:
        self._reading = _reading(pieces)

    async def __aenter__(self) -> AsyncIterable[bytes]:
        return await self._reading.__aenter__()

    async def __aexit__(self, kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
        await self._reading.__aexit__(kind, error, trace)


@asynccontextmanager
async def _reading(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[trio.MemoryReceiveChannel[bytes]]:
    send, receive = trio.open_memory_channel[bytes](0)

    async def read() -> None:
        # Closed without a checkpoint: there the reader's end would cancel us, and the error be lost.
        with send:
            async with aclosing(pieces):
                async for piece in pieces:
                    await send.send(piece)

    async with receive, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        try:
            yield receive
        finally:
            nursery.cancel_scope.cancel()


async def _pieces(files: FileSystem, opened: OpenFile, start: int, end: int) -> AsyncGenerator[bytes]:
    with opened.file, _cut_off():
        while start < end:
            piece = await files.read(opened, start, min(PIECE, end - start))
            if not piece:
                raise Cut("the file became shorter while it was sent")
            yield piece
            start += len(piece)


async def _until_its_end(files: FileSystem, opened: OpenFile) -> AsyncGenerator[bytes]:
    with opened.file, _cut_off():
        piece = opened.whole or b""
        while piece and request.method != "HEAD":
            yield piece
            piece = await files.read(opened, None, PIECE)


@contextmanager
def _cut_off() -> Generator[None]:
    """What the system has against reading on ends the answer."""
    try:
        yield
    except OSError as error:
        raise Cut(f"the file cannot be read any further: {error.strerror}") from None


def _describe(response: Response, path: str, guess: bool, attached: bool) -> None:
    """Say what a file is.

    A page that an agent has written comes from our own origin. It must not act as if it were ours, so it is shown, if
    at all, in a sandbox, and its type is never guessed by the browser.
    """
    name = path.rstrip("/").rpartition("/")[2]
    response.headers["Content-Type"] = (_types.guess_type(name)[0] if guess else None) or PLAIN
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "sandbox"
    if attached:
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _path() -> str:
    path = request.args.get("path")
    if path is None:
        raise Problem("invalid_request", "missing required 'path' query parameter")
    return path


def _limit() -> int | None:
    text = request.args.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) == 0:
        raise Problem("invalid_request", "the query parameter 'limit' must be a positive number")
    return int(text)


def _mode() -> int | None:
    text = request.args.get("mode")
    if text is None:
        return None
    if MODE.fullmatch(text) is None:
        raise Problem("invalid_request", "the query parameter 'mode' must be three or four octal digits")
    return int(text, 8)


def _move(body: bytes) -> MoveBody:
    try:
        return msgspec.json.decode(body, type=MoveBody)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", str(error), status=422, title="Unprocessable Content") from None
    except (UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
        raise Problem("invalid_request", f"invalid JSON body: {error}") from None


def _told(**members: Json) -> Response:
    return _json(msgspec.json.encode(members))


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")
