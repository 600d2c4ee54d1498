"""One incarnation of an agent: its process, and the four tasks round it.

    stdout → session     all lines of a read as one message; the next read waits until they have been dealt with
    outbox → stdin       whole lines, whatever becomes of the client that sent them
    stderr → its tail    the last lines, for the report of a crash
    exit                 of the direct child, which neither implies the end of its stdout nor is implied by it

The child's exit comes first, then the rest of its tree is killed, and only then its stdout is read to the end: a
grandchild that holds the pipe must not hide the death of the agent, and the last words before it must not be lost.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET

from sandbox_supervisor import ChildProcess, ExitStatus, Reply, StopLadder, open_process

from .directory_config import stored_servers
from .framing import LineSplitter
from .messages import AgentCalled, AgentHeard, AgentReady, AgentUp
from .outbox import Outbox
from .recovery import recover

if TYPE_CHECKING:
    from trio.abc import ReceiveStream

    from sandbox_supervisor import ActorRef, Cookie, Reaper

    from .catalog import Catalog
    from .directory_config import DirectoryConfig
    from .envelope import Head, Params
    from .framing import TooLong
    from .journal import Journal
    from .memory import Memory
    from .messages import Message
    from .redaction import Redactor

__all__ = ["AgentCrashed", "AgentProcess"]

READ_SIZE = 64 << 10
"""Bytes of one read: what a pipe holds."""

LAST_WORDS_WITHIN = 2.0
"""Seconds to read what is left in the pipes of a tree that is dead: only a descriptor passed elsewhere takes longer."""

DEAF_WITHIN = 2.0
"""Seconds that an agent which has closed its stdin or stdout may go on living."""

STDERR_LINES = 16
STDERR_LINE_LENGTH = 500


class AgentCrashed(Exception):
    """The incarnation ended and should not have."""


@dataclass(slots=True, eq=False)
class AgentProcess:
    """One incarnation, from its start to its end.

    Attributes:
      stop: set it to have the agent stopped by the ladder, heard to its last word.
      status: how the process ended; None before, and where there was none.
    """

    incarnation: int
    agent: str
    catalog: Catalog
    cookie: Cookie
    ladder: StopLadder
    reaper: Reaper | None
    session: ActorRef[Message]
    journal: Journal
    memory: Memory
    directory_config: DirectoryConfig
    redactor: Redactor
    stop: trio.Event
    status: ExitStatus | None = None
    _stderr: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    _reading: set[trio.CancelScope] = field(default_factory=set[trio.CancelScope])
    _deadline: float = math.inf

    @property
    def last_stderr(self) -> tuple[str, ...]:
        return tuple(self._stderr)

    async def run(self) -> None:
        """Run the incarnation.

        Raises:
          SpawnFailed, AgentNotInstalled, UnsupportedAgent: there was no process.
          RecoveryFailed: the process could not be brought back to its sessions.
          AgentCrashed: it ended unasked, and not with code 0.
          These come in an ExceptionGroup where another task of the incarnation failed.
        """
        launch = self.catalog.launch(self.agent)
        async with open_process(
            launch.argv,
            cookie=self.cookie,
            env=launch.env,
            cwd=launch.cwd,
            ladder=self.ladder,
            reaper=self.reaper,
        ) as child:
            outbox = Outbox()
            await self.session.tell(AgentUp(self.incarnation, child.pid, outbox))
            deaf, heard, murmured = trio.Event(), trio.Event(), trio.Event()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear, child, heard)
                    nursery.start_soon(self._murmur, child, murmured)
                    nursery.start_soon(_speak, child, outbox, deaf)
                    nursery.start_soon(self._recover)
                    await self._ended(child, heard, deaf)
                    await child.stop()
                    self._read_by(trio.current_time() + LAST_WORDS_WITHIN)
                    with trio.CancelScope() as listening:
                        nursery.start_soon(self._hurry, listening)
                        await heard.wait()
                        await murmured.wait()
                    nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    self.status = await child.stop()
        if not self.stop.is_set() and self.status != ExitStatus(0, None):
            raise AgentCrashed(str(self.status))

    async def _hurry(self, listening: trio.CancelScope) -> None:
        """What was said before a crash waits for the disk as long as that takes; a stop, also a later one, does not."""
        await self.stop.wait()
        listening.deadline = trio.current_time() + LAST_WORDS_WITHIN

    async def _ended(self, child: ChildProcess, heard: trio.Event, deaf: trio.Event) -> None:
        """Wait until the child has exited, or is to be stopped, or cannot be talked to any more."""

        async def after(event: trio.Event, patience: float) -> None:
            await event.wait()
            await trio.sleep(patience)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(after, self.stop, 0)
            nursery.start_soon(after, heard, DEAF_WITHIN)
            nursery.start_soon(after, deaf, DEAF_WITHIN)
            await child.wait()
            nursery.cancel_scope.cancel()

    async def _hear(self, child: ChildProcess, heard: trio.Event) -> None:
        lines = LineSplitter()
        try:
            while chunk := await self._read(child.stdout):
                # Backpressure: while the disk is behind, the agent's pipe fills and the agent waits.
                await self.journal.room()
                await self._pass_on(lines.feed(chunk))
            await self._pass_on(lines.end())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._pass_on(lines.end())
        finally:
            heard.set()

    async def _read(self, stream: ReceiveStream) -> bytes | bytearray:
        """What is there to read; empty at the end, and when it is time to give up on one."""
        with trio.CancelScope(deadline=self._deadline) as reading:
            self._reading.add(reading)
            try:
                return await stream.receive_some(READ_SIZE)
            finally:
                self._reading.discard(reading)
        return b""

    def _read_by(self, deadline: float) -> None:
        """From now on wait for no read longer than this: the tree is dead, only a leaked descriptor is left."""
        self._deadline = deadline
        for reading in self._reading:
            reading.deadline = deadline

    async def _pass_on(self, lines: list[bytes | TooLong]) -> None:
        if lines:
            taken = trio.Event()
            await self.session.tell(AgentHeard(lines, taken))
            await taken.wait()

    async def _murmur(self, child: ChildProcess, murmured: trio.Event) -> None:
        lines = LineSplitter(limit=1 << 20)
        try:
            while chunk := await self._read(child.stderr):
                for line in lines.feed(chunk)[-STDERR_LINES:]:
                    text = line if isinstance(line, bytes) else line.start
                    cut = len(text) > STDERR_LINE_LENGTH or text is not line
                    told = text[:STDERR_LINE_LENGTH].decode(errors="replace")
                    self._stderr.append(self.redactor.redact(told, cut=cut))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            murmured.set()

    async def _recover(self) -> None:
        recovered = () if self.memory.initialize is UNSET else await recover(self.memory, self._call)
        await self.session.tell(AgentReady(self.incarnation, recovered))

    async def _call(self, method: str, params: Params) -> Head:
        answer: Reply[Head] = Reply()
        muted = str(params["sessionId"]) if method == "session/load" and isinstance(params, dict) else None
        servers = await stored_servers(self.directory_config, method, params)
        await self.session.tell(AgentCalled(method, params, muted, answer, servers))
        return await answer.wait()


async def _speak(child: ChildProcess, outbox: Outbox, deaf: trio.Event) -> None:
    try:
        while True:
            await child.stdin.send_all(await outbox.take())
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        deaf.set()
