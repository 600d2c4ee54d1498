"""`/v1/fs/upload-batch` and `/v1/fs/archive`: a folder comes in as one archive, and goes out as one.

Beyond the public wire: compressed tars and zips, nothing of an archive that is not sound or not safe, and the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import trio
from quart import Blueprint, Response, request

from sandbox_actors.archives import ArchiveFormat, ArchiveTooLarge
from sandbox_supervisor import ActorError

from .bulk import bulk_body
from .problems import Cut, Problem
from .requests import required

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.archives import Archives, Packing, Unpacked
    from sandbox_actors.files import FileSystem

    from .bulk import BulkBody

__all__ = ["archive_routes"]

TAKEN = "content-type must be application/x-tar, or application/gzip, application/zstd, application/zip"


def archive_routes(files: FileSystem, archives: Archives) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("archives", __name__)

    @routes.post("/v1/fs/upload-batch")
    async def unpack() -> Response:
        format = ArchiveFormat.of_media_type(request.headers.get("Content-Type", ""))
        if format is None:
            raise Problem("invalid_request", TAKEN)
        unpacked = await _unpacked(archives, bulk_body(), format, request.args.get("path", ""))
        return Response(
            msgspec.json.encode({"paths": unpacked.paths, "truncated": unpacked.truncated}),
            content_type="application/json",
        )

    @routes.get("/v1/fs/archive")
    async def pack() -> Response:
        path, format = required("path"), _format()
        packing = await archives.pack(path, format)
        # What is wrong with the folder, or with the first files in it, can still be told.
        first = await packing.read() if request.method == "GET" else b""
        response = Response(_pieces(first, packing) if first else b"", content_type=format.media_type)
        name = files.located(path).rstrip("/").rpartition("/")[2] or "root"
        response.headers["Content-Disposition"] = (
            f"attachment; filename*=UTF-8''{quote(f'{name}.{format.value}', safe='')}"
        )
        response.timeout = None
        return response

    return routes


async def _unpacked(archives: Archives, body: BulkBody, format: ArchiveFormat, path: str) -> Unpacked:
    try:
        return await archives.unpack(body.receive_some, format, path)
    except ArchiveTooLarge as error:
        raise Problem("invalid_request", str(error), status=413, title="Payload Too Large") from None


async def _pieces(piece: bytes, packing: Packing) -> AsyncIterator[bytes]:
    try:
        while piece:
            yield piece
            # Hypercorn's send returns without a checkpoint once the peer is gone.
            await trio.lowlevel.checkpoint()
            piece = await packing.read()
    except ActorError as error:
        raise Cut(str(error)) from None
    finally:
        packing.close()


def _format() -> ArchiveFormat:
    text = request.args.get("format", ArchiveFormat.TAR_GZ.value)
    try:
        return ArchiveFormat(text)
    except ValueError:
        known = ", ".join(format.value for format in ArchiveFormat)
        raise Problem("invalid_request", f"unknown format {text!r}, expected one of {known}") from None
