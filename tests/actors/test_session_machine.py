"""A native session under random operations and faults: whatever comes, it keeps its rules, settles, and goes on.

Agents are real processes. A daemon that is killed is one whose journal the next one gets as it was at that moment.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import trio
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from actors.natively import said, text
from actors.session_operations import (
    CLOSING,
    OPERATION,
    Cancel,
    Change,
    Decide,
    Do,
    NextDaemon,
    Operation,
    Say,
    SayRaw,
)
from actors.session_rules import Rules
from actors.talking import LIMIT, Client, Watch, open_house
from actors.talking import prompt as raw_prompt
from sandbox_actors.errors import (
    AgentUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    PermissionNotFound,
    PermissionResolved,
    QueueFull,
    Refusal,
    SessionBusy,
    SessionClosed,
)
from sandbox_actors.messages import AnswerPermission, CancelTurn, CloseSession, Hibernate, Patch, Prompt, Restart
from sandbox_actors.native import Changes, Setup
from sandbox_actors.permissions.policy import Policy
from support.journal import copied
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from actors.talking import House, Told
    from sandbox_actors.native_turns import Turn
    from sandbox_actors.session import Session

EXAMPLES = 40
OPERATIONS = (8, 20)
"""How many an example has."""

LISTEN_FOR = 0.2
"""Seconds that the client waits for news, where none may come."""

NEWS = (
    "_sandboxagent/permission/requested",
    "_sandboxagent/turn/ended",
    "_sandboxagent/agent/restarted",
    "_adapter/agent_exited",
)
"""After each of these, what comes next meets another state."""


@dataclass(slots=True)
class Machine:
    """What a client knows of the session.

    Attributes:
      taken: the turns that it was told are taken, in all lives of the daemon.
      outcomes: of those whose end it was told.
      keys: with what words each idempotency key was used, and which turn that is.
      past: the events that were there when a daemon died.
      mode: what the client has set last; None where a death may have come between that and the agent's word.
    """

    session: Session
    client: Client
    taken: set[str] = field(default_factory=set[str])
    outcomes: dict[str, str] = field(default_factory=dict[str, str])
    keys: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    past: list[Told] = field(default_factory=list["Told"])
    mode: str | None = "normal"
    closed: bool = False
    _killed: int = 0
    _turns: list[Turn] = field(default_factory=list["Turn"])
    _answers: list[Callable[[], Awaitable[object]]] = field(default_factory=list["Callable[[], Awaitable[object]]"])

    def move(self, house: House) -> None:
        """There is another daemon."""
        self.look_back()
        self._turns.clear()
        self._answers.clear()
        self.session = self.client.session = house.sessions.get("s")

    async def carry_out(self, operation: Operation) -> None:
        with trio.fail_after(LIMIT):
            match operation:
                case Say():
                    await self._prompt(operation)
                case SayRaw():
                    await self._prompt_raw(operation.words)
                case Cancel():
                    await self._cancel(operation.which)
                case Decide():
                    await self._decide(operation.how)
                case Change():
                    await self._change(operation)
                case Do():
                    await self._do(operation.what)
                case NextDaemon():
                    raise AssertionError("that is for who has the daemon")
                case _:
                    assert_never(operation)

    @contextmanager
    def _refused(self, *allowed: type[Refusal]) -> Generator[None]:
        """A request that may be refused so; a closed session refuses, and only that one."""
        expected: tuple[type[Refusal], ...] = (SessionClosed, *allowed)
        try:
            yield
        except expected as refusal:
            event(type(refusal).__name__)
            note(f"    refused: {refusal}")
            closed = isinstance(refusal, SessionClosed)
        else:
            return
        assert self.closed or not closed

    async def _prompt(self, asked: Say) -> None:
        before = self.keys.get(asked.key or "")
        with self._refused(AgentUnavailable, QueueFull, IdempotencyConflict):
            turn = await self.session.ref.ask(Prompt(text(asked.words), asked.key))
            if before is not None:
                assert before == (asked.words, turn.id)
                return
            assert not self.closed
            self.taken.add(turn.id)
            self._turns.append(turn)
            if asked.key is not None:
                self.keys[asked.key] = (asked.words, turn.id)

    async def _prompt_raw(self, words: str) -> None:
        main = self.session.memory.main
        assert main is not None
        with self._refused(AgentUnavailable):
            answer = await self.client.start("session/prompt", **raw_prompt(main, words))
            assert not self.closed
            self._answers.append(answer)

    async def _cancel(self, which: int | None) -> None:
        turns = self.session.turns.open
        if which is None or not turns:
            chosen, id = {turn.id for turn in turns}, None
        else:
            chosen, id = {turns[which % len(turns)].id}, turns[which % len(turns)].id
        # What has ended by the time that it is read is not cancelled.
        assert set(await self.session.ref.ask(CancelTurn(id))) <= chosen

    async def _decide(self, how: str) -> None:
        permissions = self.session.permissions
        open_ones = permissions.settled() if how == "late" else permissions.pending()
        if not open_ones:
            return
        asked = open_ones[0]
        is_form = asked.kind == "elicitation"
        if how == "raw":
            result = {"action": "decline"} if is_form else {"outcome": {"outcome": "selected", "optionId": "yes"}}
            await self.client.say({"id": json.loads(bytes(asked.request_id)), "result": result})
            return
        refusals = {"wrong": (InvalidRequest, PermissionResolved), "late": (PermissionResolved,)}
        with self._refused(PermissionNotFound, *refusals.get(how, (PermissionResolved,))):
            option = "nothing like it" if how == "wrong" else None if is_form else "yes"
            decided = await self.session.ref.ask(
                AnswerPermission(asked.id, option, "decline" if is_form and how != "wrong" else None)
            )
            assert how == "right"
            assert (decided.id, decided.by) == (asked.id, "client")

    async def _change(self, change: Change) -> None:
        changes = Changes()
        if change.policy is not None:
            changes.policy = Policy(default=change.policy)
        if change.mode is not None:
            changes.mode = change.mode
        with self._refused():
            await self.session.ref.ask(Patch(changes))
            assert not self.closed
            self.mode = change.mode or self.mode

    async def _do(self, what: str) -> None:
        session = self.session
        if what in ("kill", "restart"):
            self._doubt_mode()
        match what:
            case "listen":
                if session.turns.open or session.memory.turns or session.state in ("starting", "backoff"):
                    watch = Watch(session, session.log.head)
                    with trio.move_on_after(LISTEN_FOR):
                        await watch.until(lambda told: told.method in NEWS)
            case "kill":
                if session.pid is not None:
                    self._killed = session.pid
                    with suppress(ProcessLookupError):
                        os.kill(session.pid, signal.SIGKILL)
            case "hibernate":
                with self._refused(SessionBusy, AgentUnavailable):
                    await session.ref.ask(Hibernate())
            case "restart":
                with self._refused():
                    await session.ref.ask(Restart())
            case _:
                await session.ref.ask(CloseSession())
                self.closed = True

    def _doubt_mode(self) -> None:
        """An agent that dies between two changes may have told of the first as the newest."""
        memory = self.session.memory
        if memory.sessions[memory.target or ""].told.mode != self.mode:
            self.mode = None

    def look_back(self) -> None:
        """Note the ends of turns that were told in this life."""
        for turn in self._turns:
            if turn.ended.settled and turn.outcome is not None:
                self.outcomes[turn.id] = turn.outcome

    async def die(self, home: Path, next_home: Path) -> None:
        """Keep the journal as a daemon leaves it that is killed now. Nobody hears of what becomes of this one."""
        self.look_back()
        self._turns.clear()
        self._doubt_mode()
        self.past = await self.events(self.session.log.head)
        await trio.to_thread.run_sync(copied, home / "journal.db", next_home / "journal.db")

    async def events(self, head: int) -> list[Told]:
        """All events up to this number, as soon as they can be seen."""
        watch = Watch(self.session)
        while not watch.told or watch.told[-1].seq < head:
            await watch.next()
        return watch.told

    async def finish(self) -> None:
        """Have everything end that was begun, and see that it has."""
        with trio.fail_after(LIMIT):
            if not self.closed:
                await self.session.ref.ask(CancelTurn())
                cancel = {"sessionId": self.session.memory.main}
                await self.client.say({"method": "session/cancel", "params": cancel})
            for turn in self._turns:
                await turn.ended.wait()
            for answer in self._answers:
                with suppress(Refusal):
                    await answer()
        self.look_back()
        if not self.closed:
            await self._go_on()
        session, memory = self.session, self.session.memory
        assert (session.state == "closed") == self.closed
        assert session.turns.open == ()
        assert session.permissions.pending() == []
        assert (memory.open_turns, memory.turns, memory.permissions) == ([], [], [])
        assert session.timers.names() == []

        rules, events = Rules(), await self.events(session.log.next_seq - 1)
        rules.read(events)
        rules.check_settled()
        assert rules.closed == self.closed
        assert self.taken <= rules.queued
        assert self.outcomes.items() <= rules.outcomes.items()
        assert events[: len(self.past)] == self.past
        event(f"{len(rules.queued) // 3 * 3} turns or more")
        event(f"{len(rules.asked)} permissions")

    async def _go_on(self) -> None:
        """It is as good as ever: it answers, and the agent is in the mode that was set last."""
        await eventually(lambda: self.session.pid != self._killed)
        if self.session.state in ("failed", "backoff"):
            await self.session.ref.ask(Restart())
        state = json.loads(await said(self.session, "/state"))
        assert self.mode in (None, state["mode"])


async def live(operations: list[Operation], folder: Path) -> None:
    """Carry out the operations in one life of a daemon after the other."""
    machine: Machine | None = None
    left = iter(operations)
    lives = 0
    while True:
        home = folder / str(lives)
        home.mkdir(exist_ok=True)
        limits = {"cancel_within": 0.1, "queue_limit": 3}
        async with open_house(home, limits=limits, MOCK_AGENT_HOME=str(folder / "mock")) as house:
            if machine is None:
                session = await house.sessions.create("s", "mock", Setup())
                machine = Machine(session, Client(session))
            else:
                machine.move(house)
            for operation in left:
                note(f"{operation}")
                if isinstance(operation, NextDaemon):
                    if operation.killed:
                        lives += 1
                        (folder / str(lives)).mkdir()
                        await machine.die(home, folder / str(lives))
                    break
                await machine.carry_out(operation)
            else:
                await machine.finish()
                return


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=EXAMPLES,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    operations=st.lists(OPERATION, min_size=OPERATIONS[0], max_size=OPERATIONS[1]),
    closing_ones=CLOSING,
    after=st.lists(OPERATION, max_size=4),
)
def test_a_session_keeps_its_rules_whatever_happens(
    operations: list[Operation], closing_ones: list[Operation], after: list[Operation]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(live, [*operations, *closing_ones, *after], Path(folder))
