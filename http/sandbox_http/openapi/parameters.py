"""What requests carry, in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operation import Body, Parameter
from .schema import FLAG

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json

    from .operation import Schema

__all__ = ["flag", "header", "json_body", "part", "query"]


def query(name: str, summary: str, schema: Schema, *, required: bool = False, example: Json = None) -> Parameter:
    return Parameter(name, "query", summary, schema, required, example)


def flag(name: str, summary: str, *, default: bool = False) -> Parameter:
    """A query parameter that is `true` or `false`."""
    return Parameter(name, "query", summary, {**FLAG, "default": default})


def header(name: str, summary: str, schema: Schema, *, example: Json = None) -> Parameter:
    return Parameter(name, "header", summary, schema, example=example)


def part(name: str, summary: str, schema: Schema, *, example: Json = None) -> Parameter:
    """A part of the path."""
    return Parameter(name, "path", summary, schema, required=True, example=example)


def json_body(schema: Schema, *, example: Json = None, summary: str = "") -> Body:
    return Body({"application/json": schema}, summary, example=example)
