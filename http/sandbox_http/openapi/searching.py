"""`/v1/fs/watch`, `find` and `grep`: what happens in a tree, and what is in it."""

from __future__ import annotations

from sandbox_actors.files.entries import Entry

from ..searching import LONGEST, MOST, SECONDS
from .answers import stream
from .operation import Answer, Operation, Shape
from .parameters import flag, query
from .problems import PROBLEM
from .schema import COUNT, FLAG, TEXT, always, any_of, event, integer, items, one_of, optional, record
from .troubles import FILES, OVERLOADED

__all__ = ["OPERATIONS"]

NDJSON = "application/x-ndjson"

FOLDER = query("path", "A folder: absolute, or below HOME.", TEXT, required=True, example="notes")

CHANGE = Shape(
    "Change",
    record(
        {
            "type": one_of("created", "modified", "deleted", "moved"),
            "path": TEXT,
            "entryType": one_of("file", "directory"),
        },
        {"from": TEXT},
    ),
)

READY = record({"type": always("ready"), "path": TEXT, "folders": COUNT})
OVERFLOW = record({"type": always("overflow"), "reason": one_of("queue", "watches"), "message": TEXT})
GONE = record({"type": always("gone"), "path": TEXT})
STOPPING = record({"type": always("stopping")})

SUMMARY = {
    "engine": one_of("ripgrep", "python"),
    "truncated": FLAG,
    "reason": optional(one_of("limit", "deadline")),
    "passedOver": COUNT,
}

MATCH = Shape(
    "Match",
    record(
        {
            "type": always("match"),
            "path": TEXT,
            "line": COUNT,
            "column": COUNT,
            "text": TEXT,
            "matches": items(record({"start": COUNT, "end": COUNT})),
        },
        {"cut": FLAG},
    ),
)

FOUND = Shape("FoundEntry", {"allOf": [Entry, record({"type": always("entry")})]})

GLOBS = query("glob", "Only these paths; any number; `!` leaves out.", items(TEXT), example=["*.txt"])

BOUNDS = (
    query(
        "limit", "How much at most; in one document there are never more than 10,000.", integer(1, 999_999_999, 1000)
    ),
    query("timeout", f"Seconds, never more than {LONGEST:g}.", integer(1, 999_999_999, int(SECONDS))),
)


def _answer(member: str, found: Shape) -> Answer:
    begin = record({"type": always("begin"), "path": TEXT, "engine": one_of("ripgrep", "python")})
    end = record({"type": always("end"), "count": COUNT, **SUMMARY})
    failed = record({"type": always("error"), "problem": PROBLEM})
    return Answer(
        200,
        f"What was found. With `Accept: {NDJSON}` line by line, up to {MOST:,}.",
        {
            "application/json": record({"path": TEXT, member: items(found), **SUMMARY}),
            NDJSON: any_of(begin, found, end, failed),
        },
    )


OPERATIONS = (
    Operation(
        "get",
        "/v1/fs/watch",
        "watchTree",
        "searching",
        "What happens in a tree, without end",
        (
            stream(
                "The changes, after `ready`.",
                event("ready", READY),
                *(event(kind, CHANGE) for kind in ("created", "modified", "deleted", "moved")),
                event("overflow", OVERFLOW),
                event("gone", GONE),
                event("stopping", STOPPING),
            ),
        ),
        (*FILES, OVERLOADED),
        (FOLDER, flag("recursive", "Also in the folders below.", default=True)),
        socket="Each text frame is the data of one of the events. Closed with 4404 when the folder is gone, 1001 at a"
        " shutdown.",
    ),
    Operation(
        "get",
        "/v1/fs/find",
        "findEntries",
        "searching",
        "Files and folders by their names",
        (_answer("entries", FOUND),),
        (*FILES, OVERLOADED),
        (FOLDER, GLOBS, query("type", "Only these.", one_of("file", "directory")), *BOUNDS),
    ),
    Operation(
        "get",
        "/v1/fs/grep",
        "grepFiles",
        "searching",
        "Lines of files",
        (_answer("matches", MATCH),),
        (*FILES, OVERLOADED),
        (
            query("path", "A folder or a file: absolute, or below HOME.", TEXT, required=True, example="notes"),
            query("pattern", "A regular expression, of one line.", TEXT, required=True, example="hel+o"),
            flag("fixed", "The pattern is plain text."),
            flag("ignoreCase", "In any case."),
            GLOBS,
            *BOUNDS,
        ),
    ),
)
