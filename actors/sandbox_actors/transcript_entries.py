"""What a transcript is made of."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

__all__ = ["Ended", "Entry", "Message", "Missing", "Note", "Plan", "Prompted", "Role", "Told", "ToolCall"]

Role = Literal["user", "agent", "thought", "summary"]


class _Entry(msgspec.Struct, rename="camel", kw_only=True):
    """What all entries have: the number and the time of their first event, and where they belong."""

    seq: int = 0
    at: str = ""
    session_id: str | UnsetType = UNSET
    turn_id: str | UnsetType = UNSET


class Prompted(_Entry, tag="prompt", kw_only=True):
    """A turn begins."""

    content: list[Raw]


class Message(_Entry, tag="message", kw_only=True):
    """What somebody said. `content` has what is no text."""

    role: Role
    text: str = ""
    content: list[Raw] | UnsetType = UNSET


class ToolCall(_Entry, tag="tool_call", kw_only=True):
    """A tool call, as the agent tells it."""

    tool_call_id: Raw | UnsetType = UNSET
    title: Raw | UnsetType = UNSET
    kind: Raw | UnsetType = UNSET
    status: Raw | UnsetType = UNSET
    locations: Raw | UnsetType = UNSET
    raw_input: Raw | UnsetType = UNSET
    raw_output: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET


class Plan(_Entry, tag="plan", kw_only=True):
    """The agent's plan, as it was when the next thing happened."""

    entries: Raw


class Ended(_Entry, tag="turn_ended", kw_only=True):
    """How a turn ended. `error` is the problem of a native turn, or the agent's own error."""

    outcome: Raw | UnsetType = UNSET
    stop_reason: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class Note(_Entry, tag="note", kw_only=True):
    """Something beside the talk, by its kind."""

    kind: str
    params: Raw | UnsetType = UNSET


class Missing(msgspec.Struct, tag="gap", rename={"first": "from", "last": "to"}):
    """Events that are not there any more."""

    first: int
    last: int
    reason: str


Told: TypeAlias = Prompted | Message | ToolCall | Plan | Ended | Note
Entry: TypeAlias = Told | Missing
