"""`/v1/acp`: raw ACP over HTTP."""

from __future__ import annotations

from typing import get_args

from sandbox_actors.session import State

from .answers import NOTHING, document, stream
from .operation import Answer, Operation, Shape, Trouble
from .parameters import flag, header, json_body, part, query
from .schema import ANYTHING, COUNT, OBJECT, TEXT, always, any_of, event, items, one_of, record
from .troubles import JSON_BODY, NOT_ACCEPTABLE, OVERLOADED, SHUTTING_DOWN

__all__ = ["OPERATIONS"]

ID = part("server_id", "Any string: it names one agent process and the log of everything it says.", TEXT, example="s1")

AGENT = query("agent", "The agent of a new session.", TEXT, example="mock")

EPOCH = query("epoch", "The journal that the number of the last event belongs to.", TEXT)

SERVER = Shape(
    "AcpServer",
    record(
        {
            "serverId": TEXT,
            "agent": TEXT,
            "createdAtMs": COUNT,
            "status": one_of(*get_args(State)),
        }
    ),
)

ENVELOPE = Shape(
    "JsonRpcEnvelope",
    {
        "type": "object",
        "description": "A JSON-RPC 2.0 message: a request, a notification or an answer.",
        "properties": {"jsonrpc": TEXT, "method": TEXT, "params": ANYTHING},
    },
)

RESPONSE = Shape(
    "JsonRpcResponse",
    {
        "description": "A JSON-RPC 2.0 answer, the agent's or, with `error.data.type`, the daemon's.",
        **any_of(
            record({"id": ANYTHING, "result": ANYTHING}, {"jsonrpc": always("2.0")}),
            record({"id": ANYTHING, "error": OBJECT}, {"jsonrpc": always("2.0")}),
        ),
    },
)

SOCKET = (
    "Each text frame is one JSON-RPC envelope, in both directions. Closed with 1001 at a shutdown, 1003 after a binary"
    " frame, 1009 after one that is too large, 4404 when the session is deleted."
)

MAKING = (
    Trouble("unsupported_agent"),
    Trouble("agent_not_installed"),
    Trouble("conflict"),
    Trouble("install_failed"),
    Trouble("stream_error"),
    Trouble("journal_unavailable"),
    Trouble("agent_limit"),
    OVERLOADED,
    SHUTTING_DOWN,
)
"""A session with this agent cannot be had."""

OPERATIONS = (
    Operation(
        "get",
        "/v1/acp",
        "listAcpServers",
        "acp",
        "All sessions",
        (document("The sessions, by id.", record({"servers": items(SERVER)})),),
    ),
    Operation(
        "post",
        "/v1/acp/{server_id}",
        "sendEnvelope",
        "acp",
        "Say something to the agent",
        (
            Answer(200, "The answer to a request.", {"application/json": RESPONSE}, {"Retry-After": "Seconds."}),
            Answer(202, "A notification or an answer was passed on; the body is empty."),
        ),
        (*JSON_BODY, NOT_ACCEPTABLE, Trouble("session_closed"), *MAKING),
        (ID, AGENT),
        json_body(
            ENVELOPE, example={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
        ),
        "What becomes of the agent while it works is no error of HTTP: the status is 200, the body a JSON-RPC error.",
    ),
    Operation(
        "get",
        "/v1/acp/{server_id}",
        "followEvents",
        "acp",
        "Everything the agent says, from behind an event on, without end",
        (
            stream(
                "The events.",
                event("message", ENVELOPE, numbered=True),
                headers={"Sandbox-Agent-Epoch": "The journal that the numbers belong to."},
            ),
        ),
        (Trouble("session_not_found"), NOT_ACCEPTABLE, *MAKING),
        (
            ID,
            header("Last-Event-ID", "Start behind this event; without it, at the beginning.", COUNT, example=1),
            EPOCH,
            query("after", "Of a WebSocket: start behind this event; without it, with what happens from now.", COUNT),
            flag("seq", "Of a WebSocket: whether each event carries its number as a member `seq`."),
            query("agent", "Of a WebSocket: the agent of a new session.", TEXT),
        ),
        description="Waits up to a second for a session that is not there yet. A WebSocket with `agent` makes one.",
        socket=SOCKET,
    ),
    Operation(
        "delete",
        "/v1/acp/{server_id}",
        "deleteAcpServer",
        "acp",
        "Stop the agent, forget the events; what is not there is fine",
        (NOTHING,),
        (OVERLOADED, Trouble("journal_unavailable")),
        (ID,),
    ),
)
