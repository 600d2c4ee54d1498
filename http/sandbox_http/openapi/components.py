"""The named schemas of the document: hand-made ones, and those of our structs as msgspec tells them.

Two things that are called the same are a mistake, found when the document is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, cast

import msgspec

from sandbox_actors.git.clone import Progress
from sandbox_actors.git.history import BranchInfo, Commit, Head, Log, Person
from sandbox_actors.git.status import Branch, Change, Status
from sandbox_actors.permissions.permission import Option
from sandbox_actors.permissions.policy import Policy, Rule
from sandbox_actors.transcript_entries import Ended, Message, Missing, Note, Plan, Prompted, ToolCall
from sandbox_actors.usage import Context, Tokens, UsageTotal

from ..sessions.answers import PermissionView, PromptView, SessionView, TurnView
from ..sessions.content import Resource
from ..sessions.exports import UsageView
from ..sessions.listing import SessionsView
from ..token_routes import NewTokenView, TicketView, TokenView
from .operation import Shape

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json

    from .operation import Schema

__all__ = ["Components"]

REFERENCE = "#/components/schemas/"

NAMES: Mapping[str, str] = {
    type.__name__: name
    for type, name in (
        (Branch, "GitBranchState"),
        (BranchInfo, "GitBranch"),
        (Change, "GitChange"),
        (Commit, "GitCommit"),
        (Head, "GitHead"),
        (Log, "GitLog"),
        (Person, "GitPerson"),
        (Progress, "GitProgress"),
        (Status, "GitStatus"),
        (Option, "PermissionOption"),
        (PermissionView, "Permission"),
        (Policy, "PermissionPolicy"),
        (Rule, "PermissionRule"),
        (PromptView, "EndedTurn"),
        (Resource, "EmbeddedResource"),
        (SessionView, "Session"),
        (SessionsView, "SessionPage"),
        (TurnView, "Turn"),
        (Ended, "TranscriptTurnEnded"),
        (Message, "TranscriptMessage"),
        (Missing, "TranscriptGap"),
        (Note, "TranscriptNote"),
        (Plan, "TranscriptPlan"),
        (Prompted, "TranscriptPrompt"),
        (ToolCall, "TranscriptToolCall"),
        (Context, "ContextUsage"),
        (Tokens, "TokenCounts"),
        (UsageTotal, "TotalUsage"),
        (UsageView, "SessionUsage"),
        (NewTokenView, "NewToken"),
        (TicketView, "Ticket"),
        (TokenView, "Token"),
    )
}
"""What structs are called here whose own names say enough only where they are at home."""


class Components:
    """See the module.

    Attributes:
      schemas: by name, as far as they are pointed to.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, Json] = {}

    def schema(self, schema: Schema) -> Json:
        """A schema as JSON, which points to what has a name.

        Raises:
          ValueError: another schema has that name.
        """
        if isinstance(schema, Shape):
            self._add(schema.name, self.schema(schema.schema))
            return {"$ref": REFERENCE + schema.name}
        if isinstance(schema, (type, UnionType)):
            return self._struct(schema)
        return {name: self._value(value) for name, value in schema.items()}

    def _value(self, value: object) -> Json:
        if isinstance(value, (Mapping, Shape, type, UnionType)):
            return self.schema(cast("Schema", value))
        if isinstance(value, list):
            return [self._value(one) for one in cast("list[object]", value)]
        return value

    def _struct(self, type: type[object] | UnionType) -> Json:
        (told,), schemas = msgspec.json.schema_components([type], ref_template=REFERENCE + "{name}")
        for name, schema in schemas.items():
            self._add(_named(name), _renamed(schema))
        return _renamed(told)

    def _add(self, name: str, schema: Json) -> None:
        if self.schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two schemas are called {name}")


def _named(name: str) -> str:
    return NAMES.get(name, name.removeprefix("_"))


def _renamed(schema: object) -> Json:
    """What msgspec says, with our names, and without what it has out of docstrings: those speak to who works on us."""
    if isinstance(schema, list):
        return [_renamed(one) for one in cast("list[object]", schema)]
    if isinstance(schema, str) and schema.startswith(REFERENCE):
        return REFERENCE + _named(schema.removeprefix(REFERENCE))
    if not isinstance(schema, dict):
        return schema
    told = {name: _renamed(value) for name, value in cast("dict[str, object]", schema).items()}
    if "title" in told and "properties" in told:
        told.pop("title")
        told.pop("description", None)
    return told
