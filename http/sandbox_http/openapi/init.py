"""`POST /v1/init`: what a daemon is told that was started before anybody knew for whom."""

from __future__ import annotations

from ..init import InitBody
from .answers import document
from .operation import Operation, Trouble
from .parameters import header, json_body
from .schema import TEXT, always, record
from .troubles import JSON_BODY, NO_ENDPOINT

__all__ = ["OPERATIONS"]

OPERATIONS = (
    Operation(
        "post",
        "/v1/init",
        "initialize",
        "init",
        "Give a server that waits its token, its environment and its workspace, once",
        (document("It is open.", record({"status": always("initialized")})),),
        (*JSON_BODY, NO_ENDPOINT, Trouble("token_invalid"), Trouble("already_initialized")),
        (header("X-Sandbox-Agent-Init-Secret", "The secret, where the server was started with one.", TEXT),),
        json_body(InitBody, example={"token": "t0ken", "env": {"GREETING": "hello"}}),
        "It is there on a server that was started with `--await-init`, and nowhere else.",
        early=True,
    ),
)
