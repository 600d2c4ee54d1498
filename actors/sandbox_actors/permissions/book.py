"""The book of a session's open permissions: each is entered once, settled once, and both are told.

    asked ── policy ──▶ allowed or denied at once
               │ask
               ├─ remembered ──▶ as it was answered before
               ▼
             open ──▶ the first valid answer of any client · the timeout · the turn was cancelled, or has ended
                      · the agent took it back · the agent is gone · the session was closed

A client of the raw wire answers with a JSON-RPC response, which passes to the agent as it is; every other way ends in a
response of the daemon's own.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET, Raw

from .. import notices
from ..envelope import id_text, members_of, text_of
from ..errors import PermissionNotFound, PermissionResolved
from ..in_flight import Questions
from ..messages import PermissionOverdue
from ..native import new_id
from ..routed import CLIENT, DAEMON, NOTICE
from .permission import ELICITATION, PERMISSION, Answer, OpenPermission, Permission, answer_of, options_of
from .remembered import recall, remember, signature
from .tool_call import ToolCall
from .tool_calls import ToolCalls

if TYPE_CHECKING:
    from ..envelope import Head
    from ..memory import Memory
    from ..messages import AnswerPermission
    from ..routed import Routed
    from ..timers import Timers

__all__ = ["Permissions"]

OPEN_LIMIT = 256
"""Open at a time: far above what an agent asks before it is answered. Of more the oldest are cancelled."""

OPEN_BYTES_LIMIT = 64 << 20
"""Of what is kept of them: as much as the longest line."""

SETTLED_REMEMBERED = 256
"""Settled ones that are kept in memory, to tell those who come too late; the journal has them all."""

SETTLED_BYTES_LIMIT = 8 << 10
"""Of what a settled one was about; more than that is only in the journal."""

UNKNOWN_DIRECTORY = "/\0"
"""Nothing is below it."""


@dataclass(slots=True, eq=False)
class _Entry:
    permission: Permission
    call: ToolCall
    cwd: str
    elicitation_id: str | None
    due: float | None = None
    """When it is overdue, by the clock of the timers; the wall clock may be set."""


class Permissions:
    """See the module. Everything that it decides it adds to what its caller has to record and to send.

    Attributes:
      questions: all that the agent has asked its clients.
    """

    def __init__(self, memory: Memory, timers: Timers) -> None:
        self.questions = Questions()
        self._memory = memory
        self._timers = timers
        self._open: dict[str, _Entry] = {}
        self._ids: dict[bytes, str] = {}
        self._size = 0
        self._settled: deque[Permission] = deque(maxlen=SETTLED_REMEMBERED)
        self._calls = ToolCalls()

    def pending(self) -> list[Permission]:
        """The open ones, oldest first."""
        return [entry.permission for entry in self._open.values()]

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    def settled(self) -> list[Permission]:
        """The newest of those that were settled, oldest first."""
        return list(self._settled)

    def get(self, id: str) -> Permission:
        """One that is open, or was settled lately. Raises `PermissionNotFound`."""
        if (entry := self._open.get(id)) is not None:
            return entry.permission
        for permission in self._settled:
            if permission.id == id:
                return permission
        raise PermissionNotFound(id)

    # -- from the agent

    def hear(self, envelope: bytes) -> None:
        """Take note of what an update tells of a tool call."""
        self._calls.hear(envelope)

    def asked(self, head: Head, routed: Routed) -> None:
        """The agent has asked something. What is no permission and no elicitation is none of ours."""
        method = head.method_name
        if method not in (PERMISSION, ELICITATION) or not isinstance(head.id, Raw):
            return
        if (before := self._ids.get(id_text(head.id))) is not None:
            # Two questions of one id: an answer could be to either, and the agent waits for the newer one.
            self._settle(self._open[before], "replaced", self._open[before].permission.cancelled, routed)
        entry = self._entered(method, head, head.id)
        permission = entry.permission
        routed.add(NOTICE, notices.permission_requested(permission))
        self._open[permission.id] = entry
        self._ids[id_text(permission.request_id)] = permission.id
        self._size += permission.size
        self._memory.permissions.append(
            OpenPermission(permission.id, permission.kind, permission.request_id, permission.session_id)
        )
        routed.learned = True
        if not self._decided(entry, routed):
            self._await(entry)
        while len(self._open) > OPEN_LIMIT or (self._size > OPEN_BYTES_LIMIT and len(self._open) > 1):
            oldest = next(iter(self._open.values()))
            self._answer(oldest, "overflow", oldest.permission.cancelled, routed)

    def notified(self, head: Head, routed: Routed) -> None:
        """The agent has told something that may be about one of these."""
        match head.method_name:
            case "elicitation/complete":
                id = head.member("params", "elicitationId")
                for entry in [entry for entry in self._open.values() if id is not None and entry.elicitation_id == id]:
                    self._answer(entry, "agent", Answer("accept"), routed)
            case "$/cancel_request":
                request_id = members_of(head.params).get("requestId")
                asked = self._of_request(request_id) if isinstance(request_id, Raw) else None
                if asked is not None:
                    self._answer(asked, "agent", asked.permission.cancelled, routed)
            case _:
                return

    # -- from clients

    def answer(self, answer: AnswerPermission, routed: Routed) -> Permission:
        """A client answers by the id of the permission.

        Raises:
          PermissionNotFound: there is none, or it is long since settled.
          PermissionResolved: somebody else was first.
          InvalidRequest: that is no answer to this one, which stays open.
        """
        permission = self.get(answer.id)
        if (entry := self._open.get(answer.id)) is None:
            outcome, by = permission.outcome or "", permission.by or ""
            raise PermissionResolved(permission.id, outcome, by, permission.option_id)
        chosen = permission.chosen(answer.option, answer.outcome, answer.content)
        self._remember(entry, chosen)
        self._answer(entry, answer.by, chosen, routed, origin=CLIENT)
        return permission

    def answered(self, head: Head, routed: Routed) -> None:
        """A client of the raw wire has answered, and was the first."""
        if isinstance(head.id, Raw) and (entry := self._of_request(head.id)) is not None:
            answer = answer_of(entry.permission, head)
            if self._memory.setup.native:
                # On a session of the raw wire alone an agent's question always reaches its client.
                self._remember(entry, answer)
            self._settle(entry, "client", answer, routed)

    # -- what becomes of them else

    def overdue(self, id: str, routed: Routed) -> None:
        """Nobody has answered in time, if that is still so: another policy may have given more since."""
        entry = self._open.get(id)
        if entry is None or entry.due is None or entry.due > trio.current_time():
            return
        permission = entry.permission
        match self._memory.setup.policy.on_timeout:
            case "allow" if permission.kind == "permission":
                answer = permission.allowing() or permission.cancelled
            case "deny" if permission.kind == "permission":
                answer = permission.denying()
            case _:
                answer = permission.cancelled
        self._answer(entry, "timeout", answer, routed)

    def cancel(self, session_id: str | None, by: str, routed: Routed) -> None:
        """Nobody wants to know any more in an ACP session; None: in all of them."""
        for entry in list(self._open.values()):
            if session_id is None or entry.permission.session_id == session_id:
                self._answer(entry, by, entry.permission.cancelled, routed)

    def policy_changed(self, routed: Routed) -> None:
        """Forget what was answered under the old policy; what is open is decided by the new one, as far as it goes."""
        self._memory.remembered.clear()
        routed.learned = True
        for entry in list(self._open.values()):
            self._timers.drop(_timer(entry.permission.id))
            entry.permission.expires_ms = entry.due = None
            if not self._decided(entry, routed):
                self._await(entry)

    def lost(self, by: str, routed: Routed) -> None:
        """The agent is gone: nobody is there to be answered, and nothing is asked about its tool calls any more."""
        self._calls = ToolCalls()
        for entry in list(self._open.values()):
            self._settle(entry, by, entry.permission.cancelled, routed)

    def settle_past(self, routed: Routed) -> None:
        """What an earlier daemon left open, with its agent."""
        for past in self._memory.permissions:
            permission = Permission(past.id, past.kind, past.request_id, past.session_id, 0)
            self._resolve(permission, "crash", permission.cancelled, routed)
        self._memory.permissions.clear()

    # -- inside

    def _entered(self, method: str, head: Head, request_id: Raw) -> _Entry:
        params = members_of(head.params)
        session_id = text_of(params.get("sessionId"))
        permission = Permission(
            id=new_id("perm"),
            kind="permission" if method == PERMISSION else "elicitation",
            request_id=Raw(bytes(request_id)),
            session_id=session_id,
            asked_ms=_now_ms(),
        )
        call = ToolCall()
        if method == ELICITATION:
            permission.elicitation = Raw(bytes(head.params)) if isinstance(head.params, Raw) else UNSET
        else:
            permission.options = options_of(head.member("params", "options"))
            permission.tool_call = params.get("toolCall", UNSET)
            call = self._calls.call(session_id, params.get("toolCall"))
        return _Entry(
            permission,
            call,
            self._memory.directory_of(session_id) or UNKNOWN_DIRECTORY,
            text_of(params.get("elicitationId")),
        )

    def _decided(self, entry: _Entry, routed: Routed) -> bool:
        """Whether policy or memory decides; then it is settled."""
        permission, policy = entry.permission, self._memory.setup.policy
        if permission.kind == "elicitation":
            if policy.default == "deny_all":
                self._answer(entry, "policy:deny_all", permission.denying(), routed)
            return policy.default == "deny_all"
        verdict = policy.decide(entry.call, entry.cwd)
        decision: str | None = verdict.decision
        by = f"policy:{verdict.because}"
        if decision == "ask":
            decision, by = recall(self._memory.remembered, signature(entry.call, entry.cwd)), "remembered"
        answer = permission.denying() if decision == "deny" else None
        if decision == "allow":
            answer = permission.allowing()  # where the agent offers no way to, it is for a person to see
        if answer is not None:
            self._answer(entry, by, answer, routed)
        return answer is not None

    def _await(self, entry: _Entry) -> None:
        if (timeout := self._memory.setup.policy.timeout) is not None:
            entry.permission.expires_ms = _now_ms() + round(timeout * 1000)
            entry.due = trio.current_time() + timeout
            self._timers.set(_timer(entry.permission.id), timeout, PermissionOverdue(entry.permission.id))

    def _remember(self, entry: _Entry, answer: Answer) -> None:
        decision = entry.permission.always(answer)
        if decision is not None and (key := signature(entry.call, entry.cwd)) is not None:
            remember(self._memory.remembered, key, decision)

    def _answer(self, entry: _Entry, by: str, answer: Answer, routed: Routed, origin: int = DAEMON) -> None:
        """Settle it by an answer of the daemon's own."""
        self.questions.answer(entry.permission.request_id)  # from now on a client's comes too late
        envelope = answer.envelope(entry.permission)
        routed.add(origin, envelope)
        routed.to_agent.append(envelope)
        self._settle(entry, by, answer, routed)

    def _settle(self, entry: _Entry, by: str, answer: Answer, routed: Routed) -> None:
        permission = entry.permission
        del self._open[permission.id]
        del self._ids[id_text(permission.request_id)]
        self._size -= permission.size
        self._timers.drop(_timer(permission.id))
        self._memory.permissions[:] = [past for past in self._memory.permissions if past.id != permission.id]
        if permission.size > SETTLED_BYTES_LIMIT:
            permission.tool_call = permission.elicitation = UNSET
        self._settled.append(permission)
        self._resolve(permission, by, answer, routed)

    def _resolve(self, permission: Permission, by: str, answer: Answer, routed: Routed) -> None:
        permission.outcome, permission.option_id, permission.by = answer.outcome, answer.option_id, by
        permission.expires_ms, permission.resolved_ms = None, _now_ms()
        routed.add(NOTICE, notices.permission_resolved(permission))
        routed.learned = True

    def _of_request(self, id: Raw) -> _Entry | None:
        return self._open.get(self._ids.get(id_text(id), ""))


def _timer(id: str) -> str:
    return f"permission:{id}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
