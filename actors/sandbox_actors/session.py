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

import math
from typing import TYPE_CHECKING, Literal, assert_never

import structlog
import trio

from sandbox_supervisor import (
    ActorRef,
    Cookie,
    Crash,
    Mailbox,
    Node,
    Reply,
    RestartLimitReached,
    drain,
    supervise,
)

from . import notices
from .agent import AgentCrashed, AgentProcess
from .directory_config import merged
from .envelope import error_response
from .errors import (
    AgentProcessExited,
    AgentStartFailed,
    AgentUnavailable,
    JournalUnavailable,
    Overloaded,
    Refusal,
    SessionClosed,
)
from .held import Held
from .memory import Memory
from .messages import (
    Accepted,
    AgentCalled,
    AgentDown,
    AgentGivenUp,
    AgentHeard,
    AgentReady,
    AgentRestarting,
    AgentUp,
    Close,
    Message,
    Say,
)
from .outbox import BYTES_LIMIT
from .router import CLIENT, DAEMON, NOTICE, Routed, Router

if TYPE_CHECKING:
    from msgspec import Raw

    from .catalog import Catalog
    from .directory_config import StoredServers
    from .journal import SessionLog
    from .outbox import Outbox
    from .setting import Setting

__all__ = ["Session", "State"]

log = structlog.get_logger()

State = Literal["stopped", "starting", "ready", "backoff", "failed", "closed"]

MAILBOX_CAPACITY = 256
"""Messages: what clients may send between two turns of the actor, which never waits. Full means overload."""


class Session:
    """See the module. Its task is `run`; everything else goes through `ref`.

    Attributes:
      node: its place in the visible tree.
      started: settled when the first process ran, refused with `AgentStartFailed` if there was none.
      closed: set when `Close` has been carried out, or the task has ended: no process is left.
    """

    def __init__(self, log: SessionLog, catalog: Catalog, setting: Setting, node: Node) -> None:
        self.log = log
        self.node = node
        self.started: Reply[None] = Reply()
        self.closed = trio.Event()
        self._catalog = catalog
        self._setting = setting
        self._journal = setting.journal
        self._memory = Memory.load(log.row.memory)
        self._mailbox: Mailbox[Message] = Mailbox(MAILBOX_CAPACITY)
        self._state: State = "stopped"
        self._wanted = trio.Event()
        self._stop = trio.Event()
        self._running = False
        self._outbox: Outbox | None = None
        self._held = Held()
        self._router = Router(self._memory, setting.run)
        self._restart_at = math.inf
        self._first = log.row.incarnation + 1
        node.mailbox_depth = lambda: self._mailbox.depth
        node.state = "stopped"

    @property
    def ref(self) -> ActorRef[Message]:
        return self._mailbox.ref

    @property
    def state(self) -> State:
        return self._state

    # -- tasks

    async def run(self) -> None:
        """Be the actor, until cancelled. Whoever still waits then is refused."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, self._mailbox, self._receive)
                nursery.start_soon(self._keep_agent)
        finally:
            self._enter("closed")
            self._mailbox.close()
            self._router.refuse_all(SessionClosed())
            self.started.refuse(SessionClosed())
            self.closed.set()

    async def _keep_agent(self) -> None:
        with self.node.child("agent", "agent") as node:
            node.state = "stopped"
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                try:
                    await supervise(
                        self._incarnation,
                        self._setting.policy,
                        name=f"agent {self.log.row.agent}",
                        first=self.log.row.incarnation + 1,
                        crashed=self._crashed,
                        node=node,
                    )
                except RestartLimitReached as error:
                    await self.ref.tell(AgentGivenUp(str(error)))

    async def _incarnation(self, number: int) -> None:
        if self._state == "closed":
            return
        self._running = True
        self._stop = trio.Event()
        process = AgentProcess(
            incarnation=number,
            catalog=self._catalog,
            agent=self.log.row.agent,
            cookie=Cookie(self._setting.owner, self._setting.run, f"{self.log.row.key}.{number}"),
            ladder=self._setting.ladder,
            reaper=self._setting.reaper,
            session=self.ref,
            journal=self._journal,
            memory=self._memory,
            directory_config=self._setting.directory_config,
            redactor=self._setting.redactor,
            stop=self._stop,
        )
        try:
            await process.run()
        except Exception as error:
            if process.status is None:  # there was no process, whatever the reason
                self.started.refuse(AgentStartFailed(str(error)))
            reason = str(error) if process.status is None or not isinstance(error, AgentCrashed) else None
            await self.ref.tell(AgentDown(number, process.status, process.last_stderr, reason, crashed=True))
            raise
        reason = "stopped" if self._stop.is_set() else None
        await self.ref.tell(AgentDown(number, process.status, process.last_stderr, reason, crashed=False))

    async def _crashed(self, crash: Crash) -> None:
        log.warning(
            "agent crashed",
            session=self.log.row.id,
            agent=self.log.row.agent,
            incarnation=crash.incarnation,
            crashes=crash.crashes,
            restart_in=crash.delay,
            error=type(crash.error).__name__,
        )
        if crash.delay is not None:
            await self.ref.tell(AgentRestarting(crash.incarnation, crash.delay, crash.crashes))

    # -- the actor

    async def _receive(self, message: Message, reply: Reply[object]) -> None:
        match message:
            case Say():
                reply.settle(self._say(message))
            case AgentHeard():
                routed = self._router.heard(message.lines)
                if routed.learned:
                    self._remember()
                self._record(routed)
                message.taken.set()
            case AgentUp():
                self._up(message)
            case AgentCalled():
                self._called(message)
            case AgentReady():
                self._ready(message)
            case AgentDown():
                self._down(message)
            case AgentRestarting():
                self._restarting(message)
            case AgentGivenUp():
                if self._state != "closed":
                    self._enter("failed")
                    self._tell_clients([notices.agent_failed(message.reason)])
            case Close():
                self._close()
            case _:
                assert_never(message)

    def _enter(self, state: State) -> None:
        self._state = state
        self.node.state = state

    def settle_past(self) -> None:
        """Finish what a daemon left open that died: the turns of its agent, which the sweep has ended with it."""
        if not self._memory.running:
            return
        refusal = AgentProcessExited(None, [])
        routed = Routed()
        for turn in self._memory.turns:
            routed.add(NOTICE, error_response(turn.id, refusal))
            routed.add(NOTICE, notices.turn_failed(turn.id, turn.session_id, "daemon_died"))
        routed.add(NOTICE, notices.agent_exited(self.log.row.incarnation, None, (), "daemon_died"))
        self._memory.turns.clear()
        self._memory.running = False
        self._record(routed)
        self._remember()

    # what clients say

    def _say(self, said: Say) -> Accepted:
        if (own_id := said.head.request_id) is not None:
            return self._ask_agent(said, own_id)
        if self._state in ("starting", "ready"):
            self._check_room()
            if self._router.too_late(said.head):
                return Accepted()
            self._record(Routed([CLIENT], [said.envelope]))
            self._send(said)
        # Without an agent there is nobody to be told or answered; what it had asked was settled when it went.
        return Accepted()

    def _ask_agent(self, said: Say, own_id: Raw) -> Accepted:
        method = said.head.method_name
        if self._state == "closed":
            raise SessionClosed
        if self._journal.trouble is not None:
            raise JournalUnavailable(self._journal.trouble)
        if self._state == "backoff":
            raise AgentUnavailable(
                "the agent crashed and is about to be started again", max(0.0, self._restart_at - trio.current_time())
            )
        if self._state == "failed" and method != "initialize":
            raise AgentUnavailable("the agent crashed too often; send initialize to start it again", None)
        self._check_room()
        if self._state in ("stopped", "failed"):
            self.wake()
        waiting, envelope = self._router.ask(said.envelope, said.head, own_id)
        if waiting.method == "session/prompt":
            self._remember()
        self._record(Routed([CLIENT], [envelope]))
        self._send(Say(envelope, said.head, said.servers))
        return Accepted(waiting.id, waiting.answer)

    def wake(self) -> None:
        """Have the agent started."""
        self._enter("starting")
        self._wanted.set()

    def _check_room(self) -> None:
        if self._outbox is not None:
            self._outbox.check()
        self._held.check()
        if self._journal.pending_bytes >= BYTES_LIMIT:
            raise Overloaded

    def _send(self, said: Say) -> None:
        # Answers pass: an agent may ask while it loads a session, and waits for them.
        if self._state == "starting" and not (said.head.is_response and self._outbox is not None):
            self._held.add(said)
        else:
            self._put(self._router.for_agent(said.envelope, said.head), said.servers)

    def _put(self, envelope: bytes, servers: StoredServers | None) -> None:
        if self._outbox is None:
            return
        if servers is not None:
            envelope, skipped = merged(envelope, servers, self._memory.mcp)
            self._tell_clients([notices.mcp_skipped(one) for one in skipped])
        self._outbox.put(envelope)

    # what becomes of the agent

    def _up(self, message: AgentUp) -> None:
        self.log.row.incarnation = message.incarnation
        self.node.details["pid"] = message.pid
        self._outbox = message.outbox
        self._memory.running = True
        self._remember()
        self.started.settle(None)
        if self._state != "closed":
            self._enter("starting")

    def _called(self, message: AgentCalled) -> None:
        if self._outbox is None:
            return
        envelope = self._router.call(message.method, message.params, message.muted, message.answer)
        self._record(Routed([DAEMON], [envelope]))
        self._put(envelope, message.servers)

    def _ready(self, message: AgentReady) -> None:
        if self._state != "starting":
            return
        self._router.recovered(message.recovered)
        if message.recovered:
            self._remember()
        # The first incarnation of a session that is made again under a deleted id is no restart.
        if message.recovered or message.incarnation > self._first:
            told = [notices.session_recovered(recovered, message.incarnation) for recovered in message.recovered]
            self._tell_clients([*told, notices.agent_restarted(message.incarnation)])
        self._enter("ready")
        for said in self._held.take():
            self._send(said)

    def _down(self, message: AgentDown) -> None:
        self.log.row.incarnation = message.incarnation
        refusal: Refusal = AgentProcessExited(message.status, message.stderr)
        if self._state == "closed":
            refusal = SessionClosed()
        routed = self._router.lost(refusal)
        routed.add(NOTICE, notices.agent_exited(message.incarnation, message.status, message.stderr, message.reason))
        self._memory.running = False
        self._remember()
        self._record(routed)
        self._outbox = None
        self._held.take()
        self._running = False
        self.node.details.pop("pid", None)
        if self._state == "closed":
            self.closed.set()
        else:
            self._restart_at = trio.current_time()
            self._enter("backoff" if message.crashed else "stopped")

    def _restarting(self, message: AgentRestarting) -> None:
        self._restart_at = trio.current_time() + message.delay
        self._tell_clients([notices.agent_restarting(message.incarnation + 1, message.delay, message.crashes)])

    def _close(self) -> None:
        self._enter("closed")
        self._stop.set()
        if not self._running:
            self.started.refuse(SessionClosed())
            self.closed.set()

    # -- the journal

    def _record(self, routed: Routed) -> None:
        def settle() -> None:
            for answer, envelope in routed.answers:
                answer.settle(envelope)

        if routed.envelopes:
            committed = settle if routed.answers else None
            incarnation = self.log.row.incarnation
            self._journal.append(self.log, incarnation, bytes(routed.origins), routed.envelopes, committed)

    def _tell_clients(self, lines: list[bytes]) -> None:
        self._record(Routed([NOTICE] * len(lines), lines))

    def _remember(self) -> None:
        self._journal.remember(self.log, self._memory.dump())
