"""`/v1/sessions/{id}/permissions`: what an agent asks, and how it is answered."""

from __future__ import annotations

from ..sessions.answers import PermissionView
from ..sessions.bodies import AnswerBody
from .answers import document
from .operation import Operation, Trouble
from .parameters import flag, json_body, part
from .schema import TEXT, items, record
from .sessions import GENERATION, ID
from .troubles import NO_SESSION, SESSION_BODY, TOLD

__all__ = ["OPERATIONS"]

PERMISSION = part("permissionId", "Of the question.", TEXT, example="perm_1")

OPERATIONS = (
    Operation(
        "get",
        "/v1/sessions/{id}/permissions",
        "listPermissions",
        "sessions",
        "What the agent asks",
        (document("The oldest first.", record({"permissions": items(PermissionView)})),),
        (NO_SESSION,),
        (ID, flag("all", "With those that were settled lately, in front of the others.")),
    ),
    Operation(
        "post",
        "/v1/sessions/{id}/permissions/{permissionId}",
        "answerPermission",
        "sessions",
        "Answer; who is first counts",
        (document("As it is settled.", PermissionView),),
        (
            *SESSION_BODY,
            *TOLD,
            Trouble("permission_not_found"),
            Trouble("permission_resolved"),
            Trouble("agent_busy"),
        ),
        (ID, PERMISSION, GENERATION),
        json_body(
            AnswerBody,
            example={"outcome": "allow_once"},
            summary="One of `optionId`; `outcome`: `cancelled`, or a kind of option; and, for an elicitation, `action`:"
            " `accept`, with `content`, `decline` or `cancel`.",
        ),
    ),
)
