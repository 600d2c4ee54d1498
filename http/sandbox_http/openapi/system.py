"""What the daemon tells of itself."""

from __future__ import annotations

from .answers import document
from .operation import Operation, Shape, Trouble
from .schema import COUNT, OBJECT, TEXT, always, items, one_of, optional, record

__all__ = ["OPERATIONS"]

NODE = Shape(
    "SupervisionNode",
    record(
        {
            "name": TEXT,
            "kind": TEXT,
            "state": TEXT,
            "incarnation": COUNT,
            "crashes": COUNT,
            "sinceMs": COUNT,
            "mailbox": optional(COUNT),
            "details": OBJECT,
            "children": items({"$ref": "#/components/schemas/SupervisionNode"}),
        }
    ),
)

DOCUMENT = record(
    {
        "openapi": always("3.1.0"),
        "info": OBJECT,
        "servers": items(OBJECT),
        "security": items(OBJECT),
        "tags": items(OBJECT),
        "paths": OBJECT,
        "components": OBJECT,
    }
)

OPERATIONS = (
    Operation(
        "get",
        "/",
        "about",
        "system",
        "The server's name",
        (document("What this is.", record({"name": TEXT, "docs": TEXT})),),
    ),
    Operation(
        "get",
        "/v1/health",
        "health",
        "system",
        "Whether the process lives",
        (document("It does; before `POST /v1/init`, it waits.", record({"status": one_of("ok", "awaiting_init")})),),
        early=True,
    ),
    Operation(
        "get",
        "/v1/ready",
        "ready",
        "system",
        "Whether new work is taken",
        (document("It is.", record({"status": always("ready")})),),
        (Trouble("shutting_down"), Trouble("journal_unavailable")),
    ),
    Operation(
        "get",
        "/v1/supervisor",
        "supervisor",
        "system",
        "The supervision tree, and the journal's epoch",
        (document("The tree as it is now.", record({"epoch": TEXT, "tree": NODE})),),
    ),
    Operation(
        "get",
        "/openapi.json",
        "openapi",
        "system",
        "This document",
        (document("An OpenAPI 3.1 document.", DOCUMENT),),
    ),
)
