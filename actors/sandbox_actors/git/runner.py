"""Git as a child process: no shell, bounded in time and in what it may say, and gone with its whole tree."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sandbox_supervisor import Cookie, SpawnFailed, StopLadder, open_process

from ..redaction import Redactor, secrets_in
from .environment import git_environment
from .errors import GitFailed, GitNotInstalled, GitTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from trio.abc import ReceiveStream, SendStream

    from sandbox_supervisor import Reaper

__all__ = ["LONGEST_OUTPUT", "Output", "Runner", "within"]

LONGEST_OUTPUT = 16 << 20
"""Bytes of its output that are held."""

READ_SIZE = 64 << 10

LINES = 20
LINE_LENGTH = 500
LONGEST_LINE = 64 << 10

LINE_END = re.compile(rb"(\r|\n)")
"""Progress ends with a carriage return, and is written over by what follows."""

CLEAR_LINE = b"\x1b[K"
"""What a remote writes behind its lines for terminals."""

AT_ONCE = 16
"""Processes at the same time; whoever comes later waits."""

LAST_WORDS_WITHIN = 2.0
"""Seconds to read what is left of stderr once all of its tree is dead."""

LADDER = StopLadder(stdin=0.0, term=1.0, kill=2.0)
"""At SIGTERM Git takes its lock files away."""


@dataclass(frozen=True, slots=True)
class Output:
    """What came of a command.

    Attributes:
      code: None where a signal ended it.
      truncated: whether it had more to say, and was ended.
      stderr: its last lines, without secrets. Where it failed without any, those of its output: `git commit` says there
        that there is nothing to commit.
    """

    code: int | None
    data: bytes
    truncated: bool
    stderr: tuple[str, ...]

    def checked(self, what: str) -> Output:
        """This, if the command did what it was to do.

        Raises:
          GitFailed: it did not.
        """
        if self.code != 0 and not self.truncated:
            raise GitFailed(what, self.code, self.stderr)
        return self


class Runner:
    """Runs Git.

    Args:
      environment: the daemon's.
      owner, run: of the cookie that every process carries.
    """

    def __init__(self, environment: Mapping[str, str], owner: str, run: str, reaper: Reaper | None) -> None:
        self._environment = git_environment(environment)
        self._owner = owner
        self._run = run
        self._reaper = reaper
        self._numbers = itertools.count(1)
        self._room = trio.CapacityLimiter(AT_ONCE)

    async def run(
        self,
        *words: str,
        cwd: str,
        settings: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        limit: int = LONGEST_OUTPUT,
        tell: Callable[[str], None] | None = None,
    ) -> Output:
        """Run one command to its end. The caller brings the deadline.

        Args:
          words: the command and its arguments.
          settings: of Git, each as `name=value`.
          env: beside the usual environment.
          limit: bytes of its output; with more, it is ended.
          tell: takes each line of stderr as it comes.

        Raises:
          GitNotInstalled: there is no Git.
          GitFailed: it cannot be started.
        """
        environment = {**self._environment, **(env or {})}
        program = shutil.which("git", path=environment.get("PATH", ""))
        if program is None:
            raise GitNotInstalled
        options = [word for setting in settings for word in ("-c", setting)]
        heard = _Heard(Redactor(secrets_in(environment)), tell)
        async with self._room:
            try:
                async with (
                    open_process(
                        [program, "--no-pager", *options, *words],
                        cookie=Cookie(self._owner, self._run, f"git:{next(self._numbers)}"),
                        env=environment,
                        cwd=cwd,
                        ladder=LADDER,
                        reaper=self._reaper,
                    ) as child,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_feed, child.stdin, stdin)
                    nursery.start_soon(heard.listen, child.stderr)
                    data, truncated = await _read(child.stdout, limit)
                    if not truncated:
                        await child.wait()
                    # What it left behind would hold stderr open.
                    status = await child.stop()
                    with trio.move_on_after(LAST_WORDS_WITHIN):
                        await heard.all.wait()
                    nursery.cancel_scope.cancel()
                if status.code != 0 and not truncated and not heard.lines:
                    heard.read(data)
            except SpawnFailed as error:
                raise GitFailed("git cannot be started", None, [str(error)]) from None
        return Output(status.code, data, truncated, tuple(heard.lines))


@contextmanager
def within(seconds: float, what: str) -> Generator[None]:
    """A deadline for all commands in the block. Raises `GitTimeout`."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise GitTimeout(what, seconds)


async def _feed(stream: SendStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # it does not want it
    await stream.aclose()


async def _read(stream: ReceiveStream, limit: int) -> tuple[bytes, bool]:
    data = bytearray()
    while piece := await stream.receive_some(READ_SIZE):
        data += piece
        if len(data) > limit:
            return bytes(data[:limit]), True
    return bytes(data), False


class _Heard:
    """What is said on stderr.

    Attributes:
      lines: the last ones, without progress.
      all: set at its end.
    """

    def __init__(self, redactor: Redactor, tell: Callable[[str], None] | None) -> None:
        self.lines: deque[str] = deque(maxlen=LINES)
        self.all = trio.Event()
        self._redactor = redactor
        self._tell = tell

    async def listen(self, stream: ReceiveStream) -> None:
        rest = b""
        while piece := await stream.receive_some(READ_SIZE):
            *ended, rest = LINE_END.split(rest + piece)
            rest = rest[:LONGEST_LINE]
            for line, end in zip(ended[::2], ended[1::2], strict=True):
                self._take(line, passing=end == b"\r")
        self._take(rest, passing=False)
        self.all.set()

    def read(self, data: bytes) -> None:
        """Take the last lines of something else."""
        for line in data.rstrip().rsplit(b"\n", LINES)[-LINES:]:
            if text := self._cleaned(line[:LONGEST_LINE]):
                self.lines.append(text)

    def _take(self, line: bytes, *, passing: bool) -> None:
        text = self._cleaned(line)
        if not text:
            return
        if not passing:
            self.lines.append(text)
        if self._tell is not None:
            self._tell(text)

    def _cleaned(self, line: bytes) -> str:
        text = line.replace(CLEAR_LINE, b"").decode(errors="replace").strip()
        return self._redactor.redact(text)[:LINE_LENGTH]
