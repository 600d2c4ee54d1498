"""`/v1/sessions/{id}`, its turns: prompts, what became of them, and their cancelling."""

from __future__ import annotations

from ..sessions.answers import PromptView, TurnView
from ..sessions.bodies import CancelBody
from ..sessions.content import MOST_BLOCKS, Block
from .answers import document
from .operation import Answer, Body, Operation, Shape, Trouble
from .parameters import flag, header, json_body, part
from .schema import TEXT, any_of, items, record
from .sessions import GENERATION, ID, KEY, LATE
from .troubles import FILES, LIMITED, NO_SESSION, SESSION_BODY, TOLD

__all__ = ["OPERATIONS"]

NO_TURN = Trouble("turn_not_found")

TURN = part("turnId", "Of the turn.", TEXT, example="turn_1")

NAME = {"type": "string", "minLength": 1, "maxLength": 256}

PROMPT = Shape(
    "PromptBody",
    {
        **record(
            {
                "content": any_of(
                    {"type": "string", "minLength": 1},
                    {**items(Block), "minItems": 1, "maxItems": MOST_BLOCKS},
                )
            },
            {"acpSessionId": any_of(NAME, {"type": "null"})},
        ),
        "additionalProperties": False,
    },
)

OPERATIONS = (
    Operation(
        "post",
        "/v1/sessions/{id}/prompt",
        "promptSession",
        "sessions",
        "Prompt the agent: a new turn, at once or behind those that wait",
        (
            Answer(202, "It is taken.", {"application/json": TurnView}),
            Answer(
                200,
                "It has ended, and was waited for; with what the agent has said.",
                {"application/json": any_of(PromptView, LATE)},
            ),
        ),
        (
            *SESSION_BODY,
            *TOLD,
            *FILES,
            Trouble("idempotency_conflict"),
            Trouble("queue_full"),
            Trouble("agent_unavailable"),
            LIMITED,
        ),
        (
            ID,
            KEY,
            GENERATION,
            flag("wait", "Answer when the turn has ended."),
            header("Prefer", "Wait for that, but not longer than so many seconds.", TEXT, example="wait=1"),
        ),
        json_body(PROMPT, example={"content": "Hello"}),
        "What takes longer than 5 s gets its head then, with status 200, and blanks until there is more. How a turn"
        " ends is no error of HTTP.",
    ),
    Operation(
        "post",
        "/v1/sessions/{id}/cancel",
        "cancelTurns",
        "sessions",
        "Cancel a turn; without a body, the one that runs and all that wait",
        (Answer(202, "Those that will end so.", {"application/json": record({"turnIds": items(TEXT)})}),),
        (*SESSION_BODY, *TOLD, NO_TURN, Trouble("agent_busy")),
        (ID, GENERATION),
        Body({"application/json": CancelBody}, required=False, example={}),
    ),
    Operation(
        "get",
        "/v1/sessions/{id}/turns",
        "listTurns",
        "sessions",
        "The newest turns that have ended, and those that have not",
        (document("In their order.", record({"turns": items(TurnView)})),),
        (NO_SESSION,),
        (ID,),
    ),
    Operation(
        "get",
        "/v1/sessions/{id}/turns/{turnId}",
        "getTurn",
        "sessions",
        "One turn",
        (document("As it is now.", TurnView),),
        (NO_SESSION, NO_TURN),
        (ID, TURN),
    ),
)
