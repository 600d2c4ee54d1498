"""`/v1/sessions/{id}`, what happened in it: events, the transcript, and what was used."""

from __future__ import annotations

from sandbox_actors.transcript_entries import Entry

from ..sessions.events import LIMIT, MOST
from ..sessions.exports import TYPES, UsageView
from ..sessions.frames import DIRECTIONS
from ..sessions.selection import LATEST, MOST_KINDS
from .acp import ENVELOPE
from .answers import document
from .operation import Answer, Operation, Shape
from .parameters import flag, header, query
from .schema import COUNT, TEXT, always, any_of, event, integer, items, one_of, record
from .sessions import ID
from .troubles import NO_SESSION, NOT_ACCEPTABLE

__all__ = ["OPERATIONS"]

NUMBER = {"type": "string", "pattern": "^[0-9]{0,19}$"}
"""Of an event; an empty one says nothing."""

EVENT = Shape(
    "SessionEvent",
    record(
        {
            "type": always("event"),
            "seq": COUNT,
            "at": TEXT,
            "kind": TEXT,
            "direction": one_of(*DIRECTIONS.values()),
            "incarnation": COUNT,
            "envelope": ENVELOPE,
        }
    ),
)

GAP = {
    "from": COUNT,
    "to": COUNT,
    "reason": one_of("retention", "ahead", "epoch", "damaged"),
    "next": COUNT,
    "epoch": TEXT,
}

PAGE = Shape(
    "SessionEventPage",
    record(
        {"events": items(EVENT), "next": COUNT, "head": COUNT, "floor": COUNT, "epoch": TEXT},
        {"gap": record(GAP)},
    ),
)

FRAMES = (
    event("event", EVENT, numbered=True),
    event("gap", record({"type": always("gap"), **GAP}), numbered=True),
    event("replay_complete", record({"type": always("replay_complete"), "seq": COUNT}), numbered=True),
    event("heartbeat", record({"type": always("heartbeat"), "seq": COUNT, "at": TEXT}), numbered=True),
    *(event(name, record({"type": always(name)})) for name in ("stopping", "deleted")),
)

SOCKET = (
    "Down: text frames, each the data of one of the events of the event stream. Up, as text frames:"
    ' `{"type":"prompt","content","key","acpSessionId"}`, `{"type":"cancel","turnId"}`,'
    ' `{"type":"permission","permissionId"}` with what answers it, `{"type":"ping"}`, each with an `id` of your choice,'
    ' answered by `{"type":"reply","id"}` or `{"type":"error","id","problem"}`. Closed with 1001 at a shutdown, 1003'
    " after a binary frame, 1009 after one that is too large, 4404 when the session is deleted. The number of an owner"
    " stands in the header, or in the parameter `generation`, of the handshake, and holds for each frame that acts."
)

OPERATIONS = (
    Operation(
        "get",
        "/v1/sessions/{id}/events",
        "readEvents",
        "sessions",
        "Everything that happens in a session: a page of it, or from there on as it comes",
        (
            Answer(
                200,
                "With `Accept: text/event-stream`, without end unless `follow=false`.",
                {"application/json": PAGE, "text/event-stream": any_of(*FRAMES)},
            ),
        ),
        (NO_SESSION, NOT_ACCEPTABLE),
        (
            ID,
            query(
                "after",
                f"The number of the last event that was seen; `{LATEST}`: only what is new. Else from the oldest on.",
                any_of(NUMBER, always(LATEST)),
            ),
            header("Last-Event-ID", "As `after`; it counts more.", NUMBER),
            query("epoch", "The journal that the number belongs to.", TEXT),
            query(
                "kind",
                "Only such events; `turn.*` is all that begin with `turn.`.",
                {**items(TEXT), "maxItems": MOST_KINDS},
            ),
            query("turn", "Only what belongs to this turn.", TEXT),
            query("limit", "Of a page: how many at most.", integer(1, MOST, LIMIT)),
            flag("follow", "Of an event stream: go on with what comes.", default=True),
        ),
        socket=SOCKET,
    ),
    Operation(
        "get",
        "/v1/sessions/{id}/transcript",
        "readTranscript",
        "sessions",
        "The conversation, as people read it",
        (
            Answer(
                200,
                "All of it, written while it is read.",
                {
                    "text/markdown": TEXT,
                    "application/x-ndjson": Entry,
                    "application/json": record({"sessionId": TEXT, "entries": items(Entry)}),
                },
            ),
        ),
        (NO_SESSION,),
        (
            ID,
            query("format", "How it is written.", one_of(*TYPES, default="markdown")),
            query("turn", "Only this turn.", TEXT),
            flag("thoughts", "With what the agent has thought.", default=True),
        ),
    ),
    Operation(
        "get",
        "/v1/sessions/{id}/usage",
        "readUsage",
        "sessions",
        "Tokens and cost, as far as the agent tells them",
        (document("Of the newest turns, and of all.", UsageView),),
        (NO_SESSION,),
        (ID,),
    ),
)
