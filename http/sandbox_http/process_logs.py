"""The output of a process: what there is, as JSON, or from there on as it comes, as Server-sent events.

log    one piece of output; its id is its number, for `Last-Event-ID`
gap    pieces were dropped before this reader came to them
exit   the process has exited, and all of its output was told; the stream ends
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Response, request

from sandbox_actors.processes import Gap

from .numbers import event_number
from .problems import Problem
from .process_answers import exit_members
from .process_bodies import number
from .requests import flag
from .streams import HEARTBEAT, HEARTBEAT_COMMENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.envelope import Json
    from sandbox_actors.processes import Entry, LogCursor, Process, Stream

__all__ = ["log_response"]

STREAMS: dict[str, frozenset[Stream]] = {
    "stdout": frozenset({"stdout"}),
    "stderr": frozenset({"stderr"}),
    "combined": frozenset({"stdout", "stderr"}),
    "pty": frozenset({"pty"}),
}
"""What clients call them, and what they are."""


def log_response(process: Process) -> Response:
    """The answer to the present request for a process's output.

    Raises:
      Problem: a parameter makes no sense.
    """
    stream = request.args.get("stream", "combined" if process.spec.tty is None else "pty")
    if stream not in STREAMS:
        raise Problem("invalid_request", f"unknown stream {stream!r}, expected one of {', '.join(STREAMS)}")
    tail, since, following = number("tail"), number("since") or 0, flag("follow")
    since = max(since, event_number(request.headers.get("Last-Event-ID", ""), "Last-Event-ID") or 0)
    floor = process.log.floor
    entries = [entry for entry in process.log.after(since) if entry.stream in STREAMS[stream]]
    if tail is not None:
        entries = entries[len(entries) - tail :] if 0 < tail <= len(entries) else entries if tail else []
        since = entries[0].sequence - 1 if entries else max(since, process.log.head)
    if following:
        return _follow(process, process.log.cursor(since), stream)
    answer: dict[str, Json] = {"processId": process.id, "stream": stream, "entries": [_members(one) for one in entries]}
    if tail is None and floor - 1 - since > 0:
        answer["gap"] = {"from": since + 1, "to": floor - 1}
    return Response(msgspec.json.encode(answer), content_type="application/json")


def _follow(process: Process, cursor: LogCursor, stream: str) -> Response:
    body = _events(process, cursor, stream) if request.method == "GET" else b""
    response = Response(body, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"
    response.timeout = None
    return response


async def _events(process: Process, cursor: LogCursor, stream: str) -> AsyncIterator[bytes]:
    # Hypercorn sends the head of a response together with the first piece of its body.
    yield HEARTBEAT_COMMENT
    while True:
        read: list[Entry] | Gap | None = None
        with trio.move_on_after(HEARTBEAT):
            try:
                read = await anext(cursor)
            except StopAsyncIteration:
                break
        if read is None:
            yield HEARTBEAT_COMMENT
        elif isinstance(read, Gap):
            members: dict[str, Json] = {"from": read.first, "to": read.last}
            yield _event(b"gap", members if read.bytes is None else {**members, "bytes": read.bytes})
        elif events := b"".join([_log_event(entry) for entry in read if entry.stream in STREAMS[stream]]):
            yield events
    yield _event(b"exit", {"processId": process.id, **exit_members(process)})


def _members(entry: Entry) -> dict[str, Json]:
    return {
        "sequence": entry.sequence,
        "stream": entry.stream,
        "timestampMs": entry.timestamp_ms,
        "data": _base64(entry.data).decode(),
        "encoding": "base64",
        "offset": entry.offset,
    }


def _log_event(entry: Entry) -> bytes:
    # By hand: text that is base64 needs no looking at, and there may be many thousand of them in a second.
    return (
        b'event: log\nid: %d\ndata: {"sequence":%d,"stream":"%b","timestampMs":%d,"data":"%b","encoding":"base64",'
        b'"offset":%d}\n\n'
    ) % (
        entry.sequence,
        entry.sequence,
        entry.stream.encode(),
        entry.timestamp_ms,
        _base64(entry.data),
        entry.offset,
    )


def _event(name: bytes, members: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, msgspec.json.encode(members))


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
