"""Asking an agent what it is and can: a process of its own, `initialize`, perhaps `session/new`, and its end.

Nothing of it is a session of the daemon's: no journal, no clients, and nothing is left behind. Sources: ACP protocol
version 1, Initialization and Session Setup.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Raw

from sandbox_supervisor import SpawnFailed, open_process

from .envelope import Json, request
from .framing import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_supervisor import ChildProcess, Cookie, Reaper

    from .catalog import Launch

__all__ = ["Greeting", "ProbeFailed", "probe"]

READ_SIZE = 64 << 10
STDERR_LINES = 16
STDERR_LINE_LENGTH = 500

DEAD_WITHIN = 2.0
"""Seconds that an agent which has closed its stdout may take to exit, so that its status can be told."""

TIDY_WITHIN = 5.0
"""Seconds for the agent to forget the session that was only a question."""

INITIALIZE: Mapping[str, Json] = {
    "protocolVersion": 1,
    "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
    "clientInfo": {"name": "sandbox-agent", "version": "1"},
}


@dataclass(frozen=True, slots=True)
class Greeting:
    """What an agent said of itself.

    Attributes:
      initialize: the result of `initialize`.
      session: the result of `session/new`; None where it was not asked for, or refused.
      refusal: why `session/new` was refused, in the agent's words; None where it was not.
    """

    initialize: Raw
    session: Raw | None = None
    refusal: str | None = None


class ProbeFailed(Exception):
    """The agent does not answer as an ACP agent must. The message says how.

    Attributes:
      stderr: its last lines.
    """

    def __init__(self, message: str, stderr: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.stderr = stderr


async def probe(
    launch: Launch,
    *,
    cookie: Cookie,
    reaper: Reaper | None = None,
    cwd: str,
    session: bool = False,
    within: float = 60,
) -> Greeting:
    """Start an agent, ask it, and stop it with its whole tree.

    Args:
      cwd: its working directory, and the session's.
      session: whether to ask for a session, too: that is where modes and models are told.
      within: seconds for all answers together.

    Raises:
      ProbeFailed: it cannot be started, ends, stays silent, or refuses `initialize`.
    """
    heard = _Heard()
    outcome: Greeting | ProbeFailed = ProbeFailed("")
    try:
        async with (
            open_process(launch.argv, cookie=cookie, env=launch.env, cwd=cwd, reaper=reaper) as child,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(heard.listen, child)
            nursery.start_soon(heard.murmur, child)
            with trio.move_on_after(within) as limit:
                outcome = await _converse(heard, child, cwd, session=session)
            if limit.cancelled_caught:
                outcome = ProbeFailed(f"it did not answer {heard.asked!r} within {within:g} s", tuple(heard.stderr))
            nursery.cancel_scope.cancel()
    except SpawnFailed as error:
        raise ProbeFailed(str(error)) from None
    if isinstance(outcome, ProbeFailed):
        raise outcome
    return outcome


async def _converse(heard: _Heard, child: ChildProcess, cwd: str, *, session: bool) -> Greeting | ProbeFailed:
    greeting = await heard.ask(child, "initialize", INITIALIZE)
    if isinstance(greeting, str):
        return ProbeFailed(f"it refused 'initialize': {greeting}", tuple(heard.stderr))
    if isinstance(greeting, _Ended):
        return ProbeFailed(f"{greeting.how} before it answered 'initialize'", tuple(heard.stderr))
    if not session:
        return Greeting(greeting)
    opened = await heard.ask(child, "session/new", {"cwd": cwd, "mcpServers": []})
    if isinstance(opened, str):
        return Greeting(greeting, refusal=opened)
    if isinstance(opened, _Ended):
        return Greeting(greeting, refusal=f"{opened.how} before it answered 'session/new'")
    await _tidy(heard, child, greeting, opened)
    return Greeting(greeting, opened)


async def _tidy(heard: _Heard, child: ChildProcess, greeting: Raw, opened: Raw) -> None:
    """The session was only a question: where the agent can forget one, it shall."""
    capabilities = _member(_member(greeting, "agentCapabilities"), "sessionCapabilities")
    id = _member(opened, "sessionId")
    with trio.move_on_after(TIDY_WITHIN):
        if isinstance(id, str) and _member(capabilities, "delete") is not None:
            await heard.ask(child, "session/delete", {"sessionId": id})


@dataclass(frozen=True, slots=True)
class _Ended:
    """The agent can say nothing more."""

    how: str


@dataclass(slots=True, eq=False)
class _Heard:
    """What the agent has said so far.

    Attributes:
      asked: the method of the last question.
    """

    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    asked: str = ""
    _answer: Raw | str | None = None
    _ended: _Ended | None = None
    _count: int = 0
    _sending: trio.Lock = field(default_factory=trio.Lock)
    _murmured: trio.Event = field(default_factory=trio.Event)
    _arrived: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def ask(self, child: ChildProcess, method: str, params: Mapping[str, Json]) -> Raw | str | _Ended:
        """The result, or the message of the refusal, or the end."""
        self._count += 1
        self.asked, self._answer = method, None
        await self._send(child, request(Raw(b"%d" % self._count), method, params))
        while self._answer is None:
            if self._ended is not None:
                return self._ended
            await self._arrived.park()
        return self._answer

    async def _send(self, child: ChildProcess, envelope: bytes) -> None:
        async with self._sending:
            with suppress(trio.BrokenResourceError):  # the end of its stdout says more, and comes
                await child.stdin.send_all(envelope + b"\n")

    async def listen(self, child: ChildProcess) -> None:
        """Take in answers; refuse what the agent asks, for there is nobody to ask."""
        lines = LineSplitter()
        with suppress(trio.BrokenResourceError):
            while chunk := await child.stdout.receive_some(READ_SIZE):
                for line in lines.feed(chunk):
                    if isinstance(line, bytes) and (reply := self._take(line)) is not None:
                        await self._send(child, reply)
        with trio.move_on_after(DEAD_WITHIN):
            await child.wait()
            await self._murmured.wait()
        status = child.status
        if status is None:
            how = "it closed its output"
        elif status.signal is not None:
            how = f"it was ended by signal {status.signal}"
        else:
            how = f"it exited with code {status.code}"
        self._ended = _Ended(how)
        self._arrived.unpark_all()

    def _take(self, line: bytes) -> bytes | None:
        try:
            # What is not UTF-8 would come to light only where a member is read, and there nobody expects it.
            envelope = msgspec.json.decode(line.decode(errors="replace"), type=dict[str, Raw])
            id: Json = msgspec.json.decode(envelope.get("id", Raw(b"null")))
        except (msgspec.MsgspecError, RecursionError):
            return None  # a notice on stdout is no reason to give up
        if "method" in envelope:
            refusal = {"code": -32601, "message": "nobody is there to ask"}
            return None if id is None else msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": refusal})
        if type(id) is int and id == self._count:  # nothing else is waited for, and it must not pile up
            result = envelope.get("result")
            self._answer = result if result is not None else _told(envelope.get("error"))
            self._arrived.unpark_all()
        return None

    async def murmur(self, child: ChildProcess) -> None:
        lines = LineSplitter(limit=1 << 20)
        with suppress(trio.BrokenResourceError):
            while chunk := await child.stderr.receive_some(READ_SIZE):
                for line in lines.feed(chunk)[-STDERR_LINES:]:
                    text = line if isinstance(line, bytes) else line.start
                    self.stderr.append(text[:STDERR_LINE_LENGTH].decode(errors="replace"))
        self._murmured.set()


def _told(error: Raw | None) -> str:
    message = _member(error, "message")
    details = _member(_member(error, "data"), "details")
    said = message if isinstance(message, str) and message else "without a reason"
    return f"{said}: {details}" if isinstance(details, str) and details else said


def _member(whole: Raw | Json, name: str) -> Json:
    try:
        members: Json = msgspec.json.decode(whole) if isinstance(whole, Raw) else whole
        return members.get(name) if isinstance(members, dict) else None  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    except (msgspec.MsgspecError, RecursionError):
        return None
