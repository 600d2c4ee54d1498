"""What passes through a session: envelopes are routed by their heads and passed on as the bytes they are.

The router knows who waits for what, which ACP sessions go by another id since a recovery, and which replay is not to be
recorded. It has no task and no I/O: envelopes in, decisions out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw

from sandbox_supervisor import Reply

from . import notices
from .envelope import InvalidEnvelope, decode, error_response, id_text, members_of, replace_members, request
from .errors import SessionClosed
from .framing import LINE_LIMIT, TooLong
from .in_flight import Call, InFlight, Waiting
from .memory import Turn
from .permissions.tool_calls import TOOL_CALL
from .routed import AGENT, CLIENT, DAEMON, NOTICE, Asked, Routed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from .envelope import Head, Params
    from .errors import Refusal
    from .memory import Memory
    from .permissions.book import Permissions
    from .recovery import Recovered
    from .services import Services

__all__ = ["AGENT", "CLIENT", "DAEMON", "NOTICE", "Routed", "Router"]

UPDATE = b"_update"
"""What the kinds of updates end with that are remembered."""

CHUNK = re.compile(
    rb'\{"jsonrpc": ?"2.0", ?"method": ?"session/update", ?"params": ?\{"sessionId": ?"[^"\\]+", ?'
    rb'"update": ?\{"sessionUpdate": ?"[a-z_]+_chunk"'
)
"""How a line begins that streams a word. Most lines of an agent begin with just the same bytes as one before: there is
nothing else to be found in them, and to compare costs a tenth of looking."""

CHUNKS_KNOWN = 4
"""Beginnings that are kept: of a message and a thought, in two ACP sessions."""

CANCEL_REQUEST = "$/cancel_request"
"""The agent takes back something that it has asked (ACP protocol version 1, Cancellation)."""


class Router:
    """See the module.

    Args:
      run: distinguishes the ids that are made here from those of earlier runs of the daemon.
      permissions: what people have to answer among what the agent asks.
      services: what the daemon answers itself.

    Attributes:
      settled: the incarnation has its sessions back: what the agent says of their modes and options is news.
      prompt_ended: called for each prompt that is answered, or will never be, with what else is recorded.
    """

    def __init__(self, memory: Memory, run: str, permissions: Permissions, services: Services) -> None:
        self.settled = False
        self.prompt_ended: Callable[[Waiting, Head | Refusal, Routed], None] | None = None
        self._memory = memory
        self._in_flight = InFlight(run)
        self._permissions = permissions
        self._services = services
        self._questions = permissions.questions
        self._muted: set[str] = set()
        self._chunks: tuple[bytes, ...] = ()
        self._agent_ids: dict[str, str] = {}
        self._client_ids: dict[str, str] = {}
        self._learn_aliases()

    # -- from clients to the agent

    def ask(
        self, envelope: bytes, head: Head, own_id: Raw, ended: Callable[[Head | Refusal, Routed], None] | None = None
    ) -> tuple[Waiting, bytes]:
        """Register a client's request; gives the envelope with the id that the agent will know it by. See `Waiting`.

        Raises:
          AgentBusy: too many wait for an answer.
        """
        self._in_flight.check()
        method = head.method_name
        session_id = head.member("params", "sessionId")
        params = head.params if self._memory.wants(method) else UNSET
        waiting = Waiting(
            id=self._in_flight.id_for(own_id),
            own_id=Raw(bytes(own_id)),
            method=method,
            params=Raw(bytes(params)) if isinstance(params, Raw) else UNSET,
            session_id=session_id if isinstance(session_id, str) else None,
            answer=Reply(),
            ended=ended,
        )
        self._in_flight.add(waiting.id, waiting)
        if method == "session/prompt":
            self._memory.turns.append(Turn(waiting.id, waiting.session_id))
        if not waiting.has_own_id:
            envelope = replace_members(envelope, {"id": waiting.id})
        return waiting, envelope

    def too_late(self, head: Head, routed: Routed) -> bool:
        """Take in an answer to a question of the agent's; whether another one came first."""
        if not isinstance(head.id, Raw) or head.method is not UNSET:
            return False
        if not self._questions.answer(head.id):
            return True
        self._permissions.answered(head, routed)
        return False

    def check_room(self) -> None:
        """Raises `AgentBusy` if too many wait for an answer."""
        self._in_flight.check()

    def call(
        self,
        method: str,
        params: Params,
        answer: Reply[Head],
        *,
        muted: str | None = None,
        learn: bool = False,
        heard: Callable[[Head, Routed], None] | None = None,
    ) -> bytes:
        """Register a request of the daemon's own; gives its envelope. See `AgentCalled` and `Call`."""
        id = self._in_flight.new_id()
        learned = Raw(msgspec.json.encode(params)) if learn else UNSET
        self._in_flight.add(id, Call(method, muted, answer, learned, heard))
        if muted is not None:
            self._muted.add(muted)
        return request(id, method, params)

    def is_prompting(self, session_id: str) -> bool:
        """Whether a prompt is open in an ACP session."""
        return any(turn.session_id == session_id for turn in self._memory.turns)

    def for_agent(self, envelope: bytes, head: Head) -> bytes:
        """The envelope as the agent understands it: its own ids for ACP sessions."""
        return _translated(envelope, head, self._agent_ids) if self._agent_ids else envelope

    # -- from the agent to clients

    def heard(self, lines: Sequence[bytes | TooLong]) -> Routed:
        """Route what the agent has written."""
        routed = Routed()
        watched = self._watched
        for line in lines:
            if isinstance(line, TooLong):
                routed.add(NOTICE, notices.invalid_stdout(line, f"line longer than {LINE_LIMIT} bytes"))
                continue
            try:
                head = decode(line)
            except InvalidEnvelope as error:
                routed.add(NOTICE, notices.invalid_stdout(line, str(error)))
                continue
            envelope = _translated(line, head, self._client_ids) if self._client_ids else line
            if head.id is not UNSET:
                self._route(head, envelope, routed)
                watched = self._watched
            elif not (self._muted and head.member("params", "sessionId") in self._muted):
                routed.add(AGENT, envelope)
                if not line.startswith(self._chunks):
                    self._note(line, envelope, routed)
                if watched:
                    self._notified(head, routed)
        return routed

    @property
    def _watched(self) -> bool:
        """Whether something is open that a notification can end."""
        return self._permissions.any_open or self._services.busy > 0

    def _note(self, line: bytes, envelope: bytes, routed: Routed) -> None:
        """Take in what an update tells of tool calls, modes and options."""
        if TOOL_CALL in line:
            self._permissions.hear(envelope)
        if self.settled and UPDATE in line:
            routed.learned |= self._memory.hear(decode(envelope))
        if chunk := CHUNK.match(line):
            self._chunks = (chunk[0], *self._chunks)[:CHUNKS_KNOWN]

    def _route(self, head: Head, envelope: bytes, routed: Routed) -> None:
        assert isinstance(head.id, Raw)
        entry = None
        if head.method is not UNSET:
            self._question(head, envelope, routed)
            return
        else:
            entry = self._in_flight.get(head.id)
        if isinstance(entry, Call):
            self._muted.discard(entry.muted or "")
            if entry.learn is not UNSET:
                routed.learned |= self._memory.learn(entry.method, entry.learn, head)
            elif entry.method == "initialize":
                routed.learned |= self._memory.meet(head)
            entry.answer.settle(head)
        elif entry is not None:
            routed.learned |= self._end_turn(entry)
            if entry.ended is None:
                routed.learned |= self._memory.learn(entry.method, entry.params, decode(envelope))
            own = envelope if entry.has_own_id else replace_members(envelope, {"id": entry.own_id})
            routed.answers.append((entry.answer, own))
        if entry is not None:
            self._in_flight.discard(head.id)  # only now: had this failed, whoever waits would still be known
        routed.add(DAEMON if isinstance(entry, Call) else AGENT, envelope)
        if isinstance(entry, Waiting):
            self._tell_end(entry, head, routed)
        elif entry is not None and entry.heard is not None:
            entry.heard(head, routed)

    def _question(self, head: Head, envelope: bytes, routed: Routed) -> None:
        if self._client_ids:
            head = decode(envelope)
        assert isinstance(head.id, Raw)
        if self._services.serves(head.method_name):
            routed.add(DAEMON, envelope)
            params = Raw(bytes(head.params)) if isinstance(head.params, Raw) else None
            routed.asked.append(Asked(Raw(bytes(head.id)), head.method_name, params))
            return
        self._questions.add(head.id, head.method_name)
        routed.add(AGENT, envelope)
        self._permissions.asked(head, routed)

    def _notified(self, head: Head, routed: Routed) -> None:
        """What the agent tells may be about something that it has asked."""
        if head.method_name == CANCEL_REQUEST and isinstance(id := members_of(head.params).get("requestId"), Raw):
            routed.withdrawn.append(id)
        self._permissions.notified(head, routed)

    def _tell_end(self, waiting: Waiting, outcome: Head | Refusal, routed: Routed) -> None:
        if waiting.method == "session/prompt" and waiting.session_id and not self.is_prompting(waiting.session_id):
            self._permissions.cancel(waiting.session_id, "turn_ended", routed)
        if waiting.method == "session/prompt" and self.prompt_ended is not None:
            self.prompt_ended(waiting, outcome, routed)
        if waiting.ended is not None:
            waiting.ended(outcome, routed)

    def _end_turn(self, waiting: Waiting) -> bool:
        open_turns = len(self._memory.turns)
        self._memory.turns = [turn for turn in self._memory.turns if bytes(turn.id) != bytes(waiting.id)]
        return len(self._memory.turns) != open_turns

    # -- incarnations

    def recovered(self, recovered: Iterable[Recovered]) -> None:
        """A new incarnation is up; some ACP sessions may go by other ids in it."""
        for session in recovered:
            if (known := self._memory.sessions.get(session.id)) is not None:
                known.agent_id = session.agent_id
                known.told = session.told or known.told
                if session.fidelity != "lost":
                    known.owes_context = bool(session.context)
        self._learn_aliases()

    def _learn_aliases(self) -> None:
        self._agent_ids = self._memory.aliases
        self._client_ids = {theirs: ours for ours, theirs in self._agent_ids.items()}

    @property
    def waits(self) -> bool:
        """Whether anything was asked, in either direction, and not answered."""
        return not (self._in_flight.is_empty and self._questions.is_empty)

    def lost(self, refusal: Refusal, kept: Collection[bytes] = ()) -> Routed:
        """The incarnation is gone: everything that waited for it is settled, in the order it was asked.

        Args:
          kept: the ids, as text, of what waits for the next one.
        """
        routed = Routed(learned=True)
        self._permissions.lost("close" if isinstance(refusal, SessionClosed) else "crash", routed)
        for waiting in self._in_flight.clear(kept):
            routed.add(NOTICE, error_response(waiting.id, refusal))
            routed.answers.append((waiting.answer, error_response(waiting.own_id, refusal)))
            if waiting.method == "session/prompt":
                routed.add(NOTICE, notices.turn_failed(waiting.id, waiting.session_id, refusal.name))
            self._tell_end(waiting, refusal, routed)
        for id, method in self._questions.clear():
            routed.add(NOTICE, notices.request_resolved(id, method, "cancelled"))
        self._memory.turns = [turn for turn in self._memory.turns if id_text(turn.id) in kept]
        self._muted.clear()
        return routed

    def refuse_all(self, refusal: Refusal) -> None:
        """Nothing is recorded any more: tell those who still wait."""
        for waiting in self._in_flight.clear():
            waiting.answer.refuse(refusal)


def _translated(envelope: bytes, head: Head, ids: dict[str, str]) -> bytes:
    """The envelope with the id of an ACP session replaced that the other side knows by another one."""
    for member, whole in (("params", head.params), ("result", head.result)):
        id = head.member(member, "sessionId")
        if isinstance(id, str) and id in ids and isinstance(whole, Raw):
            replaced = replace_members(bytes(whole), {"sessionId": Raw(msgspec.json.encode(ids[id]))})
            envelope = replace_members(envelope, {member: Raw(replaced)})
    return envelope
