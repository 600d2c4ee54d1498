"""What passes through a session: envelopes are routed by their heads and passed on as the bytes they are.

The router knows who waits for what, which ACP sessions go by another id since a recovery, and which replay is not to be
recorded. It has no task and no I/O: envelopes in, decisions out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import UNSET, Raw

from sandbox_supervisor import Reply

from . import notices
from .envelope import InvalidEnvelope, decode, error_response, replace_members, request
from .framing import LINE_LIMIT, TooLong
from .in_flight import Call, InFlight, Questions, Waiting
from .journal import Origin
from .memory import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .envelope import Head, Params
    from .errors import Refusal
    from .memory import Memory
    from .recovery import Recovered

__all__ = ["AGENT", "CLIENT", "DAEMON", "NOTICE", "Routed", "Router"]

AGENT, CLIENT, DAEMON, NOTICE = (origin.value[0] for origin in Origin)

Answers: TypeAlias = "list[tuple[Reply[bytes], bytes]]"


@dataclass(slots=True)
class Routed:
    """What is to be recorded, with the letter of each envelope's origin, and who is answered once that is durable.

    Attributes:
      learned: whether the memory has changed.
    """

    origins: list[int] = field(default_factory=list[int])
    envelopes: list[bytes] = field(default_factory=list[bytes])
    answers: Answers = field(default_factory=list[tuple[Reply[bytes], bytes]])
    learned: bool = False

    def add(self, origin: int, envelope: bytes) -> None:
        self.origins.append(origin)
        self.envelopes.append(envelope)


class Router:
    """See the module.

    Args:
      run: distinguishes the ids that are made here from those of earlier runs of the daemon.
    """

    def __init__(self, memory: Memory, run: str) -> None:
        self._memory = memory
        self._in_flight = InFlight(run)
        self._questions = Questions()
        self._muted: set[str] = set()
        self._agent_ids: dict[str, str] = {}
        self._client_ids: dict[str, str] = {}
        self._learn_aliases()

    # -- from clients to the agent

    def ask(self, envelope: bytes, head: Head, own_id: Raw) -> tuple[Waiting, bytes]:
        """Register a client's request; gives the envelope with the id that the agent will know it by.

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
        )
        self._in_flight.add(waiting.id, waiting)
        if method == "session/prompt":
            self._memory.turns.append(Turn(waiting.id, waiting.session_id))
        if not waiting.has_own_id:
            envelope = replace_members(envelope, {"id": waiting.id})
        return waiting, envelope

    def too_late(self, head: Head) -> bool:
        """Take in an answer to a question of the agent's; whether another client's answer came first."""
        return isinstance(head.id, Raw) and head.method is UNSET and not self._questions.answer(head.id)

    def call(self, method: str, params: Params, muted: str | None, answer: Reply[Head]) -> bytes:
        """Register a request of the daemon's own; gives its envelope. See `AgentCalled`."""
        id = self._in_flight.new_id()
        self._in_flight.add(id, Call(method, muted, answer))
        if muted is not None:
            self._muted.add(muted)
        return request(id, method, params)

    def for_agent(self, envelope: bytes, head: Head) -> bytes:
        """The envelope as the agent understands it: its own ids for ACP sessions."""
        return _translated(envelope, head, self._agent_ids) if self._agent_ids else envelope

    # -- from the agent to clients

    def heard(self, lines: Sequence[bytes | TooLong]) -> Routed:
        """Route what the agent has written."""
        routed = Routed()
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
            elif not (self._muted and head.member("params", "sessionId") in self._muted):
                routed.add(AGENT, envelope)
        return routed

    def _route(self, head: Head, envelope: bytes, routed: Routed) -> None:
        assert isinstance(head.id, Raw)
        entry = None
        if head.method is not UNSET:
            self._questions.add(head.id, head.method_name)
        else:
            entry = self._in_flight.get(head.id)
        if isinstance(entry, Call):
            self._muted.discard(entry.muted or "")
            if entry.method == "initialize":
                routed.learned |= self._memory.meet(head)
            entry.answer.settle(head)
        elif entry is not None:
            routed.learned |= self._end_turn(entry) | self._memory.learn(entry.method, entry.params, decode(envelope))
            own = envelope if entry.has_own_id else replace_members(envelope, {"id": entry.own_id})
            routed.answers.append((entry.answer, own))
        if entry is not None:
            self._in_flight.discard(head.id)  # only now: had this failed, whoever waits would still be known
        routed.add(DAEMON if isinstance(entry, Call) else AGENT, envelope)

    def _end_turn(self, waiting: Waiting) -> bool:
        open_turns = len(self._memory.turns)
        self._memory.turns = [turn for turn in self._memory.turns if bytes(turn.id) != bytes(waiting.id)]
        return len(self._memory.turns) != open_turns

    # -- incarnations

    def recovered(self, recovered: Iterable[Recovered]) -> None:
        """A new incarnation is up; some ACP sessions may go by other ids in it."""
        for session in recovered:
            if session.id in self._memory.sessions:
                self._memory.sessions[session.id].agent_id = session.agent_id
        self._learn_aliases()

    def _learn_aliases(self) -> None:
        self._agent_ids = self._memory.aliases
        self._client_ids = {theirs: ours for ours, theirs in self._agent_ids.items()}

    def lost(self, refusal: Refusal) -> Routed:
        """The incarnation is gone: everything that waited for it is settled, in the order it was asked."""
        routed = Routed(learned=True)
        for waiting in self._in_flight.clear():
            routed.add(NOTICE, error_response(waiting.id, refusal))
            routed.answers.append((waiting.answer, error_response(waiting.own_id, refusal)))
            if waiting.method == "session/prompt":
                routed.add(NOTICE, notices.turn_failed(waiting.id, waiting.session_id, refusal.name))
        for id, method in self._questions.clear():
            routed.add(NOTICE, notices.request_resolved(id, method, "cancelled"))
        self._memory.turns.clear()
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
