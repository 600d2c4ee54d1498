"""Native prompts on their way: from the queue to the agent, and from there to their one outcome.

    what happens                                  what becomes of the turn
    the agent answers                             completed, or cancelled where it says so
    the agent answers with an error               failed
    the agent's process ends                      failed; those that wait go on when there is a new one
    somebody cancels it, or its time is over      cancelled, when the agent has said so or was ended for it
    the agent is given up, the session closed     failed, and all that wait with it

All of this happens within the session's actor. A prompt of a raw client is a turn of nobody's: native ones wait for it
where both go to the same ACP session.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from . import notices
from .envelope import Head, decode, members_of, notification, request, text_of
from .errors import (
    PROBLEM_PREFIX,
    AgentBusy,
    AgentUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    JournalUnavailable,
    Overloaded,
    QueueFull,
    Refusal,
    SessionClosed,
)
from .kept_turns import KeptTurn
from .memory import Keyed
from .messages import CancelOverdue, Say, TurnOverdue
from .native import fingerprint, new_id
from .native_turns import Turn, Turns
from .outbox import BYTES_LIMIT
from .routed import CLIENT, DAEMON, NOTICE, Routed

if TYPE_CHECKING:
    from sandbox_supervisor import Reply

    from .envelope import Json
    from .in_flight import Waiting
    from .messages import Prompt
    from .native_turns import Outcome
    from .session import Session

__all__ = ["Prompting"]

ERROR_DATA_LIMIT = 4 << 10
"""Bytes of what an agent adds to an error that are told with the turn; all of it stands in its answer."""


class Prompting:
    """See the module. `turns` is what everybody may look at."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._memory = session.memory
        self.turns = Turns(kept.turn() for kept in self._memory.ended_turns)
        self._asking: dict[str, list[Reply[object]]] = {}

    # -- what clients ask for

    def take(self, asked: Prompt, reply: Reply[object]) -> None:
        """A client has a prompt; it gets its turn as soon as that is durable.

        Raises:
          IdempotencyConflict, SessionClosed, JournalUnavailable, AgentUnavailable, QueueFull, InvalidRequest,
            Overloaded.
        """
        content = fingerprint([asked.acp_session, asked.content])
        if asked.key is not None and (keyed := self._memory.keys.get(asked.key)) is not None:
            if keyed.content != content:
                raise IdempotencyConflict(asked.key)
            if keyed.turn in self._asking:
                self._asking[keyed.turn].append(reply)  # not durable yet
            else:
                reply.settle(self._known(keyed))
            return
        self._check(asked)
        session = self._session
        if session.state == "stopped":
            session.wake()  # now: where there is no room for its agent, nothing has been taken yet
        now = time.time_ns() // 1_000_000
        turn = Turn(new_id("turn"), session.log.next_seq, now, asked.content, asked.acp_session)
        routed = Routed()
        routed.add(NOTICE, notices.turn_queued(turn, len(self.turns.open)))
        routed.then.append(lambda: self._taken(turn))
        self._asking[turn.id] = [reply]
        self.turns.add(turn)
        self._keep_open()
        if asked.key is not None:
            self._memory.keep_key(asked.key, Keyed(content, turn.id, turn.seq, now))
        session.remember()
        session.record(routed)
        self.advance()

    def _taken(self, turn: Turn) -> None:
        for reply in self._asking.pop(turn.id):
            reply.settle(turn)

    def _check(self, asked: Prompt) -> None:
        session, memory = self._session, self._memory
        match session.state:
            case "closed":
                raise SessionClosed
            case "backoff":
                raise AgentUnavailable("the agent crashed and is about to be started again", session.restart_in)
            case "failed":
                raise AgentUnavailable("the agent crashed too often; restart the session to start it again", None)
            case _:
                pass
        if session.journal.trouble is not None:
            raise JournalUnavailable(session.journal.trouble)
        if asked.acp_session is not None and asked.acp_session not in memory.sessions:
            raise InvalidRequest(f"there is no ACP session {asked.acp_session!r} here")
        if memory.target is None and not memory.setup.native:
            raise InvalidRequest("no ACP session was opened here yet")
        limit = memory.setup.queue_limit
        limit = session.setting.queue_limit if limit is None else limit
        if len(self.turns.open) > limit:
            raise QueueFull(limit)
        if sum(turn.size for turn in self.turns.queued) >= BYTES_LIMIT or session.journal.pending_bytes >= BYTES_LIMIT:
            raise Overloaded

    def _known(self, keyed: Keyed) -> Turn:
        for turn in (*self.turns.open, *self.turns.recent):
            if turn.id == keyed.turn:
                return turn
        turn = Turn(keyed.turn, keyed.seq, keyed.created_ms, state="ended")
        turn.outcome, turn.stop_reason = keyed.outcome, keyed.stop_reason
        turn.ended.settle(turn)
        return turn

    def cancel(self, id: str | None, reason: Refusal | None = None) -> tuple[str, ...]:
        """End a turn, or all that are open; tells which ones. See `CancelTurn`. Raises `TurnNotFound`.

        Args:
          reason: why the daemon itself does so.
        """
        chosen = self.turns.open if id is None else (self.turns.get(id),)
        chosen = tuple(turn for turn in chosen if turn.state != "ended")
        routed = Routed()
        for turn in chosen:
            if turn.state == "queued":
                self._end(turn, "cancelled", routed)
        self._conclude(routed)
        for turn in chosen:
            if turn.state == "running" and not turn.cancelling:
                self._cancel_running(turn, reason)
        return tuple(turn.id for turn in chosen)

    def _cancel_running(self, turn: Turn, reason: Refusal | None) -> None:
        session = self._session
        turn.cancelling = True
        turn.error = None if reason is None else _problem(reason)
        envelope = notification("session/cancel", {"sessionId": turn.acp_session})
        session.record(Routed([CLIENT if reason is None else DAEMON], [envelope]))
        session.line.pass_on(Say(envelope, decode(envelope)))
        session.timers.set("cancel", session.setting.cancel_within, CancelOverdue(turn.id))
        session.asking.cancel(turn.acp_session)

    # -- what becomes of turns

    def advance(self) -> None:
        """Start the next turn, if it is time."""
        while self.turns.running is None and self.turns.queued and self._session.state == "ready":
            turn = self.turns.queued[0]
            target = turn.acp_session or self._memory.target
            if target is None:
                self._fail([turn], InvalidRequest("there is no ACP session for it any more"))
            elif self._session.router.is_prompting(target):
                return
            else:
                self._start(turn, target)

    def _start(self, turn: Turn, target: str) -> None:
        session = self._session
        own_id = Raw(msgspec.json.encode(turn.id))
        envelope = request(own_id, "session/prompt", {"sessionId": target, "prompt": turn.content})
        head = decode(envelope)
        try:
            waiting, envelope = session.router.ask(envelope, head, own_id)
        except AgentBusy as busy:
            self._fail([turn], busy)
            return
        self.turns.start()
        turn.acp_session, turn.request_id = target, waiting.id
        turn.started_ms = time.time_ns() // 1_000_000
        self._keep_open()
        routed = Routed([CLIENT], [envelope])
        routed.add(NOTICE, notices.turn_started(turn))
        session.remember()
        session.record(routed)
        session.line.pass_on(Say(envelope, head))
        turn.content = ()
        deadline = self._memory.setup.turn_deadline
        deadline = session.setting.turn_deadline if deadline is None else deadline
        if deadline:
            session.timers.set("turn", deadline, TurnOverdue(turn.id))

    def prompt_ended(self, waiting: Waiting, outcome: Head | Refusal, routed: Routed) -> None:
        """A prompt of anybody's has its answer, or will never have one. For the router."""
        turn = self.turns.running
        if turn is None or turn.request_id is None or bytes(turn.request_id) != bytes(waiting.id):
            return
        if isinstance(outcome, Refusal):
            turn.error = turn.error or (None if turn.forced else _problem(outcome))
            self._end(turn, "cancelled" if turn.cancelling else "failed", routed)
        elif isinstance(outcome.result, Raw):
            told = members_of(outcome.result)
            turn.stop_reason = text_of(told.get("stopReason"))
            turn.usage = told.get("usage")
            cancelled = turn.stop_reason == "cancelled"
            turn.error = turn.error if cancelled else None
            self._end(turn, "cancelled" if cancelled else "completed", routed)
        else:
            turn.error = turn.error or _agents_error(outcome)
            self._end(turn, "cancelled" if turn.cancelling else "failed", routed)

    def overdue(self, id: str) -> None:
        """A turn has taken as long as it may."""
        if (turn := self.turns.running) is not None and turn.id == id:
            self.cancel(id, _TurnDeadline())

    def cancel_overdue(self, id: str) -> None:
        """The agent does not end a turn that it was told to cancel: it is ended itself, and comes back without it."""
        if (turn := self.turns.running) is not None and turn.id == id and turn.cancelling:
            turn.forced = True
            self._session.restart_agent()

    def fail_waiting(self, refusal: Refusal) -> None:
        """There will be no agent for those that wait."""
        self._fail(list(self.turns.queued), refusal)

    def _fail(self, turns: list[Turn], refusal: Refusal) -> None:
        routed = Routed()
        for turn in turns:
            turn.error = _problem(refusal)
            self._end(turn, "failed", routed)
        self._conclude(routed)

    def _end(self, turn: Turn, outcome: Outcome, routed: Routed) -> None:
        if turn.state == "running":
            self._session.timers.drop("turn")
            self._session.timers.drop("cancel")
        self.turns.end(turn)
        turn.outcome = outcome
        turn.ended_ms = time.time_ns() // 1_000_000
        memory = self._memory
        memory.keep_turn(KeptTurn.of(turn))
        self._keep_open()
        for keyed in memory.keys.values():
            if keyed.turn == turn.id:
                keyed.outcome, keyed.stop_reason = outcome, turn.stop_reason
        routed.learned = True
        routed.add(NOTICE, notices.turn_ended(turn))
        routed.then.append(lambda: turn.ended.settle(turn))

    def _keep_open(self) -> None:
        self._memory.open_turns = [KeptTurn.of(turn) for turn in self.turns.open]

    def _conclude(self, routed: Routed) -> None:
        if routed.envelopes:
            self._session.remember()
            self._session.record(routed)

    def settle_past(self, routed: Routed) -> None:
        """End the turns of a daemon that died: nobody knows how far they came."""
        for kept in self._memory.open_turns:
            turn = kept.turn()
            turn.error = _problem(_DaemonDied())
            self.turns.add(turn)
            self._end(turn, "failed", routed)

    def abandon(self, refusal: Refusal) -> None:
        """Nothing is recorded any more: tell those who still wait for an end."""
        for turn in self.turns.open:
            turn.ended.refuse(refusal)
        for replies in self._asking.values():
            for reply in replies:
                reply.refuse(refusal)


class _TurnDeadline(Refusal):
    """The turn took too long."""

    name = "turn_deadline"

    def __init__(self) -> None:
        super().__init__("the turn took longer than it may")


class _DaemonDied(Refusal):
    """What the daemon was doing when it died, nobody knows."""

    name = "daemon_died"

    def __init__(self) -> None:
        super().__init__("the daemon ended while the turn was open; what the agent had done by then is done")


def _problem(refusal: Refusal) -> dict[str, Json]:
    return {"type": refusal.type, "detail": str(refusal), **refusal.details}


def _agents_error(head: Head) -> dict[str, Json]:
    """What the agent says is wrong, in its answer to a prompt."""
    told = members_of(head.error)
    error: dict[str, Json] = {"type": PROBLEM_PREFIX + "agent_error", "detail": text_of(told.get("message")) or ""}
    for name in ("code", "data"):
        if name in told and len(bytes(told[name])) <= ERROR_DATA_LIMIT:
            error[name] = told[name]
    return error
