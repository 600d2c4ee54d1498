"""`/v1/sessions`: sessions are made, found, changed, put to rest and ended."""

from __future__ import annotations

from ..numbers import LARGEST
from ..sessions.answers import STATES, SessionView
from ..sessions.bodies import LONGEST_KEY, ForkBody, PatchBody, SessionBody
from ..sessions.listing import LIMIT, MOST, SessionsView
from ..sessions.owner import GENERATION as GENERATION_HEADER
from .answers import NOTHING, document
from .operation import Answer, Body, Operation, Trouble
from .parameters import header, json_body, part, query
from .problems import PROBLEM
from .schema import TEXT, any_of, integer, items, one_of, record
from .troubles import LIMITED, NO_SESSION, OVERLOADED, SESSION_BODY, SHUTTING_DOWN, STALE, TOLD

__all__ = ["GENERATION", "ID", "KEY", "LATE", "OPERATIONS"]

ID = part("id", "Of the session.", TEXT, example="demo")

KEY = header(
    "Idempotency-Key",
    "Of your choice: what is sent again under it is done once.",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
)

GENERATION = header(
    GENERATION_HEADER,
    "The number of the owner who asks, larger than that of the one before: refused once a larger one was named.",
    {"type": "integer", "minimum": 1, "maximum": LARGEST},
)

LATE = record({"error": PROBLEM})
"""What was refused after the head had been sent."""

MADE = (
    Answer(201, "It is there.", {"application/json": SessionView}, {"Location": "Its path."}),
    Answer(
        200,
        "It was there already, by its key; or it took more than 5 s, and this is what came of it.",
        {"application/json": any_of(SessionView, LATE)},
    ),
)

SLOW = "What takes longer than 5 s gets its head then, with status 200, and blanks until there is more."

TAG = {"type": "string", "pattern": "^[^:]+:"}

OPERATIONS = (
    Operation(
        "post",
        "/v1/sessions",
        "createSession",
        "sessions",
        "Make a session; its agent is installed first where that is needed, and started",
        MADE,
        (
            *SESSION_BODY,
            Trouble("unsupported_agent"),
            Trouble("agent_not_installed"),
            Trouble("conflict"),
            Trouble("session_closed"),
            Trouble("idempotency_conflict"),
            Trouble("agent_auth_required"),
            Trouble("install_failed"),
            Trouble("session_open_failed"),
            Trouble("stream_error"),
            Trouble("journal_unavailable"),
            LIMITED,
            SHUTTING_DOWN,
        ),
        (KEY,),
        json_body(SessionBody, example={"agent": "mock", "id": "demo", "tags": {"team": "a"}}),
        SLOW,
    ),
    Operation(
        "get",
        "/v1/sessions",
        "listSessions",
        "sessions",
        "Sessions, by id; those of `/v1/acp` and `/acp`, too",
        (document("A page.", SessionsView),),
        (),
        (
            query("agent", "Only those of this agent.", TEXT),
            query("state", "Only those in this state.", one_of(*STATES)),
            query("native", "Only those that were made here; `false`: only the others.", {"type": "boolean"}),
            query("tag", "Only those with this tag, as `key:value`; with several, all of them.", items(TAG)),
            query("limit", "How many at most.", integer(1, MOST, LIMIT)),
            query("cursor", "The `nextCursor` of the page before.", TEXT),
        ),
    ),
    Operation(
        "get",
        "/v1/sessions/{id}",
        "getSession",
        "sessions",
        "One session",
        (document("As it is now.", SessionView),),
        (NO_SESSION,),
        (ID,),
    ),
    Operation(
        "patch",
        "/v1/sessions/{id}",
        "changeSession",
        "sessions",
        "Change the terms of a session",
        (document("As it is now; the agent may not have taken up a new mode, model or option yet.", SessionView),),
        (*SESSION_BODY, *TOLD, Trouble("agent_busy")),
        (ID, GENERATION),
        json_body(PatchBody, example={"title": "Mend the door", "tags": {"team": "b"}}),
        "What is not named stays as it is.",
    ),
    Operation(
        "delete",
        "/v1/sessions/{id}",
        "deleteSession",
        "sessions",
        "End a session, and forget it with all its events",
        (NOTHING,),
        (NO_SESSION, OVERLOADED, STALE, Trouble("journal_unavailable")),
        (ID, GENERATION),
    ),
    Operation(
        "post",
        "/v1/sessions/{id}/close",
        "closeSession",
        "sessions",
        "End the agent for good; what was said stays readable",
        (document("As it is now.", SessionView),),
        TOLD,
        (ID, GENERATION),
    ),
    Operation(
        "post",
        "/v1/sessions/{id}/hibernate",
        "hibernateSession",
        "sessions",
        "End an agent that has nothing to do; the next prompt starts it again",
        (Answer(202, "It is being ended.", {"application/json": SessionView}),),
        (*TOLD, Trouble("session_busy"), Trouble("agent_unavailable")),
        (ID, GENERATION),
    ),
    Operation(
        "post",
        "/v1/sessions/{id}/restart",
        "restartSession",
        "sessions",
        "End the agent, and start it again; what it works on fails",
        (Answer(202, "It is being started.", {"application/json": SessionView}),),
        (*TOLD, LIMITED),
        (ID, GENERATION),
    ),
    Operation(
        "post",
        "/v1/sessions/{id}/fork",
        "forkSession",
        "sessions",
        "Make a session that goes on from where this one is",
        MADE,
        (
            *SESSION_BODY,
            *TOLD,
            Trouble("session_busy"),
            Trouble("agent_unavailable"),
            Trouble("agent_busy"),
            Trouble("agent_process_exited"),
            Trouble("restarted"),
            Trouble("not_supported"),
            Trouble("agent_not_installed"),
            Trouble("conflict"),
            Trouble("idempotency_conflict"),
            Trouble("agent_auth_required"),
            Trouble("install_failed"),
            Trouble("session_open_failed"),
            Trouble("stream_error"),
            LIMITED,
            SHUTTING_DOWN,
        ),
        (ID, KEY, GENERATION),
        Body({"application/json": ForkBody}, required=False, example={"title": "Another way"}),
        "It has the agent, the directory, the MCP servers, the variables and the terms of this one, but for what the "
        "body says; `forkedFrom` tells where it comes from. " + SLOW,
    ),
)
