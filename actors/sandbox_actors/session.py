"""The session actor: what clients talk to, whatever becomes of the agent process behind it.

    state      agent process   a request is
    stopped    none            accepted, and wakes the agent
    starting   coming up       accepted, and held until the incarnation has its sessions back
    ready      there           accepted, and passed on
    backoff    none            refused: try again after the delay
    failed     none            refused, but for `initialize`, which wakes the agent
    closed     none, or ending refused for good

What it passes on, and to whom, its `Router` decides. Nothing in it waits: appending to the journal does not,
and the agent's outbox refuses when it is full. So one client, one agent or one disk that hangs holds up nobody else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, assert_never, cast

import trio

from sandbox_supervisor import ActorRef, Mailbox, Node, Reply, drain

from . import notices
from .agent_life import AgentLife
from .asking import Asking
from .envelope import error_response, members_of, text_of
from .errors import AgentProcessExited, AgentUnavailable, JournalUnavailable, SessionClosed
from .fencing import Fence
from .forking import Forking
from .line import Line
from .memory import Memory
from .memory_view import MemoryView
from .messages import (
    Accepted,
    AgentCalled,
    AgentDown,
    AgentGivenUp,
    AgentHeard,
    AgentReady,
    AgentRestarting,
    AgentUp,
    AnswerPermission,
    CancelOverdue,
    CancelTurn,
    Close,
    CloseSession,
    Fenced,
    Fork,
    ForkEnded,
    Hibernate,
    IdleOverdue,
    MakeRoom,
    Message,
    NoBerth,
    OpeningFailed,
    Patch,
    PermissionOverdue,
    Prompt,
    Restart,
    Say,
    Served,
    TurnOverdue,
)
from .patching import patch
from .prompting import Prompting
from .resting import Resting
from .router import CLIENT, NOTICE, Routed, Router
from .timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from .catalog import Catalog
    from .envelope import Head
    from .errors import Refusal
    from .journal import SessionLog
    from .native import Setup
    from .native_turns import Turns
    from .permissions.book import Permissions
    from .setting import Setting

__all__ = ["Session", "State"]

State = Literal["stopped", "starting", "ready", "backoff", "failed", "closed"]

MAILBOX_CAPACITY = 256
"""Messages: what clients may send between two turns of the actor, which never waits. Full means overload."""


class Session:
    """See the module. Its task is `run`; everything else goes through `ref`.

    Attributes:
      node: its place in the visible tree.
      started: settled when the first process ran, refused with `AgentStartFailed` if there was none.
      opened: settled when a native session has its ACP session, refused where the agent does not open it.
      closed: set when `Close` has been carried out, or the task has ended: no process is left.
      turns: the native ones.
      memory: what is kept of the session; only the actor changes it.
      fence: by which owners that have a number ask for what acts.
    """

    def __init__(self, log: SessionLog, catalog: Catalog, setting: Setting, node: Node) -> None:
        self.log = log
        self.node = node
        self.started: Reply[None] = Reply()
        self.opened: Reply[None] = Reply()
        self.closed = trio.Event()
        self.setting = setting
        self.journal = setting.journal
        self.memory = Memory.load(log.row.memory)
        self._mailbox: Mailbox[Message] = Mailbox(MAILBOX_CAPACITY)
        self._state: State = "closed" if self.memory.closed else "stopped"
        self.line = Line(self)
        self.timers = Timers(self._mailbox.ref)
        self.asking = Asking(self)
        self.router = Router(self.memory, setting.run, self.asking.permissions, self.asking.services)
        self._active_ms = self.memory.active_ms or log.row.created_ms
        self._active_at = trio.current_time()
        self.resting = Resting(self)
        self.prompting = Prompting(self)
        self._forking = Forking(self)
        self.fence = Fence(self, self._mailbox)
        self.router.prompt_ended = self.prompting.prompt_ended
        self._life = AgentLife(self, catalog)
        node.mailbox_depth = lambda: self._mailbox.depth
        self.enter(self._state)
        if self.memory.closed:
            self._life.close()

    @property
    def ref(self) -> ActorRef[Message]:
        return self._mailbox.ref

    @property
    def state(self) -> State:
        return self._state

    @property
    def setup(self) -> Setup:
        return self.memory.setup

    @property
    def turns(self) -> Turns:
        return self.prompting.turns

    @property
    def permissions(self) -> Permissions:
        return self.asking.permissions

    @property
    def incarnation(self) -> int:
        """The number of the incarnation that runs, or ran last; 0 before the first."""
        return self.log.row.incarnation

    @property
    def pid(self) -> int | None:
        """Of the agent's process, where there is one."""
        return self._life.pid

    @property
    def last_active_ms(self) -> int:
        """When somebody last said something in it."""
        return self._active_ms

    @property
    def active_at(self) -> float:
        """The same by Trio's clock, which nobody sets. Of what an earlier daemon did it knows nothing."""
        return self._active_at

    @property
    def has_mail(self) -> bool:
        """Whether it has messages that it has not read yet."""
        return self._mailbox.depth > 0

    @property
    def restart_in(self) -> float:
        """Seconds until the next incarnation, after a crash."""
        return self._life.restart_in

    def memory_view(self) -> MemoryView:
        """What the agent has told of itself and its ACP sessions."""
        return MemoryView.of(self.memory)

    # -- tasks

    async def run(self) -> None:
        """Be the actor, until cancelled. Whoever still waits then is refused."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, self._mailbox, self._receive)
                nursery.start_soon(self._life.run)
                nursery.start_soon(self.timers.run)
        finally:
            self.enter("closed")
            self._life.leave()
            self._mailbox.close()
            self.router.refuse_all(SessionClosed())
            self.prompting.abandon(SessionClosed())
            self.started.refuse(SessionClosed())
            self.opened.refuse(SessionClosed())
            self.closed.set()

    # -- the actor

    async def _receive(self, message: Message, reply: Reply[object]) -> None:
        match message:
            case Say():
                self._touch()
                reply.settle(self._say(message))
            case Prompt():
                self._touch()
                self.prompting.take(message, reply)
            case CancelTurn():
                reply.settle(self.prompting.cancel(message.turn))
            case TurnOverdue():
                self.prompting.overdue(message.turn)
            case CancelOverdue():
                self.prompting.cancel_overdue(message.turn)
            case AnswerPermission():
                self._touch()
                self.asking.answer(message, reply)
            case PermissionOverdue():
                self.asking.overdue(message.id)
            case Served():
                self.asking.served(message.envelope)
            case Fenced():
                if self.fence.admits(message, reply):
                    await self._receive(cast("Message", message.request), reply)
            case Patch():
                self.check_journal()
                patch(self, message.changes)
                self.remember(lambda: reply.settle(None))
            case CloseSession():
                self.check_journal()
                self._life.close_for_good()
                self.remember(lambda: reply.settle(None))
            case Restart():
                self.resting.restart()
                reply.settle(None)
            case Hibernate():
                self.resting.hibernate()
                reply.settle(None)
            case Fork():
                self._touch()
                reply.settle(self._forking.ask())
            case ForkEnded():
                self._forking.ended(message)
            case IdleOverdue():
                self.resting.look()
            case MakeRoom():
                self.resting.asked_for_room()
            case AgentHeard():
                self._touch()
                self.asking.carry_out(self.router.heard(message.lines))
                message.taken.set()
                self.prompting.advance()
            case (
                NoBerth()
                | AgentUp()
                | AgentCalled()
                | AgentReady()
                | OpeningFailed()
                | AgentDown()
                | AgentRestarting()
                | AgentGivenUp()
            ):
                self._life.hear(message)
            case Close():
                self._life.close()
            case _:
                assert_never(message)

    def enter(self, state: State) -> None:
        """Be in a state from now on."""
        self._state = state
        self.node.state = state

    def settle_past(self) -> None:
        """Finish what a daemon left open that died: the turns of its agent, which the sweep has ended with it."""
        routed = Routed()
        refusal = AgentProcessExited(None, [])
        for turn in self.memory.turns:  # also those that waited for an agent which had not come up
            routed.add(NOTICE, error_response(turn.id, refusal))
            routed.add(NOTICE, notices.turn_failed(turn.id, turn.session_id, "daemon_died"))
        self.asking.permissions.settle_past(routed)
        self.prompting.settle_past(routed)
        if self.memory.running:
            routed.add(NOTICE, notices.agent_exited(self.log.row.incarnation, None, (), "daemon_died"))
        if routed.envelopes:
            self.memory.turns.clear()
            self.memory.running = False
            self.record(routed)
            self.remember()

    # what clients say

    def _say(self, said: Say) -> Accepted:
        if (own_id := said.head.request_id) is not None:
            return self.ask_agent(said, own_id)
        if self._state in ("starting", "ready"):
            self.line.check_room()
            routed = Routed([CLIENT], [said.envelope])
            if self.router.too_late(said.head, routed):
                return Accepted()
            self.asking.carry_out(routed)
            self.line.pass_on(said)
            if said.head.method_name == "session/cancel":
                self.asking.cancel(text_of(members_of(said.head.params).get("sessionId")))
        # Without an agent there is nobody to be told or answered; what it had asked was settled when it went.
        return Accepted()

    def ask_agent(
        self, said: Say, own_id: Raw, ended: Callable[[Head | Refusal, Routed], None] | None = None
    ) -> Accepted:
        """Have the agent asked, woken where it sleeps. See `Waiting` for `ended`.

        Raises:
          SessionClosed, JournalUnavailable, AgentUnavailable, AgentLimitReached, AgentBusy, Overloaded.
        """
        method = said.head.method_name
        if self._state == "closed":
            raise SessionClosed
        self.check_journal()
        if self._state == "backoff":
            raise AgentUnavailable("the agent crashed and is about to be started again", self.restart_in)
        if self._state == "failed" and method != "initialize":
            raise AgentUnavailable("the agent crashed too often; send initialize to start it again", None)
        self.line.check_room()
        if self._state in ("stopped", "failed"):
            self.wake()
        waiting, envelope = self.router.ask(said.envelope, said.head, own_id, ended)
        if waiting.method == "session/prompt":
            self.remember()
        self.record(Routed([CLIENT], [envelope]))
        self.line.pass_on(Say(envelope, said.head, said.servers))
        return Accepted(waiting.id, waiting.answer)

    def check_journal(self) -> None:
        """Raises `JournalUnavailable` while nothing can be made durable."""
        if self.journal.trouble is not None:
            raise JournalUnavailable(self.journal.trouble)

    # what becomes of the agent

    def wake(self) -> None:
        """Have the agent started. Raises `AgentLimitReached`."""
        self._life.wake()

    def stop_agent(self) -> None:
        """End the agent; the next prompt starts it again."""
        self._life.stop()

    def keep_agent(self) -> None:
        """The agent is not ended, though another session needs its berth."""
        self._life.stay()

    def restart_agent(self, refusal: Refusal | None = None) -> None:
        """End the agent, and start it again; what it works on is refused."""
        self._life.restart(refusal)

    # -- the journal

    def _touch(self) -> None:
        self._active_ms = time.time_ns() // 1_000_000
        self._active_at = trio.current_time()

    def record(self, routed: Routed) -> None:
        """Append to the journal; whoever waits for it is answered when it is durable."""

        def settle() -> None:
            for answer, envelope in routed.answers:
                answer.settle(envelope)
            for then in routed.then:
                then()

        if routed.envelopes:
            committed = settle if routed.answers or routed.then else None
            incarnation = self.log.row.incarnation
            self.journal.append(self.log, incarnation, bytes(routed.origins), routed.envelopes, committed)

    def tell_clients(self, lines: list[bytes]) -> None:
        """Append notices of the daemon's own."""
        self.record(Routed([NOTICE] * len(lines), lines))

    def remember(self, then: Callable[[], None] | None = None) -> None:
        """Keep the memory as it is now, in order with what is recorded; `then` is called when it is durable."""
        self.memory.active_ms = self._active_ms
        self.journal.remember(self.log, self.memory.dump(), then)
