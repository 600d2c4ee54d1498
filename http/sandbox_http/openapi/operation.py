"""One operation of the API, described: what it takes, what it answers, by which problems it refuses.

These are values and nothing else; `document` makes the text of them that clients read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from types import UnionType

    from sandbox_actors.envelope import Json

__all__ = ["Answer", "Body", "Content", "Method", "Operation", "Parameter", "Schema", "Shape", "Trouble"]

Method: TypeAlias = Literal["get", "head", "post", "put", "patch", "delete", "options"]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A schema with a name of its own: a component that others point to."""

    name: str
    schema: Schema


Schema: TypeAlias = "Mapping[str, object] | Shape | type[object] | UnionType"
"""JSON Schema, with a `Shape` or one of our structs anywhere in the place of a schema."""

Content: TypeAlias = Mapping[str, "Schema | None"]
"""By media type. Of a stream (`text/event-stream`, `application/x-ndjson`) it is the schema of one event, or line.
None: bytes that JSON Schema has nothing to say about."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request carries beside its body.

    Attributes:
      place: where; a part of the path has to be there, whatever `required` says.
      example: something that makes sense.
    """

    name: str
    place: Literal["query", "path", "header"]
    summary: str
    schema: Schema
    required: bool = False
    example: Json = None


@dataclass(frozen=True, slots=True)
class Body:
    content: Content
    summary: str = ""
    required: bool = True
    example: Json = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes where nothing is wrong.

    Attributes:
      status: None for whichever another application answers with.
      headers: those that a client may need, with what each says.
    """

    status: int | None
    summary: str
    content: Content = field(default_factory=dict[str, "Schema | None"])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem that may be the answer.

    Attributes:
      name: a row of the table of problems.
      status: where it is not the table's.
    """

    name: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """See the module.

    Attributes:
      path: as the routes have it, each parameter in braces.
      id: unique, a name for a function.
      troubles: beside those that every operation has.
      socket: what is spoken where the request is the handshake of a WebSocket; empty where it must not be.
      early: whether it is also served by a daemon that waits for `POST /v1/init`.
    """

    method: Method
    path: str
    id: str
    tag: str
    summary: str
    answers: tuple[Answer, ...]
    troubles: tuple[Trouble, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    description: str = ""
    socket: str = ""
    early: bool = False
