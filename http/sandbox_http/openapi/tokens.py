"""`/v1/tokens` and `/v1/tickets`: who may come in."""

from __future__ import annotations

from ..token_routes import NewTokenView, RotateBody, TicketBody, TicketView, TokenBody, TokenView
from .answers import NOTHING, document
from .operation import Answer, Operation, Trouble
from .parameters import json_body, part
from .schema import TEXT, items, record
from .troubles import JSON_BODY

__all__ = ["OPERATIONS"]

NAME = part("name", "Of the token.", TEXT, example="dashboard")

NO_TOKEN = Trouble("not_found")
NOT_NOW = Trouble("conflict")
NOT_KEPT = Trouble("insufficient_storage")

OPERATIONS = (
    Operation(
        "get",
        "/v1/tokens",
        "listTokens",
        "tokens",
        "All tokens, but not their texts",
        (document("Those that hold.", record({"tokens": items(TokenView)})),),
    ),
    Operation(
        "post",
        "/v1/tokens",
        "createToken",
        "tokens",
        "Make a token",
        (Answer(201, "It holds; its text is told this once.", {"application/json": NewTokenView}),),
        (*JSON_BODY, NOT_NOW, NOT_KEPT),
        body=json_body(TokenBody, example={"name": "dashboard", "scopes": ["read"], "expiresIn": 3600}),
        description="A server that was started without a token makes none.",
    ),
    Operation(
        "post",
        "/v1/tokens/{name}/rotate",
        "rotateToken",
        "tokens",
        "Make a token in the place of one, which holds for a while still",
        (Answer(201, "It holds; its text is told this once.", {"application/json": NewTokenView}),),
        (*JSON_BODY, NO_TOKEN, NOT_NOW, NOT_KEPT),
        (NAME,),
        json_body(RotateBody, example={"overlap": 300}),
    ),
    Operation(
        "delete",
        "/v1/tokens/{name}",
        "revokeToken",
        "tokens",
        "Take a token back; streams that were opened with it end",
        (NOTHING,),
        (NO_TOKEN, NOT_NOW, NOT_KEPT),
        (NAME,),
    ),
    Operation(
        "post",
        "/v1/tickets",
        "createTicket",
        "tokens",
        "Make a ticket: it stands in a URL in the place of a token, for one path, and for a short time",
        (Answer(201, "It holds.", {"application/json": TicketView}),),
        (*JSON_BODY, Trouble("not_found"), Trouble("forbidden_scope")),
        body=json_body(TicketBody, example={"path": "/v1/fs/file?path=notes/today.txt"}),
    ),
)
