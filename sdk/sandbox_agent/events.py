"""What happens in a session: one class for each kind of event that applications act on.

    match event:
        case MessageChunk(text=text):
            print(text, end="")
        case TurnEnded(outcome="failed", error=error):
            ...
        case Gap():
            ...

Everything else is an `OtherEvent`; so is what has a kind of ours and another shape: no event is an error.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import cached_property
from typing import Any, cast

import msgspec

from .errors import SandboxAgentError
from .models import Json, Permission

__all__ = [
    "AgentExited",
    "AgentFailed",
    "AgentHibernated",
    "AgentRestarted",
    "AgentRestarting",
    "Event",
    "Gap",
    "MessageChunk",
    "ModeChanged",
    "OtherEvent",
    "PermissionRequested",
    "PermissionResolved",
    "PlanEntry",
    "PlanUpdate",
    "SessionClosed",
    "SessionRecovered",
    "ThoughtChunk",
    "ToolCall",
    "ToolCallUpdate",
    "TurnEnded",
    "TurnQueued",
    "TurnStarted",
    "event_of",
    "gap_of",
]


class Event(msgspec.Struct, frozen=True, dict=True, rename="camel", kw_only=True):
    """Something that has happened.

    Attributes:
      seq: its number in the session.
      kind: an update's `sessionUpdate`, the method of another message, `response`, or a notice's name with dots.
      direction: `agent`, `client`, `daemon` or `notice`.
      incarnation: which process of the agent it was.
      raw: the JSON-RPC message as it was, byte by byte.
    """

    seq: int
    at: datetime
    kind: str
    direction: str
    incarnation: int
    raw: bytes

    @cached_property
    def envelope(self) -> dict[str, Json]:
        """The JSON-RPC message, decoded."""
        return _object(_decoded(self.raw))


class OtherEvent(Event, frozen=True):
    """Any other event: see its `kind` and `envelope`."""


class MessageChunk(Event, frozen=True):
    """A piece of what the agent says. `text` is empty where `content` is something else, say an image."""

    text: str = ""
    content: Json = None


class ThoughtChunk(Event, frozen=True):
    """A piece of what the agent thinks."""

    text: str = ""
    content: Json = None


class _Doing(Event, frozen=True):
    """A tool call.

    Attributes:
      tool_kind: `read`, `edit`, `execute`, ...
      status: `pending`, `in_progress`, `completed` or `failed`.
      content, locations, raw_input, raw_output: as ACP has them.
    """

    tool_call_id: str
    title: str | None = None
    tool_kind: str | None = None
    status: str | None = None
    content: Json = None
    locations: Json = None
    raw_input: Json = None
    raw_output: Json = None


class ToolCall(_Doing, frozen=True):
    """The agent begins to do something."""


class ToolCallUpdate(_Doing, frozen=True):
    """It goes on with that, or has ended it; what is None stays as it was."""


class PlanEntry(msgspec.Struct, frozen=True):
    content: str
    status: str = "pending"
    priority: str = "medium"


class PlanUpdate(Event, frozen=True):
    """The agent's plan, all of it, as it is now."""

    entries: tuple[PlanEntry, ...] = ()


class ModeChanged(Event, frozen=True):
    """The session's mode, which the agent may have changed by itself."""

    current_mode_id: str


class TurnQueued(Event, frozen=True):
    """A prompt was taken; so many wait before it."""

    turn_id: str
    waiting: int = 0


class TurnStarted(Event, frozen=True):
    """A prompt goes to the agent."""

    turn_id: str


class TurnEnded(Event, frozen=True):
    """A turn has its outcome; the members are those of `models.Turn`."""

    turn_id: str
    outcome: str
    stop_reason: str | None = None
    error: dict[str, Json] | None = None
    usage: Json = None
    forced: bool = False


class PermissionRequested(Event, frozen=True):
    """The agent asks."""

    permission: Permission


class PermissionResolved(Event, frozen=True):
    """That is settled: how, and by whom."""

    permission_id: str
    outcome: str | None = None
    option_id: str | None = None
    by: str | None = None


class AgentExited(Event, frozen=True):
    """The agent's process has ended; `code` is None where a signal ended it, or nobody saw how."""

    code: int | None = None
    signal: Json = None
    stderr: tuple[str, ...] = ()
    reason: str | None = None


class AgentRestarting(Event, frozen=True):
    """It has crashed so many times in a row, and is started again in so many milliseconds."""

    in_ms: int = 0
    crashes: int = 0


class AgentRestarted(Event, frozen=True):
    """It takes prompts again."""


class AgentFailed(Event, frozen=True):
    """It has crashed too often: only `restart` starts it again."""

    reason: str = ""


class AgentHibernated(Event, frozen=True):
    """It was ended until there is something to do. `reason`: `requested`, `idle` or `room`."""

    reason: str = ""
    idle_ms: int = 0


class SessionRecovered(Event, frozen=True):
    """How much the next process still knows: `resumed`, `loaded`, `replayed`, `new` or `lost`.

    Attributes:
      not_set: modes, models and options that could not be set again.
    """

    fidelity: str
    not_set: tuple[str, ...] = ()


class SessionClosed(Event, frozen=True):
    """A client has closed the session for good."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were asked for are not there.

    Attributes:
      first, last: their numbers.
      reason: `retention`, `damaged`; `ahead` or `epoch`: they never were, in this journal.
      next: the number of the next event there is.
      epoch: of the journal.
    """

    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")
    reason: str
    next: int
    epoch: str = ""


_UPDATES: dict[str, type[Event]] = {
    "agent_message_chunk": MessageChunk,
    "agent_thought_chunk": ThoughtChunk,
    "tool_call": ToolCall,
    "tool_call_update": ToolCallUpdate,
    "plan": PlanUpdate,
    "current_mode_update": ModeChanged,
}
"""Their members stand in `params.update`."""

_NOTICES: dict[str, type[Event]] = {
    "turn.queued": TurnQueued,
    "turn.started": TurnStarted,
    "turn.ended": TurnEnded,
    "permission.requested": PermissionRequested,
    "permission.resolved": PermissionResolved,
    "agent.exited": AgentExited,
    "agent.restarting": AgentRestarting,
    "agent.restarted": AgentRestarted,
    "agent.failed": AgentFailed,
    "agent.hibernated": AgentHibernated,
    "session.recovered": SessionRecovered,
    "session.closed": SessionClosed,
}
"""Their members stand in `params`."""


class _Frame(msgspec.Struct):
    seq: int
    at: datetime
    kind: str
    direction: str
    incarnation: int
    envelope: msgspec.Raw


_frames = msgspec.json.Decoder(_Frame)


def event_of(text: bytes) -> Event:
    """The event of a frame.

    Raises:
      SandboxAgentError: this is no frame of an event.
    """
    frame = _frame(text)
    raw = bytes(frame.envelope)
    head: dict[str, Json] = {
        "seq": frame.seq,
        "at": frame.at,
        "kind": frame.kind,
        "direction": frame.direction,
        "incarnation": frame.incarnation,
        "raw": raw,
    }
    shape = _UPDATES.get(frame.kind) or _NOTICES.get(frame.kind)
    if shape is not None:
        try:
            return msgspec.convert({**_members(frame.kind, raw), **head}, shape)
        except (ValueError, RecursionError):  # of another shape, or nothing that can be decoded
            pass
    return msgspec.convert(head, OtherEvent)


def gap_of(text: bytes) -> Gap:
    """The gap of a frame. Raises as `event_of`."""
    try:
        return msgspec.json.decode(text, type=Gap)
    except msgspec.MsgspecError as error:
        raise _senseless(error) from None


def _members(kind: str, raw: bytes) -> dict[str, Json]:
    params = _object(_object(_decoded(raw)).get("params"))
    if kind == "permission.requested":
        return {"permission": {**params, "acpSessionId": params.get("sessionId")}}
    if kind not in _UPDATES:
        return params
    update = _object(params.get("update"))
    if (content := _object(update.get("content"))).get("type") == "text":
        update["text"] = content.get("text")
    update["toolKind"] = update.get("kind")
    return update


def _frame(text: bytes) -> _Frame:
    try:
        return _frames.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        # msgspec takes no half of a surrogate pair, which an agent that cuts its text anywhere may write.
        head, member, envelope = text.partition(b'"envelope":')
        try:
            members = json.loads(head + member + b"0}")
            return msgspec.convert({**members, "envelope": msgspec.Raw(envelope.rstrip()[:-1])}, _Frame)
        except (ValueError, TypeError):
            raise _senseless(error) from None


def _senseless(error: Exception) -> SandboxAgentError:
    return SandboxAgentError(f"the event stream has a frame that makes no sense: {error}")


def _decoded(raw: bytes) -> Json:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
