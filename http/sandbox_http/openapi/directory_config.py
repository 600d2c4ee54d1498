"""`/v1/config`: MCP servers and skills that are stored for a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_actors.directory_config.entries import McpServer, Skills

from .answers import NOTHING, document
from .operation import Operation, Shape, Trouble
from .parameters import json_body, query
from .schema import COUNT, FLAG, TEXT, any_of, items, one_of, optional, record, table
from .troubles import FILES, JSON_BODY, OVERLOADED

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json

    from .operation import Schema

__all__ = ["OPERATIONS"]

DIRECTORY = query("directory", "Absolute, or below HOME.", TEXT, required=True, example="app")

OAUTH = record({}, dict.fromkeys(("clientId", "clientSecret", "scope"), optional(TEXT)))

LOCAL = Shape(
    "LocalServerBody",
    record(
        {"type": one_of("local", "stdio"), "command": any_of(TEXT, items(TEXT))},
        {
            "args": items(TEXT),
            "env": optional(table(TEXT)),
            "cwd": optional(TEXT),
            "enabled": optional(FLAG),
            "timeoutMs": optional(COUNT),
        },
    ),
)

REMOTE = Shape(
    "RemoteServerBody",
    record(
        {"type": one_of("remote", "http"), "url": TEXT},
        {
            "headers": optional(table(TEXT)),
            "bearerTokenEnvVar": optional(TEXT),
            "envHeaders": optional(table(TEXT)),
            "oauth": optional(any_of(FLAG, OAUTH)),
            "enabled": optional(FLAG),
            "timeoutMs": optional(COUNT),
            "transport": optional(one_of("http", "sse")),
        },
    ),
)
"""What is taken has more names than what is stored, and fewer members that have to be there."""


def _operations(
    kind: str, name: str, alias: str, entry: Schema, taken: Schema, what: str, example: Json
) -> tuple[Operation, ...]:
    path = f"/v1/config/{kind}"
    of = (
        DIRECTORY,
        query(name, f"Of the entry; also `{alias}`.", TEXT, required=True, example="files"),
    )
    title = kind.capitalize()
    return (
        Operation(
            "get",
            path,
            f"get{title}",
            "config",
            f"{what} that is stored",
            (document("The entry.", entry),),
            (*FILES, Trouble("session_not_found")),
            of,
        ),
        Operation(
            "put",
            path,
            f"put{title}",
            "config",
            f"Store {what[0].lower()}{what[1:]}",
            (NOTHING,),
            (*FILES, *JSON_BODY, OVERLOADED),
            of,
            json_body(taken, example=example),
        ),
        Operation(
            "delete",
            path,
            f"delete{title}",
            "config",
            "Delete an entry; what is not there is fine",
            (NOTHING,),
            (*FILES, OVERLOADED),
            of,
        ),
    )


OPERATIONS = (
    *_operations(
        "mcp",
        "mcpName",
        "mcp_name",
        McpServer,
        any_of(LOCAL, REMOTE),
        "An MCP server",
        {"type": "local", "command": "npx", "args": ["server"]},
    ),
    *_operations(
        "skills",
        "skillName",
        "skill_name",
        Skills,
        Skills,
        "A set of skills",
        {"sources": [{"type": "local", "source": "/srv/skills"}]},
    ),
)
