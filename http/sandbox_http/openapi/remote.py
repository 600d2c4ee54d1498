"""`/acp`: the remote transport of the Agent Client Protocol."""

from __future__ import annotations

from ..remote.routes import CONNECTION, SESSION
from .acp import ENVELOPE, MAKING, RESPONSE
from .answers import stream
from .operation import Answer, Operation, Trouble
from .parameters import header, json_body, query
from .schema import TEXT, event
from .troubles import NO_SESSION, NOT_ACCEPTABLE, STREAMED_BODY

__all__ = ["OPERATIONS"]

OF = header(CONNECTION, "Of the connection, from the answer to `initialize`.", TEXT, example="acpc_1")

NO_CONNECTION = Trouble("not_found")

AGENT = query("agent", "Of a new connection: its agent.", TEXT, example="mock")
JOINED = query("session", "Of a new connection: the session of the server's that it comes to; else a new one.", TEXT)

AGENT_HEADERS = tuple(
    header(name, "As `agent`, where a client cannot change the URL.", TEXT) for name in ("Sandbox-Agent", "Acp-Agent")
)

SAYING = (Trouble("session_closed"), Trouble("agent_unavailable"), Trouble("agent_busy"))
"""The agent cannot be told anything at present."""

SOCKET = (
    "A connection of its own: each text frame is one JSON-RPC envelope, in both directions, `initialize` first. The"
    f" answer to the handshake has `{CONNECTION}`. Closed with 1000 when the connection is deleted, 1001 at a shutdown,"
    " 1009 after a frame that is too large, 4404 when the session is deleted."
)

OPERATIONS = (
    Operation(
        "post",
        "/acp",
        "sendToAgent",
        "remote",
        "Send an envelope: `initialize` makes a connection, all else needs one",
        (
            Answer(
                200,
                f"The answer to `initialize`; also as `result.connectionId`, the `{CONNECTION}`.",
                {"application/json": RESPONSE},
                {CONNECTION: "Of the new connection."},
            ),
            Answer(202, "It is passed on; what comes of it comes on an event stream."),
        ),
        (
            *STREAMED_BODY,
            Trouble("unsupported_media_type"),
            Trouble("not_supported"),
            NO_CONNECTION,
            NO_SESSION,
            *SAYING,
            *MAKING,
        ),
        (
            OF,
            header(SESSION, "The ACP session that it is about, where its params do not say.", TEXT),
            AGENT,
            JOINED,
            *AGENT_HEADERS,
        ),
        json_body(
            ENVELOPE,
            example={"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}},
        ),
    ),
    Operation(
        "get",
        "/acp",
        "followAgent",
        "remote",
        "What a connection is told: of one ACP session, or of none, without end",
        (
            stream(
                "The envelopes.",
                event("message", ENVELOPE, numbered=True),
                headers={CONNECTION: "Of the connection."},
            ),
        ),
        (NO_CONNECTION, NO_SESSION, NOT_ACCEPTABLE, *SAYING, *MAKING),
        (
            OF,
            header(SESSION, "The ACP session; without it, what belongs to none.", TEXT, example="mock-1"),
            header("Last-Event-ID", "Start behind this event; else where the last such stream was.", TEXT, example="0"),
            AGENT,
            JOINED,
            *AGENT_HEADERS,
        ),
        description="What is about the session or the agent of a new connection is of a WebSocket.",
        socket=SOCKET,
    ),
    Operation(
        "delete",
        "/acp",
        "endConnection",
        "remote",
        "End a connection; its sessions stay",
        (Answer(202, "It is ended; the answer is empty."),),
        (NO_CONNECTION,),
        (OF,),
    ),
)
