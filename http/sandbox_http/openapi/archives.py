"""`/v1/fs/upload-batch` and `/v1/fs/archive`: a folder comes in as one archive, and goes out as one."""

from __future__ import annotations

from sandbox_actors.archives import ArchiveFormat

from .answers import document
from .operation import Answer, Body, Operation, Trouble
from .parameters import query
from .schema import FLAG, TEXT, items, one_of, record
from .troubles import FILES, STREAMED_BODY, WRITING

__all__ = ["OPERATIONS"]

MEDIA_TYPES = {format.media_type: None for format in ArchiveFormat}

OPERATIONS = (
    Operation(
        "post",
        "/v1/fs/upload-batch",
        "unpackArchive",
        "archives",
        "Unpack an archive into a folder, all of it or nothing",
        (
            document(
                "It is unpacked; the paths, or the first of many.", record({"paths": items(TEXT), "truncated": FLAG})
            ),
        ),
        (*WRITING, *STREAMED_BODY, Trouble("conflict")),
        (query("path", "The folder, made if there is none: absolute, or below HOME.", TEXT, example="unpacked"),),
        Body(MEDIA_TYPES, "The archive; its format is told by the content type."),
    ),
    Operation(
        "get",
        "/v1/fs/archive",
        "packArchive",
        "archives",
        "A folder as one archive",
        (Answer(200, "The archive, packed while it is sent.", MEDIA_TYPES, {"Content-Disposition": "Its name."}),),
        FILES,
        (
            query("path", "The folder: absolute, or below HOME.", TEXT, required=True, example="notes"),
            query("format", "Of the archive.", one_of(*(format.value for format in ArchiveFormat), default="tar.gz")),
        ),
    ),
)
