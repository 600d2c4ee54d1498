"""The kind of an event: one word that tells what happened, for filters and for those who read along.

    what it is                              its kind
    an update of a session                  its `sessionUpdate`: `agent_message_chunk`, `tool_call`, `plan`, ...
    any other request or notification       its method: `session/prompt`, `session/request_permission`, ...
    an answer, or an error in its place     `response`
    a notice of the daemon's                its name with dots: `turn.started`, `agent.exited`

Only the daemon's own notices have dots: an agent that writes such a name does not pass for it. Millions of events may
be looked at for one filter, so only the head of an envelope is read, and the few members of `params` that say where it
belongs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import InvalidEnvelope, decode, members_of, text_of
from .journal import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RESPONSE", "Glance", "Kinds", "glance", "kind_of"]

RESPONSE = "response"
UNKNOWN = "unknown"
UPDATE = "session/update"

_OF_THE_PUBLIC_WIRE = {"_adapter/agent_exited": "agent.exited", "_adapter/invalid_stdout": "agent.invalid_stdout"}
_OURS = "_sandboxagent/"


class _Update(msgspec.Struct, gc=False, rename="camel"):
    session_update: str = ""


class _Params(msgspec.Struct, gc=False, rename="camel"):
    session_id: str | None = None
    turn_id: str | None = None
    request_id: Raw | UnsetType = UNSET
    update: _Update | None = None


class _Head(msgspec.Struct, gc=False):
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: _Params | UnsetType = UNSET


class Glance(msgspec.Struct, gc=False, frozen=True):
    """What a quick look at an envelope shows.

    Attributes:
      method: empty for an answer.
      id: of a request or an answer.
      session_id: the ACP session of its params.
      turn_id, request_id: of a notice's params.
      update: what an update of a session is about; empty for anything else.
    """

    method: str
    id: Raw | UnsetType
    session_id: str | None = None
    turn_id: str | None = None
    request_id: Raw | UnsetType = UNSET
    update: str = ""


_decoder = msgspec.json.Decoder(_Head)


def glance(envelope: bytes) -> Glance:
    """Look at an envelope. One that is none at all shows nothing."""
    try:
        head = _decoder.decode(envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _second_glance(envelope)
    method = head.method or ""
    if (params := head.params) is UNSET:
        return Glance(method, head.id)
    update = params.update.session_update if method == UPDATE and params.update is not None else ""
    return Glance(method, head.id, params.session_id, params.turn_id, params.request_id, update)


def _second_glance(envelope: bytes) -> Glance:
    """Of an envelope whose members are of other types than ACP says, or that has half a character in its text."""
    try:
        head = decode(envelope)
    except InvalidEnvelope:
        return Glance("", UNSET)
    params = members_of(head.params)
    said = text_of(members_of(params.get("update")).get("sessionUpdate")) or ""
    return Glance(
        head.method_name,
        head.id,
        text_of(params.get("sessionId")),
        text_of(params.get("turnId")),
        params.get("requestId", UNSET),
        said if head.method_name == UPDATE else "",
    )


def kind_of(origin: Origin, seen: Glance) -> str:
    """The kind of an event."""
    if seen.update and "." not in seen.update:
        return seen.update
    method = seen.method
    if not method:
        return UNKNOWN if seen.id is UNSET else RESPONSE
    if origin is Origin.NOTICE:
        if method.startswith(_OURS):
            return method.removeprefix(_OURS).replace("/", ".")
        return _OF_THE_PUBLIC_WIRE.get(method, method)
    return method.replace(".", "_")


class Kinds:
    """Which kinds a reader wants to see: `tool_call` is that one, `turn.*` all that begin with `turn.`; none: all."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = set(patterns)
        self._exact = frozenset(one for one in given if not one.endswith("*"))
        self._prefixes = tuple(one[:-1] for one in given if one.endswith("*"))
        self._all = not given

    def __contains__(self, kind: object) -> bool:
        if self._all:
            return True
        return isinstance(kind, str) and (kind in self._exact or kind.startswith(self._prefixes))
