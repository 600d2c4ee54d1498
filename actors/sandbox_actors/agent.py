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
from functools import partial
from typing import TYPE_CHECKING

import trio

from sandbox_supervisor import ChildProcess, ExitStatus, Reply, open_process

from .directory_config import stored_servers
from .errors import Refusal
from .framing import LineSplitter
from .messages import AgentCalled, AgentHeard, AgentReady, AgentUp, OpeningFailed
from .opening import introduction
from .outbox import Outbox
from .recovery import Ladder
from .redaction import Redactor, telling
from .transcript_context import transcript_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trio.abc import ReceiveStream

    from sandbox_supervisor import ActorRef, Cookie

    from .catalog import Catalog
    from .envelope import Head, Params
    from .framing import TooLong
    from .journal import SessionLog
    from .memory import Memory
    from .messages import Message
    from .setting import Setting

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
      serve: what goes on beside it, for as long as it runs.
      status: how the process ended; None before, and where there was none.
    """

    incarnation: int
    agent: str
    catalog: Catalog
    cookie: Cookie
    setting: Setting
    session: ActorRef[Message]
    log: SessionLog
    memory: Memory
    stop: trio.Event
    serve: Callable[[], Awaitable[None]]
    status: ExitStatus | None = None
    _stderr: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    _reading: set[trio.CancelScope] = field(default_factory=set[trio.CancelScope])
    _deadline: float = math.inf
    _own_redactor: Redactor = field(default_factory=Redactor)

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
        launch = self.catalog.launch(self.agent, self.memory.setup.env)
        self._own_redactor = Redactor(telling(self.memory.setup.env.values()))
        async with open_process(
            launch.argv,
            cookie=self.cookie,
            env=launch.env,
            cwd=launch.cwd,
            ladder=self.setting.ladder,
            reaper=self.setting.reaper,
        ) as child:
            outbox = Outbox()
            await self.session.tell(AgentUp(self.incarnation, child.pid, outbox))
            deaf, heard, murmured = trio.Event(), trio.Event(), trio.Event()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear, child, heard)
                    nursery.start_soon(self._murmur, child, murmured)
                    nursery.start_soon(_speak, child, outbox, deaf)
                    nursery.start_soon(self.serve)
                    nursery.start_soon(self._bring_up, launch.env)
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
                await self.setting.journal.room()
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
                    self._stderr.append(self._redacted(told, cut=cut))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            murmured.set()

    def _redacted(self, text: str, *, cut: bool) -> str:
        return self._own_redactor.redact(self.setting.redactor.redact(text, cut=cut), cut=cut)

    async def _bring_up(self, environment: Mapping[str, str]) -> None:
        setting, limit = self.setting, self.setting.transcript_limit
        serves_files, serves_terminals = setting.files is not None, setting.processes is not None
        ladder = Ladder(
            memory=self.memory,
            call=self._call,
            first_call=self._first_call,
            agent=self.agent,
            introduction=introduction(serves_files=serves_files, serves_terminals=serves_terminals),
            transcript=partial(transcript_of, self.log, limit=limit) if limit else None,
            environment=environment,
        )
        try:
            up = await ladder.climb()
        except Refusal as refusal:
            await self.session.tell(OpeningFailed(self.incarnation, refusal))
        else:
            await self.session.tell(AgentReady(self.incarnation, up.recovered, up.opened))

    async def _call(self, method: str, params: Params) -> Head:
        muted = str(params["sessionId"]) if method == "session/load" and isinstance(params, dict) else None
        return await self._ask(method, params, muted=muted, learn=False)

    async def _first_call(self, method: str, params: Params) -> Head:
        """A session that is loaded for the first time tells a past which nobody has recorded yet."""
        return await self._ask(method, params, muted=None, learn=True)

    async def _ask(self, method: str, params: Params, *, muted: str | None, learn: bool) -> Head:
        answer: Reply[Head] = Reply()
        servers = await stored_servers(self.setting.directory_config, method, params)
        await self.session.tell(AgentCalled(method, params, muted, answer, servers, learn))
        return await answer.wait()


async def _speak(child: ChildProcess, outbox: Outbox, deaf: trio.Event) -> None:
    try:
        while True:
            await child.stdin.send_all(await outbox.take())
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        deaf.set()
