"""`/v1/fs`: files and directories."""

from __future__ import annotations

from sandbox_actors.files.entries import Entry, Stat

from ..files import MODE, MoveBody
from .answers import document
from .operation import Answer, Body, Operation, Trouble
from .parameters import flag, header, json_body, query
from .schema import COUNT, TEXT, integer, items, record
from .troubles import FILES, JSON_BODY, STREAMED_BODY, WRITING

__all__ = ["OPERATIONS"]

PATH = query("path", "Absolute, or below HOME.", TEXT, required=True, example="notes/today.txt")

FOLDER = query("path", "Absolute, or below HOME, which it is if it is not given.", TEXT, example="notes")

PERMISSIONS = {"type": "string", "pattern": f"^{MODE.pattern}$"}

TOLD = record({"path": TEXT})

ETAG = {"ETag": "The validator of the content."}

IF_MATCH = header("If-Match", "Only if the file is one of these.", TEXT)
IF_NONE_MATCH = header("If-None-Match", "Only if the file is none of these; `*`: only if there is none.", TEXT)

FILE_HEADERS = {
    **ETAG,
    "Last-Modified": "When it was changed.",
    "Accept-Ranges": "That parts may be asked for.",
    "Content-Disposition": "Its name, where it is to be saved.",
}

OPERATIONS = (
    Operation(
        "get",
        "/v1/fs/entries",
        "listEntries",
        "files",
        "What is in a directory, by name",
        (document("The entries.", items(Entry)),),
        FILES,
        (
            FOLDER,
            query("limit", "How many at most.", integer(1, 999_999_999)),
            query("after", "Only those whose names come behind this one.", TEXT),
        ),
    ),
    Operation(
        "get",
        "/v1/fs/stat",
        "statPath",
        "files",
        "What a path leads to",
        (document("The file or directory; of a link that leads nowhere, the link.", Stat),),
        FILES,
        (PATH,),
    ),
    Operation(
        "get",
        "/v1/fs/file",
        "readFile",
        "files",
        "The bytes of a file",
        (
            Answer(200, "All of it.", {"*/*": None}, FILE_HEADERS),
            Answer(206, "A part of it.", {"*/*": None}, {**FILE_HEADERS, "Content-Range": "Which part."}),
            Answer(304, "The client has it.", headers=ETAG),
        ),
        (*FILES, Trouble("precondition_failed"), Trouble("range_not_satisfiable")),
        (
            PATH,
            flag("guess", "Tell the type by the name; else it is `application/octet-stream`."),
            flag("download", "Have a browser save it."),
            header("Range", "A part, in bytes.", TEXT, example="bytes=0-3"),
            header("If-Range", "The part only if the file is still this one.", TEXT),
            IF_MATCH,
            IF_NONE_MATCH,
            header("If-Modified-Since", "Only if it was changed since.", TEXT),
            header("If-Unmodified-Since", "Only if it was not changed since.", TEXT),
        ),
    ),
    Operation(
        "put",
        "/v1/fs/file",
        "writeFile",
        "files",
        "Write a file, whole or not at all",
        (
            Answer(
                200,
                "It is on the disk.",
                {"application/json": record({"path": TEXT, "bytesWritten": COUNT})},
                ETAG,
            ),
        ),
        (*WRITING, *STREAMED_BODY, Trouble("precondition_failed")),
        (
            PATH,
            flag("append", "Add the body to what is there."),
            query("mode", "Its permissions, in octal digits.", PERMISSIONS),
            IF_MATCH,
            IF_NONE_MATCH,
        ),
        Body({"application/octet-stream": None}, "The content, of any size and type.", required=False),
    ),
    Operation(
        "delete",
        "/v1/fs/entry",
        "deleteEntry",
        "files",
        "Delete a file, a link or a directory",
        (document("It is gone.", TOLD),),
        FILES,
        (PATH, flag("recursive", "Also a directory that is not empty.")),
    ),
    Operation(
        "post",
        "/v1/fs/mkdir",
        "makeDirectory",
        "files",
        "Make a directory, with all above it",
        (document("It is there.", TOLD),),
        WRITING,
        (query("path", "Absolute, or below HOME.", TEXT, required=True, example="notes/2026"),),
    ),
    Operation(
        "post",
        "/v1/fs/move",
        "moveEntry",
        "files",
        "Rename a file or directory, also to another file system",
        (document("It is moved.", record({"from": TEXT, "to": TEXT})),),
        (*WRITING, *JSON_BODY),
        body=json_body(MoveBody, example={"from": "notes/today.txt", "to": "notes/moved.txt", "overwrite": True}),
    ),
    Operation(
        "post",
        "/v1/fs/chmod",
        "setMode",
        "files",
        "Set permissions",
        (document("They are set.", record({"path": TEXT, "mode": PERMISSIONS})),),
        FILES,
        (PATH, query("mode", "Three or four octal digits.", PERMISSIONS, required=True, example="0640")),
    ),
)
