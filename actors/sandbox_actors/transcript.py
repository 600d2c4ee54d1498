"""The transcript: what was said and done in a session, as a person would tell it, folded from its events in one pass.

Chunks of one message are joined. A tool call stands where it began, as it was in the end: so what comes behind it waits
until its turn is over. What waits is bounded; beyond that it is told as it is, and a message or a tool call goes on in
a second entry. The transcript of any past, however long, takes no more memory than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import InvalidEnvelope, decode, id_text, members_of, text_of
from .journal import Origin
from .kinds import RESPONSE, glance, kind_of
from .moments import told
from .transcript_entries import Ended, Message, Missing, Note, Plan, Prompted, ToolCall
from .turn_spans import PROMPT, TurnSpans

if TYPE_CHECKING:
    from .journal import Event, Gap
    from .kinds import Glance
    from .transcript_entries import Entry, Role, Told
    from .turn_spans import Span

__all__ = ["Transcript"]

WAITING_LIMIT = 1 << 20
"""Bytes of envelopes whose entries wait for the end of their turn."""

_ROLES: dict[str, Role] = {
    "user_message_chunk": "user",
    "agent_message_chunk": "agent",
    "agent_thought_chunk": "thought",
    "compaction_summary_chunk": "summary",
}

_NOTED = frozenset(
    {
        "agent.exited",
        "agent.failed",
        "agent.hibernated",
        "compaction_update",
        "context.added",
        "permission.resolved",
        "session.closed",
        "session.recovered",
    }
)
"""What else is told, with its own members."""

_OVER = (Raw(b'"completed"'), Raw(b'"failed"'))


_MERGED = ("title", "kind", "status", "locations", "rawInput", "rawOutput", "content")
_ATTRIBUTES = {"rawInput": "raw_input", "rawOutput": "raw_output"}


class Transcript:
    """See the module. Every call gives the entries that will not change any more.

    Args:
      thoughts: whether those of the agent are told.
      turn: the id of the only turn that is told; None for all there is.
    """

    def __init__(self, *, thoughts: bool = True, turn: str | None = None) -> None:
        self._thoughts = thoughts
        self._turn = turn
        self._spans = TurnSpans()
        self._waiting: list[Entry] = []
        self._sizes: dict[int, int] = {}  # of what waits, by the identity of its entry
        self._current: dict[str | None, Message | Plan] = {}
        self._pieces: dict[str | None, list[str]] = {}
        self._tools: dict[tuple[str | None, bytes], ToolCall] = {}
        self._prompts: dict[str | None, str] = {}

    def add(self, event: Event) -> list[Entry]:
        """Take in the next event."""
        seen = glance(event.envelope)
        span = self._spans.of(event, seen)
        if self._turn is not None and (span is None or span.turn_id != self._turn):
            return []
        self._take(event, seen, span)
        if self.waiting_bytes > WAITING_LIMIT:
            return self.end()
        return self._final()

    def gap(self, gap: Gap) -> list[Entry]:
        """Events are missing before the next one: nothing that was open is known to go on."""
        entries = self.end()
        self._spans = TurnSpans()
        self._prompts.clear()
        return [*entries, Missing(gap.first, gap.last, gap.reason)]

    def end(self) -> list[Entry]:
        """All that waits, as it is."""
        for session in list(self._current):
            self._settle(session)
        self._tools.clear()
        return self._final()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the envelopes whose entries wait."""
        return sum(self._sizes.values())

    def _final(self) -> list[Entry]:
        if not self._waiting:
            return []
        if not self._current and not self._tools:
            entries, self._waiting = self._waiting, []
            self._sizes.clear()
            return entries
        open_ones = {id(entry) for entry in (*self._current.values(), *self._tools.values())}
        ready = next((place for place, entry in enumerate(self._waiting) if id(entry) in open_ones), 0)
        entries, self._waiting = self._waiting[:ready], self._waiting[ready:]
        for entry in entries:
            del self._sizes[id(entry)]
        return entries

    def _take(self, event: Event, seen: Glance, span: Span | None) -> None:
        kind = kind_of(event.origin, seen)
        session = seen.session_id if span is None else span.session_id
        if (role := _ROLES.get(kind)) is not None and event.origin is Origin.AGENT:
            if role != "thought" or self._thoughts:
                self._say(event, session, span, role)
        elif kind in ("tool_call", "tool_call_update"):
            self._call(event, session, span)
        elif kind == "plan":
            self._plan(event, session, span)
        elif kind == PROMPT and event.origin is not Origin.AGENT:
            self._prompt(event, session, span)
        elif kind == "turn.ended" or (kind == RESPONSE and span is not None and span.turn_id is None):
            self._end_turn(event, seen, session, span)
        elif kind in _NOTED:
            self._settle(session)
            self._place(Note(kind=kind, params=_params(event)), event, session, span)

    # -- what is said

    def _say(self, event: Event, session: str | None, span: Span | None, role: Role) -> None:
        content = members_of(_update(event).get("content"))
        current = self._current.get(session)
        if not isinstance(current, Message) or current.role != role or current.turn_id != _turn_of(span):
            self._settle(session)
            current = Message(role=role)
            self._current[session] = current
            self._pieces[session] = []
            self._place(current, event, session, span)
        else:
            self._sizes[id(current)] += len(event.envelope)
        if (text := text_of(content.get("text"))) is not None:
            self._pieces[session].append(text)
        elif content:
            blocks: list[Raw] = [] if current.content is UNSET else current.content
            current.content = [*blocks, Raw(msgspec.json.encode(content))]

    def _settle(self, session: str | None) -> None:
        """Nothing more will be added to what is being said in an ACP session."""
        current = self._current.pop(session, None)
        if isinstance(current, Message):
            current.text = "".join(self._pieces.pop(session))
            # Some agents repeat what they were asked.
            if current.role == "user" and current.text == self._prompts.get(session):
                self._waiting = [entry for entry in self._waiting if entry is not current]
                del self._sizes[id(current)]

    def _prompt(self, event: Event, session: str | None, span: Span | None) -> None:
        self._settle(session)
        try:
            asked = msgspec.json.decode(members_of(_params(event)).get("prompt", b"[]"), type=list[Raw])
        except (msgspec.MsgspecError, RecursionError):
            asked = []
        self._prompts[session] = "".join(text_of(members_of(block).get("text")) or "" for block in asked)
        self._place(Prompted(content=asked), event, session, span)

    def _end_turn(self, event: Event, seen: Glance, session: str | None, span: Span | None) -> None:
        if not seen.method and (span is None or seen.id is UNSET or span.request_id != id_text(seen.id)):
            return  # the answer to something else
        self._settle(session)
        for key in [key for key in self._tools if key[0] == session]:
            del self._tools[key]
        self._prompts.pop(session, None)
        members = members_of(Raw(event.envelope))
        members |= members_of(members.get("params" if seen.method else "result"))
        ended = Ended(
            outcome=members.get("outcome", UNSET),
            stop_reason=members.get("stopReason", UNSET),
            error=members.get("error", UNSET),
        )
        self._place(ended, event, session, span)

    # -- what is done

    def _call(self, event: Event, session: str | None, span: Span | None) -> None:
        members = _update(event)
        call_id = members.get("toolCallId", Raw(b"null"))
        key = session, id_text(call_id)
        call = self._tools.get(key)
        if call is None:
            self._settle(session)
            call = ToolCall(tool_call_id=call_id)
            self._tools[key] = call
            self._place(call, event, session, span)
        else:
            self._sizes[id(call)] += len(event.envelope)
        for name in _MERGED:
            if name in members and bytes(members[name]) != b"null":
                setattr(call, _ATTRIBUTES.get(name, name), members[name])
        if span is None and call.status in _OVER:
            del self._tools[key]  # no end of a turn will come

    def _plan(self, event: Event, session: str | None, span: Span | None) -> None:
        entries = _update(event).get("entries", Raw(b"[]"))
        current = self._current.get(session)
        if isinstance(current, Plan):
            current.entries = entries
            self._sizes[id(current)] += len(event.envelope)
            return
        self._settle(session)
        plan = Plan(entries=entries)
        self._current[session] = plan
        self._place(plan, event, session, span)

    def _place(self, entry: Told, event: Event, session: str | None, span: Span | None) -> None:
        entry.seq, entry.at = event.seq, told(event.at_ms)
        entry.session_id = UNSET if session is None else session
        entry.turn_id = _turn_of(span)
        self._waiting.append(entry)
        self._sizes[id(entry)] = len(event.envelope)


def _update(event: Event) -> dict[str, Raw]:
    return members_of(members_of(_params(event)).get("update"))


def _params(event: Event) -> Raw | UnsetType:
    # Not by `members_of`: an agent may have cut a text within a character, which only this reads.
    try:
        return decode(event.envelope).params
    except InvalidEnvelope:
        return UNSET


def _turn_of(span: Span | None) -> str | UnsetType:
    return UNSET if span is None or span.turn_id is None else span.turn_id
