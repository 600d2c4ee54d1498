"""The session actor: what clients talk to, whatever becomes of the agent process behind it.

    state      agent process   a request is
    stopped    none            accepted, and wakes the agent
    starting   coming up       accepted, and held until the incarnation has its sessions back
    ready      there           accepted, and passed on
    backoff    none            refused: try again after the delay
    failed     none            refused, but for `initialize`, which wakes the agent
    closed     none, or ending refused for good

It routes envelopes by their heads and passes on their bytes. Nothing in it waits: appending to the journal does not,
and the agent's outbox refuses when it is full. So one client, one agent or one disk that hangs holds up nobody else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog
import trio
from msgspec import UNSET, Raw

from sandbox_supervisor import (
    ActorRef,
    Crash,
    Mailbox,
    Node,
    Reply,
    RestartLimitReached,
    RestartPolicy,
    SpawnFailed,
    drain,
    supervise,
)
from sandbox_supervisor.process import StopLadder
from sandbox_supervisor.sweep import Cookie

from . import notices
from .agent import AgentProcess
from .envelope import Head, InvalidEnvelope, decode, error_response, replace_members, request
from .errors import (
    AgentBusy,
    AgentProcessExited,
    AgentStartFailed,
    AgentUnavailable,
    JournalUnavailable,
    Refusal,
    SessionClosed,
)
from .framing import LINE_LIMIT, TooLong
from .in_flight import Call, InFlight, Questions, Waiting
from .journal import Origin
from .memory import Memory, Turn
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

if TYPE_CHECKING:
    from sandbox_supervisor.reaper import Reaper

    from .journal import Journal, SessionLog
    from .launch import Catalog
    from .outbox import Outbox

__all__ = ["Session", "Setting", "State"]

log = structlog.get_logger()

State = Literal["stopped", "starting", "ready", "backoff", "failed", "closed"]

MAILBOX_CAPACITY = 256
"""Messages: what clients may send between two turns of the actor, which never waits. Full means overload."""

HELD_LIMIT = 256
"""Envelopes that wait for an incarnation to have its sessions back."""

AGENT, CLIENT, DAEMON, NOTICE = (origin.value[0] for origin in Origin)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all sessions of a daemon share.

    Attributes:
      owner, run: of the cookie that every process carries.
      policy: how a crashed agent is restarted.
      ladder: how an agent is stopped.
    """

    journal: Journal
    owner: str
    run: str
    reaper: Reaper | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    ladder: StopLadder = field(default_factory=StopLadder)


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
        self._held: list[tuple[Head, bytes]] = []
        self._in_flight = InFlight()
        self._questions = Questions()
        self._muted: set[str] = set()
        self._agent_ids = self._memory.aliases
        self._client_ids = {theirs: ours for ours, theirs in self._agent_ids.items()}
        self._restart_at = math.inf
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
            self._mailbox.close()
            for waiting in self._in_flight.clear():
                waiting.answer.refuse(SessionClosed())
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
        self.log.row.incarnation = number
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
            stop=self._stop,
        )
        try:
            await process.run()
        except Exception as error:
            if isinstance(error, SpawnFailed):
                self.started.refuse(AgentStartFailed(str(error)))
            reason = str(error) if process.status is None else None
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
                reply.settle(self._say(message.envelope, message.head))
            case AgentHeard():
                self._heard(message.incarnation, message.lines)
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

    def _enter(self, state: State) -> None:
        self._state = state
        self.node.state = state

    def settle_past(self) -> None:
        """Finish what a daemon left open that died: the turns of its agent, which the sweep has ended with it."""
        if not self._memory.running:
            return
        refusal = AgentProcessExited(None, [])
        lines: list[bytes] = []
        for turn in self._memory.turns:
            lines.append(error_response(turn.id, refusal))
            lines.append(notices.turn_failed(turn.id, turn.session_id, "daemon_died"))
        lines.append(notices.agent_exited(self.log.row.incarnation, None, (), "daemon_died"))
        self._memory.turns.clear()
        self._memory.running = False
        self._tell_clients(lines)
        self._remember()

    # what clients say

    def _say(self, envelope: bytes, head: Head) -> Accepted:
        if (own_id := head.request_id) is not None:
            return self._ask_agent(envelope, head, own_id)
        if self._state in ("starting", "ready"):
            late = isinstance(head.id, Raw) and head.method is UNSET and not self._questions.answer(head.id)
            if not late:
                self._check_room()
                self._append([CLIENT], [envelope])
                self._send(head, envelope)
        # Without an agent there is nobody to be told or answered; what it had asked was settled when it went.
        return Accepted()

    def _ask_agent(self, envelope: bytes, head: Head, own_id: Raw) -> Accepted:
        method = head.method_name
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
        answer: Reply[bytes] = Reply()
        id = self._in_flight.id_for(own_id)
        session_id = head.member("params", "sessionId")
        params = Raw(bytes(head.params)) if isinstance(head.params, Raw) and method != "session/prompt" else UNSET
        waiting = Waiting(
            id, Raw(bytes(own_id)), method, params, session_id if isinstance(session_id, str) else None, answer
        )
        self._in_flight.add(id, waiting)
        if bytes(id) != bytes(own_id):
            envelope = replace_members(envelope, {"id": id})
        if method == "session/prompt":
            self._memory.turns.append(Turn(id, waiting.session_id))
            self._remember()
        self._append([CLIENT], [envelope])
        self._send(head, envelope)
        return Accepted(id, answer)

    def wake(self) -> None:
        """Have the agent started."""
        self._enter("starting")
        self._wanted.set()

    def _check_room(self) -> None:
        if self._outbox is not None:
            self._outbox.check()
        if len(self._held) >= HELD_LIMIT:
            raise AgentBusy

    def _send(self, head: Head, envelope: bytes) -> None:
        if self._state == "starting":
            self._held.append((head, envelope))
        elif self._outbox is not None:
            self._outbox.put(self._translated(envelope, head, self._agent_ids))

    # what the agent says

    def _heard(self, incarnation: int, lines: list[bytes | TooLong]) -> None:
        origins: list[int] = []
        envelopes: list[bytes] = []
        answers: list[tuple[Reply[bytes], bytes]] = []
        for line in lines:
            if isinstance(line, TooLong):
                origins.append(NOTICE)
                envelopes.append(notices.invalid_stdout(line, f"line longer than {LINE_LIMIT} bytes"))
                continue
            try:
                head = decode(line)
            except InvalidEnvelope as error:
                origins.append(NOTICE)
                envelopes.append(notices.invalid_stdout(line, str(error)))
                continue
            # A carriage return between tokens is legal JSON, but would end a line of an event stream.
            envelope = line.replace(b"\r", b" ") if b"\r" in line else line
            if self._client_ids:
                envelope = self._translated(envelope, head, self._client_ids)
            origin = AGENT
            if head.id is not UNSET:
                origin = self._routed(head, envelope, answers)
            elif self._muted and head.member("params", "sessionId") in self._muted:
                continue  # the replay of a load: the journal has it from the first time
            origins.append(origin)
            envelopes.append(envelope)
        if envelopes:
            self._append(origins, envelopes, answers)

    def _routed(self, head: Head, envelope: bytes, answers: list[tuple[Reply[bytes], bytes]]) -> int:
        assert isinstance(head.id, Raw)
        if head.method is not UNSET:
            self._questions.add(head.id, head.method_name)
            return AGENT
        entry = self._in_flight.pop(head.id)
        if isinstance(entry, Call):
            self._muted.discard(entry.muted or "")
            entry.answer.settle(head)
            return DAEMON
        if entry is not None:
            turns = [turn for turn in self._memory.turns if bytes(turn.id) != bytes(entry.id)]
            ended = len(turns) != len(self._memory.turns)
            self._memory.turns = turns
            if self._memory.learn(entry.method, entry.params, decode(envelope)) or ended:
                self._remember()
            own = bytes(entry.id) == bytes(entry.own_id)
            answers.append((entry.answer, envelope if own else replace_members(envelope, {"id": entry.own_id})))
        return AGENT

    def _translated(self, envelope: bytes, head: Head, ids: dict[str, str]) -> bytes:
        """The envelope with the id of an ACP session replaced that the other side knows by another one."""
        if not ids:
            return envelope
        for member, whole in (("params", head.params), ("result", head.result)):
            id = head.member(member, "sessionId")
            if isinstance(id, str) and id in ids and isinstance(whole, Raw):
                replaced = replace_members(bytes(whole), {"sessionId": Raw(msgspec.json.encode(ids[id]))})
                envelope = replace_members(envelope, {member: Raw(replaced)})
        return envelope

    # what becomes of the agent

    def _up(self, message: AgentUp) -> None:
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
        id = self._in_flight.new_id()
        envelope = request(msgspec.json.decode(id), message.method, message.params)
        if message.muted is not None:
            self._muted.add(message.muted)
        self._in_flight.add(id, Call(message.muted, message.answer))
        self._append([DAEMON], [envelope])
        self._outbox.put(envelope)

    def _ready(self, message: AgentReady) -> None:
        if self._state != "starting":
            return
        for recovered in message.recovered:
            if recovered.id in self._memory.sessions:
                self._memory.sessions[recovered.id].agent_id = recovered.agent_id
        self._agent_ids = self._memory.aliases
        self._client_ids = {theirs: ours for ours, theirs in self._agent_ids.items()}
        if message.recovered:
            self._remember()
        if message.incarnation > 1:
            told = [notices.session_recovered(recovered, message.incarnation) for recovered in message.recovered]
            self._tell_clients([*told, notices.agent_restarted(message.incarnation)])
        self._enter("ready")
        held, self._held = self._held, []
        for head, envelope in held:
            self._send(head, envelope)

    def _down(self, message: AgentDown) -> None:
        refusal: Refusal = AgentProcessExited(message.status, message.stderr)
        if self._state == "closed":
            refusal = SessionClosed()
        lines: list[bytes] = []
        answers: list[tuple[Reply[bytes], bytes]] = []
        for waiting in self._in_flight.clear():
            lines.append(error_response(waiting.id, refusal))
            answers.append((waiting.answer, error_response(waiting.own_id, refusal)))
            if waiting.method == "session/prompt":
                lines.append(notices.turn_failed(waiting.id, waiting.session_id, refusal.name))
        lines += [notices.request_resolved(id, method, "cancelled") for id, method in self._questions.clear()]
        lines.append(notices.agent_exited(message.incarnation, message.status, message.stderr, message.reason))
        self._memory.turns.clear()
        self._memory.running = False
        self._remember()
        self._append([NOTICE] * len(lines), lines, answers)
        self._outbox = None
        self._held.clear()
        self._muted.clear()
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
            self.closed.set()

    # -- the journal

    def _append(
        self, origins: list[int], envelopes: list[bytes], answers: list[tuple[Reply[bytes], bytes]] | None = None
    ) -> None:
        def settle() -> None:
            for answer, envelope in answers or ():
                answer.settle(envelope)

        self._journal.append(self.log, self.log.row.incarnation, bytes(origins), envelopes, settle if answers else None)

    def _tell_clients(self, lines: list[bytes]) -> None:
        self._append([NOTICE] * len(lines), lines)

    def _remember(self) -> None:
        self._journal.remember(self.log, self._memory.dump())
