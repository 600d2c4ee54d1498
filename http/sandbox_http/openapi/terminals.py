"""The terminal of a process: its size, and its WebSocket."""

from __future__ import annotations

from ..process_bodies import SizeBody
from .answers import document
from .operation import Operation, Trouble
from .parameters import json_body, query
from .processes import ID, NO_PROCESS
from .schema import COUNT, TEXT, record
from .troubles import JSON_BODY, OVERLOADED

__all__ = ["OPERATIONS"]

SOCKET = (
    'Down: a text frame `{"type":"ready","processId"}`, binary frames with what the terminal shows, and at its end a'
    ' text frame `{"type":"exit","exitCode"}`; `{"type":"skipped","bytes"}` where this viewer missed some,'
    ' `{"type":"error","message"}` where a frame was not taken. Up, as text frames:'
    ' `{"type":"input","data","encoding"}`, `{"type":"resize","cols","rows"}`, `{"type":"takeover"}`,'
    ' `{"type":"release"}`, `{"type":"close"}`.'
)

OPERATIONS = (
    Operation(
        "post",
        "/v1/processes/{id}/terminal/resize",
        "resizeTerminal",
        "terminals",
        "Give a terminal another size",
        (document("The size that it has now.", record({"cols": COUNT, "rows": COUNT})),),
        (*JSON_BODY, NO_PROCESS, Trouble("conflict"), OVERLOADED),
        (ID,),
        json_body(SizeBody, example={"cols": 132, "rows": 43}),
    ),
    Operation(
        "get",
        "/v1/processes/{id}/terminal/ws",
        "viewTerminal",
        "terminals",
        "The WebSocket of a terminal",
        (),
        (NO_PROCESS, Trouble("conflict")),
        (ID, query("access_token", "The token, since a browser can add no header.", TEXT)),
        socket=SOCKET,
    ),
)
