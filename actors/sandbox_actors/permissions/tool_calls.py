"""The tool calls that agents have told of lately: a request for permission tells only what is new about its own.

By ACP the `toolCall` of `session/request_permission` is an update, so its kind, places and input may have been told
before, with the call itself. Where some of that is not kept any more, the call is not known: what is left of it could
look like a more harmless one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from ..envelope import decode, text_of
from .tool_call import ToolCall

if TYPE_CHECKING:
    from ..envelope import Json

__all__ = ["TOOL_CALL", "ToolCalls"]

TOOL_CALL = b'"tool_call'
"""In every update that tells of one; most lines of an agent have it not, and are not looked at any closer."""

LIMIT = 64
"""Calls that are kept: the newest."""

SIZE_LIMIT = 64 << 10
"""Bytes of a call that is kept."""

FORGOTTEN_LIMIT = 1024
"""Calls of which is kept that they are not known: the newest."""

KEY_LIMIT = 1024
"""Characters of the ids of a call; one that has longer ids is not known."""

MEMBERS = frozenset({"kind", "title", "locations", "content", "rawInput", "_meta"})


class ToolCalls:
    """See the module."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], dict[str, Raw]] = {}
        self._forgotten: dict[tuple[str, str], None] = {}

    def hear(self, envelope: bytes) -> None:
        """Take in what an agent tells, if that is an update of a tool call."""
        if TOOL_CALL not in envelope:
            return
        params = _members(decode(envelope).params)
        update = _members(params.get("update"))
        told = text_of(update.get("sessionUpdate")) or ""
        key = text_of(params.get("sessionId")) or "", text_of(update.get("toolCallId")) or ""
        if not told.startswith("tool_call") or _is_long(key) or key in self._forgotten:
            return
        if key not in self._calls and told != "tool_call":
            return  # of a call that was never told of, or so long ago that it is forgotten twice
        known = self._calls.pop(key, {})
        known |= {name: Raw(bytes(value)) for name, value in update.items() if name in MEMBERS and not _is_null(value)}
        if sum(len(bytes(value)) for value in known.values()) <= SIZE_LIMIT:
            self._calls[key] = known
        else:
            self._forget(key)
        while len(self._calls) > LIMIT:
            oldest = next(iter(self._calls))
            del self._calls[oldest]
            self._forget(oldest)

    def call(self, session_id: str | None, told: Raw | None) -> ToolCall:
        """What is known of the tool call of a request."""
        update = _members(told)
        key = session_id or "", text_of(update.get("toolCallId")) or ""
        whole = {**self._calls.get(key, {}), **{name: raw for name, raw in update.items() if not _is_null(raw)}}
        known = not _is_long(key) and key not in self._forgotten
        members: dict[str, Json] = {}
        for name in MEMBERS & whole.keys():
            try:
                members[name] = msgspec.json.decode(whole[name])
            except (msgspec.MsgspecError, RecursionError):
                known = False
        return ToolCall.of(members, known=known)

    def _forget(self, key: tuple[str, str]) -> None:
        self._forgotten[key] = None
        while len(self._forgotten) > FORGOTTEN_LIMIT:
            del self._forgotten[next(iter(self._forgotten))]


def _is_long(key: tuple[str, str]) -> bool:
    return sum(map(len, key)) > KEY_LIMIT


def _members(raw: object) -> dict[str, Raw]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Raw]) if isinstance(raw, Raw) else {}
    except (msgspec.MsgspecError, RecursionError):
        return {}


def _is_null(raw: Raw) -> bool:
    return bytes(raw) == b"null"
