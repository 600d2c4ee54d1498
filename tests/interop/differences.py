"""Where this server answers otherwise than the public one, step by step of the scenarios, and the row that says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interop.npm_script import Facts

__all__ = ["ADDED", "ADDITIONS", "DIFFERENCES", "Difference"]

ADDITIONS = frozenset(
    {
        *("dangling", "mode", "symlink", "target"),  # of files
        *("maxExitedProcesses", "maxExitedLogBytes", "maxTerminals", "terminalScrollbackBytes", "terminalIdleMs"),
        *("signal", "endedBy", "restarts", "user", "limits"),  # of processes
        *("offset", "gap"),  # of their output
    }
)
"""Members of results that the public server does not have; a client that knows none of them sees no difference.

The row for them in `docs/compatibility.md` begins with `ADDED`.
"""

ADDED = "answers have their members alone"


@dataclass(frozen=True, slots=True)
class Difference:
    """One step with two outcomes.

    Attributes:
      step: what the scenario calls it.
      public: its outcome at the public server.
      here: its outcome here.
      row: how the row in `docs/compatibility.md` begins that tells why.
    """

    step: str
    public: Facts
    here: Facts
    row: str


def seen(step: str, public: object, here: object, row: str) -> Difference:
    """Of a step that was seen by other eyes than the package's."""
    return Difference(step, {"seen": public}, {"seen": here}, row)


def result(value: object) -> Facts:
    return {"result": value}


def refused(detail: str) -> Facts:
    return {
        "status": 400,
        "type": "urn:sandbox-agent:error:invalid_request",
        "title": "Invalid Request",
        "detail": f"invalid request: {detail}",
    }


def failed(message: str) -> Facts:
    """As the public server passes on what the system, or a library, has said."""
    return {
        "status": 502,
        "type": "urn:sandbox-agent:error:stream_error",
        "title": "Stream Error",
        "detail": f"stream error: {message}",
        "details": {"message": message},
    }


def ran(output: str) -> dict[str, object]:
    """Of a run whose output was cut."""
    return {
        "exitCode": 0,
        "timedOut": False,
        "stdout": output,
        "stderr": "",
        "stdoutTruncated": True,
        "stderrTruncated": False,
        "durationMs": "<ms>",
    }


def closed(code: int, *frames: object) -> dict[str, object]:
    """A WebSocket that was closed after these frames."""
    return {"told": list(frames), "code": code}


READY = ["ready", {"processId": "proc_2", "type": "ready"}]
EXIT = ["exit", {"exitCode": 7, "type": "exit"}]

NO_PATH = "a path that is too long, or has a NUL"
LINKS = "a dangling link can be neither seen nor deleted"
LOST = "a move that fails, or leads nowhere, deletes"
FAR = "a move to another file system"
LARGE = "uploads over 2 MiB"

FILES = (
    Difference("a name too long", {"status": 502}, {"status": 400}, NO_PATH),
    Difference(
        "a NUL",
        failed("file name contained an unexpected NUL byte"),
        refused("invalid path: it has a NUL character"),
        NO_PATH,
    ),
    Difference(
        "stat a dangling link",
        refused("path not found: <app>/files/list/dangling"),
        result({"path": "<app>/files/list/dangling", "entryType": "file", "size": 7, "modified": "<now>"}),
        LINKS,
    ),
    seen("after moving nothing over a file", False, True, LOST),
    Difference(
        "move onto itself",
        refused("path not found: <app>/files/itself"),
        result({"from": "<app>/files/itself", "to": "<app>/files/itself"}),
        LOST,
    ),
    seen("after moving onto itself", False, True, LOST),
    seen(
        "move to another file system",
        {"status": 502, "gone": False, "there": []},
        {"gone": True, "there": ["traveller"]},
        FAR,
    ),
    Difference(
        "delete a link to a directory",
        failed("Not a directory (os error 20)"),
        result({"path": "<app>/files/d/link1"}),
        LINKS,
    ),
    Difference(
        "delete a dangling link",
        refused("path not found: <app>/files/d/link4"),
        result({"path": "<app>/files/d/link4"}),
        LINKS,
    ),
    seen("write more than 2 MiB", "refused", 2 * 1024 * 1024 + 1, LARGE),
)

HARD_LINKS = "a hard link in an archive is looked up in the server's working directory"
PIPES = "a named pipe in an archive becomes an empty file"
EPOCH = "a file of an archive from 1970-01-01 00:00:00"
PARTS = "an archive that is refused leaves what came before"
ESCAPES = "an archive writes through its own links"
ONTO = "an archive that is unpacked onto a file"

UPLOADS = (
    Difference(
        "upload a hard link",
        failed("No such file or directory (os error 2) when hard linking file to <app>/uploads/u4/hard"),
        result({"paths": ["<app>/uploads/u4/file", "<app>/uploads/u4/hard"], "truncated": False}),
        HARD_LINKS,
    ),
    seen("uploaded a hard link", False, "1", HARD_LINKS),
    Difference(
        "upload a FIFO",
        result({"paths": ["<app>/uploads/u5/pipe", "<app>/uploads/u5/next"], "truncated": False}),
        refused("the archive is not safe: 'pipe' is a named pipe; nothing of it was unpacked"),
        PIPES,
    ),
    seen("uploaded with the date of 1970", 1000, 0, EPOCH),
    seen("uploaded upwards", {"first": True, "escaped": False}, {"first": False, "escaped": False}, PARTS),
    seen("uploaded to a root", True, False, PARTS),
    seen(
        "upload through a link",
        {"first": True, "escaped": True},
        {"status": 400, "first": False, "escaped": False},
        ESCAPES,
    ),
    seen(
        "upload a hard link outwards",
        {"first": True, "stolen": True},
        {"status": 400, "first": False, "stolen": False},
        ESCAPES,
    ),
    seen("upload cut short", {"status": 502, "first": True}, {"status": 502, "first": False}, PARTS),
    Difference("upload onto a file", {"status": 502}, {"status": 400}, ONTO),
)

CUT = "text is cut in the middle of a character"
TREE = "a run that takes too long, a stop and a kill reach the direct child alone"
WAITS = "a run waits for whoever has inherited its output"
FOLLOW = "a log that is followed never ends"
CHUNK = "a piece of output larger than the log empties it"
SORTED = "processes are listed in the order of their ids as text"
NAMES = "a failed start takes an id"

PROCESSES = (
    Difference("run cut within a character", result(ran("a\ufffd")), result(ran("a")), CUT),
    seen(
        "run too long with a child",
        {"prompt": False, "exitCode": None, "timedOut": True},
        {"prompt": True, "exitCode": None, "timedOut": True},
        TREE,
    ),
    seen("what survives a run that took too long", True, False, TREE),
    seen(
        "run with a child in the background",
        {"prompt": False, "exitCode": 0, "timedOut": False},
        {"prompt": True, "exitCode": 0, "timedOut": False},
        WAITS,
    ),
    seen("the stream ends with its process", False, True, FOLLOW),
    seen("the stream of what has ended ends", False, True, FOLLOW),
    seen("its child survives", True, False, TREE),
    seen("a log of one great chunk is empty", True, False, CHUNK),
    seen("listed by number", False, True, SORTED),
    seen("names lost by failures", 2, 0, NAMES),
)

NO_SIZE = "a terminal takes a size of 0 by 0"
LIVE_ONLY = "a viewer of a terminal sees only what comes from then on"
CODE = "a terminal's WebSocket is closed without a code"
TERM = "`TERM` is set for `run` alone"

TERMINALS = (
    Difference(
        "resize to nothing",
        result({"cols": 0, "rows": 0}),
        refused("a terminal has at least one row and one column"),
        NO_SIZE,
    ),
    seen("what a viewer sees that comes late", False, True, LIVE_ONLY),
    seen("a viewer that is closed", closed(1005, READY), closed(1000, READY), CODE),
    seen("the end of a terminal", closed(1005, EXIT), closed(1000, EXIT), CODE),
    seen("a viewer after the end", closed(1005, READY, EXIT), closed(1000, READY, EXIT), CODE),
    seen("a viewer after the end sees what was there", False, True, LIVE_ONLY),
    seen("the kind of terminal", "", "xterm-256color", TERM),
)

DIFFERENCES = {"files": FILES, "uploads": UPLOADS, "processes": PROCESSES, "terminals": TERMINALS}
