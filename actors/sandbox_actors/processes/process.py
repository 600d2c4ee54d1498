"""The process actor: a command of a client's, its log and its terminal, over all the runs that it has.

    state        a first process   takes
    starting     coming up         nothing yet; it is listed when it runs
    running      there             input, signals, sizes of its terminal
    restarting   none              only its end: it is started again after the delay
    exited       none, nor a tree  nothing any more; its record and log stay until it is deleted

What it writes goes to the log and nowhere else, so nobody who reads can hold it up. It has exited when its first
process has ended, the rest of its tree is dead, and all that they wrote is in the log.
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, assert_never

import trio

from sandbox_supervisor import (
    PERMANENT,
    ActorStopped,
    ExitStatus,
    Mailbox,
    Reply,
    RestartLimitReached,
    SpawnFailed,
    drain,
    supervise,
)

from .child import open_child
from .errors import NotRunning, ProcessTrouble, StartFailed
from .log import ProcessLog
from .messages import EndInput, Message, Resize, Signal, Write
from .terminal import resize
from .viewers import Viewers

if TYPE_CHECKING:
    from sandbox_supervisor import Cookie, Node, Reaper, Request

    from ..errors import Refusal
    from .cgroups import Cgroups
    from .child import Child, Launch
    from .limits import Holder
    from .log import Stream
    from .spec import Spec
    from .terminal import Size

__all__ = ["Place", "Process", "State"]

State: TypeAlias = Literal["starting", "running", "restarting", "exited"]
R = TypeVar("R")

MAILBOX_CAPACITY = 256
"""Messages: none takes the actor longer than a few system calls. Full means overload."""

LAST_WORDS_WITHIN = 1.0
"""Seconds for what a dead tree left in its pipes; longer only where something outside of it has them open."""

HANG_UP_WITHIN = 1.0
"""Seconds from the hang-up of an idle terminal to the end of its tree."""


class _Failed(Exception):
    """A run ended and should not have."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a process is given of the daemon it runs in.

    Attributes:
      cookie: of its runs, but for their number.
      log_bytes: how much of its output is kept.
      idle: seconds after which its terminal is idle; None: never.
    """

    cookie: Cookie
    reaper: Reaper | None
    cgroups: Cgroups
    node: Node
    log_bytes: int
    idle: float | None


class Process:
    """See the module. Its task is `run`.

    Attributes:
      id: what clients call it; empty until it is listed.
      started: settled when the first run has begun, refused with `StartFailed` if there was none.
      exited: set when it has.
      status: how its last run ended.
      ended_by: why we ended it, where nobody asked for that.
      held: by what its limits are held.
      runs: how many have begun.
    """

    def __init__(self, spec: Spec, launch: Launch, place: Place) -> None:
        self.id = ""
        self.spec = spec
        self.log = ProcessLog(place.log_bytes)
        self.viewers = Viewers(self._stir)
        self.started: Reply[None] = Reply()
        self.exited = trio.Event()
        self.status: ExitStatus | None = None
        self.ended_by: Literal["timeout", "idle"] | None = None
        self.held: dict[str, list[Holder]] = {}
        self.runs = 0
        self.created_ms = self.exited_ms = 0
        self.node = place.node
        self._launch = launch
        self._place = place
        self._stirred = -math.inf
        self._mailbox: Mailbox[Message] = Mailbox(MAILBOX_CAPACITY)
        self._child: Child | None = None
        self._stopping = False
        self._keeping = trio.CancelScope()
        self.node.mailbox_depth = lambda: self._mailbox.depth

    @property
    def state(self) -> State:
        if self.exited.is_set():
            return "exited"
        if self._child is not None:
            return "running"
        return "restarting" if self.runs else "starting"

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    # -- what it takes

    async def write(self, data: bytes) -> None:
        """Give it input.

        Raises:
          NotRunning, ProcessTrouble, InputBroken, InputFull: none of it was taken.
        """
        await self._ask(Write(data))

    async def end_input(self) -> None:
        """No more input follows. Raises as `write`."""
        await self._ask(EndInput())

    async def resize(self, size: Size) -> None:
        """Give its terminal another size. Raises `ProcessTrouble` if it has none."""
        if self.spec.tty is None:
            raise ProcessTrouble("process is not running in tty mode")
        await self._ask(Resize(size), ProcessTrouble("PTY resize handle unavailable"))

    async def signal(self, number: int) -> None:
        """Signal the job in the foreground of its terminal, or its group. Raises `NotRunning`."""
        await self._ask(Signal(number))

    async def stop(self, number: int, within: float, kill_after: float | None = None) -> None:
        """Signal its whole tree, not to be started again, and wait for its end, not for long. It may survive that.

        Args:
          kill_after: seconds after which what is left gets SIGKILL; None: never.
        """
        if self.exited.is_set():
            return
        await self._end_by(number)
        with trio.move_on_after(within):
            if kill_after is not None:
                with trio.move_on_after(kill_after):
                    await self.exited.wait()
                await self._end_by(signal.SIGKILL)
            await self.exited.wait()

    async def _end_by(self, number: int) -> None:
        try:
            await self._ask(Signal(number, last=True))
        except NotRunning:
            return  # it has ended by itself

    async def _ask(self, request: Request[R], gone: Refusal | None = None) -> R:
        try:
            return await self._mailbox.ref.ask(request)
        except ActorStopped:
            raise gone or NotRunning() from None

    # -- tasks

    async def run(self) -> None:
        """Be the actor until the process has exited, or until cancelled; then its tree is ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain, self._mailbox, partial(self._receive, nursery))
                with self._keeping:
                    await self._keep()
                nursery.cancel_scope.cancel()
        finally:
            self.exited_ms = _now_ms()
            self._mailbox.close()
            self.exited.set()
            self.log.end()
            self.node.state = "exited"
            self.started.refuse(ProcessTrouble("the daemon ended the process while it started"))

    async def _keep(self) -> None:
        if self.spec.restart is None:
            await self._run_once(1)
            return
        try:
            await supervise(self._run_once, self.spec.restart, name=self.spec.command, node=self.node)
        except RestartLimitReached:
            return  # how its last run ended is in its record

    async def _run_once(self, number: int) -> None:
        cookie = replace(self._place.cookie, name=f"{self._place.cookie.name}.{number}")
        failed = True
        try:
            async with open_child(
                self._launch, cookie=cookie, reaper=self._place.reaper, cgroups=self._place.cgroups
            ) as child:
                self._begin(child, number)
                try:
                    await self._attend(child)
                finally:
                    self._child = None
                    self.status = await child.end()
            failed = self.status != ExitStatus(0, None)
        except SpawnFailed as error:
            self.started.refuse(StartFailed(error, tty=self._launch.tty is not None))
        if self._stopping or self.runs == 0:
            self._keeping.cancel()
            await trio.lowlevel.checkpoint()
        policy = self.spec.restart
        # One that ends well and is to run for ever counts as a crash: it must not be started without a pause.
        if policy is not None and (failed or policy.restart == PERMANENT):
            raise _Failed

    def _begin(self, child: Child, number: int) -> None:
        self._child = child
        self.status = None
        self.runs = number
        self._stir()
        self.held = self._launch.limits.held(
            child.group.controllers if child.group is not None else (),
            root=None if self._launch.user is None else self._launch.user.uid == 0,
        )
        self.node.details["pid"] = child.pid
        self.created_ms = self.created_ms or _now_ms()
        if self.spec.stdin is not None:
            child.input.write_all(self.spec.stdin)
        if self._stopping:
            child.signal(signal.SIGKILL)
        self.started.settle(None)

    async def _attend(self, child: Child) -> None:
        """Let it run to its end, with all that it writes."""
        patience = trio.CancelScope()
        if self.spec.timeout is not None:
            patience.deadline = trio.current_time() + self.spec.timeout
        async with trio.open_nursery() as tasks:
            tasks.start_soon(child.input.flush)
            if self._place.idle is not None and child.terminal is not None:
                tasks.start_soon(self._end_when_idle, child, patience, self._place.idle)
            async with trio.open_nursery() as readers:
                for stream, output in child.outputs.items():
                    pump = partial(output.pump, partial(self._take, stream), gather=child.terminal is None)
                    readers.start_soon(pump)
                with patience:
                    await child.wait()
                if patience.cancelled_caught:
                    self.ended_by = self.ended_by or "timeout"
                await child.end()
                readers.cancel_scope.deadline = trio.current_time() + LAST_WORDS_WITHIN
            tasks.cancel_scope.cancel()

    def _take(self, stream: Stream, data: bytes) -> None:
        self._stir()
        self.log.append(stream, data)

    def _stir(self) -> None:
        self._stirred = trio.current_time()

    async def _end_when_idle(self, child: Child, patience: trio.CancelScope, idle: float) -> None:
        while True:
            left = self._stirred + idle - trio.current_time()
            if left <= 0 and not len(self.viewers):
                break
            await trio.sleep(left if left > 0 else idle)
        self.ended_by, self._stopping = "idle", True
        child.signal(signal.SIGHUP)
        await trio.sleep(HANG_UP_WITHIN)
        patience.cancel()

    async def _receive(self, nursery: trio.Nursery, message: Message, reply: Reply[object]) -> None:
        child = self._child
        if isinstance(message, Signal) and message.last:
            self._stopping = True
            if child is None and self.runs:
                self._keeping.cancel()
        elif child is None:
            raise NotRunning
        match message:
            case Write(data):
                assert child is not None
                self._stir()
                child.input.write(data)
            case EndInput():
                assert child is not None
                child.input.end()
            case Resize(size):
                assert child is not None
                assert child.terminal is not None
                self._launch = replace(self._launch, tty=size)
                resize(child.terminal.fileno(), size)
            case Signal(number, last):
                if child is not None:
                    child.signal(number, job=not last)
                    if last:
                        # One that is held up (SIGSTOP, Ctrl-Z) takes nothing but SIGKILL until it goes on.
                        child.signal(signal.SIGCONT)
                        nursery.start_soon(child.signal_escaped, number)
            case _:
                assert_never(message)
        reply.settle(None)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
