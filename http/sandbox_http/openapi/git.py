"""`/v1/git`: a repository of the sandbox, and clones of others."""

from __future__ import annotations

from sandbox_actors.git.clone import Progress
from sandbox_actors.git.history import BranchInfo, Head, Log
from sandbox_actors.git.status import Status

from ..git import (
    CHANGES,
    COMMITS,
    DIFF_BYTES,
    LARGEST,
    MOST_CHANGES,
    MOST_COMMITS,
    MOST_DIFF_BYTES,
    AddBody,
    BranchBody,
    CheckoutBody,
    CloneBody,
    CommitBody,
)
from .answers import NOTHING, document, document_or_stream
from .operation import Answer, Operation, Shape, Trouble
from .parameters import flag, json_body, query
from .problems import PROBLEM
from .schema import TEXT, event, integer, items, optional, record
from .troubles import FILES, JSON_BODY, SHUTTING_DOWN, WRITING

__all__ = ["OPERATIONS"]

DIRECTORY = query(
    "directory", "Any directory of a working tree: absolute, or below HOME.", TEXT, required=True, example="app"
)

PATHS = query("path", "Only these, relative to the top of the working tree; any number.", items(TEXT))

LOOKING = (
    *FILES,
    Trouble("repository_not_found"),
    Trouble("git_failed"),
    Trouble("git_not_installed"),
    Trouble("timeout"),
)
CHANGING = (*LOOKING, *JSON_BODY)

CLONE = Shape("GitClone", record({"directory": TEXT, "branch": optional(TEXT), "commit": optional(TEXT)}))

OPERATIONS = (
    Operation(
        "get",
        "/v1/git/status",
        "gitStatus",
        "git",
        "What has changed in a working tree",
        (document("The changes.", Status),),
        LOOKING,
        (DIRECTORY, query("limit", "How many at most.", integer(1, MOST_CHANGES, CHANGES))),
    ),
    Operation(
        "get",
        "/v1/git/diff",
        "gitDiff",
        "git",
        "The difference between two states",
        (
            Answer(
                200,
                "A unified diff, in whatever encoding the files have.",
                {"text/x-diff": None},
                {"X-Truncated": "Whether it was cut, `true` or `false`."},
            ),
        ),
        LOOKING,
        (
            DIRECTORY,
            flag("staged", "Of the index, not of the working tree."),
            query("ref", "From this revision; else from the index, or from HEAD where `staged`.", TEXT, example="HEAD"),
            query("to", "To this revision; needs `ref`, and goes without `staged`.", TEXT),
            PATHS,
            query("maxBytes", "How long at most.", integer(1, MOST_DIFF_BYTES, DIFF_BYTES)),
        ),
    ),
    Operation(
        "get",
        "/v1/git/log",
        "gitLog",
        "git",
        "Commits, the youngest first",
        (document("The commits.", Log),),
        LOOKING,
        (
            DIRECTORY,
            query("ref", "From this revision back.", {**TEXT, "default": "HEAD"}),
            PATHS,
            query("limit", "How many at most.", integer(1, MOST_COMMITS, COMMITS)),
            query("skip", "Without so many of the first.", integer(0, LARGEST, 0)),
        ),
    ),
    Operation(
        "get",
        "/v1/git/branches",
        "gitBranches",
        "git",
        "All branches",
        (document("Our own first, then those of remotes.", record({"branches": items(BranchInfo)})),),
        LOOKING,
        (DIRECTORY,),
    ),
    Operation(
        "post",
        "/v1/git/branches",
        "gitCreateBranch",
        "git",
        "Make a branch, without going there",
        (NOTHING,),
        CHANGING,
        (DIRECTORY,),
        json_body(BranchBody, example={"name": "door"}),
    ),
    Operation(
        "delete",
        "/v1/git/branches",
        "gitDeleteBranch",
        "git",
        "Delete a branch",
        (NOTHING,),
        LOOKING,
        (
            DIRECTORY,
            query("name", "Of the branch.", TEXT, required=True, example="door"),
            flag("force", "Also where its commits are nowhere else."),
        ),
    ),
    Operation(
        "post",
        "/v1/git/checkout",
        "gitCheckout",
        "git",
        "Go to a branch or a commit, or put paths back",
        (document("Where HEAD is now.", Head),),
        CHANGING,
        (DIRECTORY,),
        json_body(CheckoutBody, example={"branch": "main"}),
    ),
    Operation(
        "post",
        "/v1/git/add",
        "gitAdd",
        "git",
        "Put paths, or all that has changed, into the index",
        (NOTHING,),
        CHANGING,
        (DIRECTORY,),
        json_body(AddBody, example={}),
    ),
    Operation(
        "post",
        "/v1/git/commit",
        "gitCommit",
        "git",
        "Make a commit",
        (document("Its full name.", record({"commit": TEXT})),),
        CHANGING,
        (DIRECTORY,),
        json_body(
            CommitBody,
            example={"message": "Fix it", "allowEmpty": True, "author": {"name": "Ada", "email": "ada@example.org"}},
        ),
    ),
    Operation(
        "post",
        "/v1/git/clone",
        "gitClone",
        "git",
        "Clone a repository; who leaves ends it",
        (
            document_or_stream(
                "It is there. With `Accept: text/event-stream`, how it comes.",
                CLONE,
                event("progress", Progress),
                event("cloned", CLONE),
                event("failed", PROBLEM),
            ),
        ),
        (*WRITING, *JSON_BODY, Trouble("git_remote_failed"), *LOOKING, SHUTTING_DOWN),
        (query("directory", "Where to: absolute, or below HOME.", TEXT, required=True, example="clone"),),
        json_body(CloneBody, example={"url": "https://example.org/app.git", "depth": 1}),
    ),
)
