"""Pieces of JSON Schema (draft 2020-12), for what is described by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_actors.envelope import Json

    from .operation import Schema

__all__ = [
    "ANYTHING",
    "COUNT",
    "FLAG",
    "NUMBER",
    "OBJECT",
    "TEXT",
    "always",
    "any_of",
    "event",
    "integer",
    "items",
    "one_of",
    "optional",
    "record",
    "table",
]

ANYTHING: Mapping[str, object] = {}
TEXT: Mapping[str, object] = {"type": "string"}
FLAG: Mapping[str, object] = {"type": "boolean"}
NUMBER: Mapping[str, object] = {"type": "number"}
COUNT: Mapping[str, object] = {"type": "integer", "minimum": 0}
OBJECT: Mapping[str, object] = {"type": "object"}


def integer(least: int, most: int, default: int | None = None) -> Mapping[str, object]:
    """A number of a range."""
    schema: dict[str, object] = {"type": "integer", "minimum": least, "maximum": most}
    return schema if default is None else {**schema, "default": default}


def one_of(*texts: str, default: str | None = None) -> Mapping[str, object]:
    """One of some texts."""
    schema: dict[str, object] = {"type": "string", "enum": list(texts)}
    return schema if default is None else {**schema, "default": default}


def always(value: Json) -> Mapping[str, object]:
    """This and nothing else."""
    return {"const": value}


def optional(schema: Schema) -> Mapping[str, object]:
    """This, or null."""
    return any_of(schema, {"type": "null"})


def any_of(*schemas: Schema) -> Mapping[str, object]:
    return {"anyOf": list(schemas)}


def items(schema: Schema) -> Mapping[str, object]:
    """A list."""
    return {"type": "array", "items": schema}


def table(values: Schema) -> Mapping[str, object]:
    """An object with any names."""
    return {"type": "object", "additionalProperties": values}


def record(members: Mapping[str, Schema], further: Mapping[str, Schema] | None = None) -> Mapping[str, object]:
    """An object.

    Args:
      members: are always there.
      further: are there where they say something.
    """
    return {"type": "object", "properties": {**members, **(further or {})}, "required": list(members)}


def event(name: str, data: Schema, *, numbered: bool = False) -> Mapping[str, object]:
    """A Server-sent event, in the manner of OpenAPI 3.2: its fields, the data a text that is JSON itself.

    Args:
      numbered: whether it may carry an id, for `Last-Event-ID`.
    """
    told = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return record({"event": always(name), "data": told}, {"id": TEXT} if numbered else None)
