"""A process tree as one thing: it starts as a whole, is stopped as a whole, and never outlives its context.

A child leads a session and a process group of its own, and carries a cookie in its environment. Most of its tree stays
in the group; what leaves it (`setsid`, double forks) still carries the cookie. It dies by one ladder:

    close stdin → wait → SIGTERM to the group → wait → SIGKILL to the group → sweep the cookie

The first rungs are for the direct child; once that is gone, what it left behind gets no more patience. A group is
signalled only while its leader is not yet collected: afterwards the kernel may give the number to somebody else, and
the sweep, which looks before each signal, takes over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .errors import SpawnFailed
from .sweep import COOKIE_VARIABLE, Cookie, sweep_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from trio.abc import ReceiveStream, SendStream

    from .reaper import Reaper

__all__ = ["ChildProcess", "ExitStatus", "StopLadder", "open_process", "spawn"]


@dataclass(frozen=True, slots=True)
class StopLadder:
    """How long a tree may stay on each rung, in seconds. The sum bounds a stop."""

    stdin: float = 0.5
    """From the end of its standard input to SIGTERM."""

    term: float = 1.0
    """From SIGTERM to SIGKILL."""

    kill: float = 2.0
    """From SIGKILL until the kernel has taken everything away, the sweep included."""


DEFAULT_LADDER = StopLadder()


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. Both are None only for one that the kernel did not let go of, in spite of SIGKILL."""

    code: int | None
    """What it passed to exit, or None when a signal ended it."""

    signal: int | None
    """The signal that ended it, or None."""


class ChildProcess:
    """A running child with its three pipes, and everything it starts. Made by `open_process`."""

    def __init__(
        self, process: trio.Process, argv: Sequence[str], cookie: Cookie, ladder: StopLadder, reaper: Reaper | None
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self.argv = tuple(argv)
        self.cookie = cookie
        self.stdin: SendStream = process.stdin
        self.stdout: ReceiveStream = process.stdout
        self.stderr: ReceiveStream = process.stderr
        self._process = process
        self._ladder = ladder
        self._reaper = reaper
        self._stopping = trio.Lock()
        self._stopped = False

    def __repr__(self) -> str:
        return f"<ChildProcess {self.cookie.name!r} pid={self.pid} {self.status or 'running'}>"

    @property
    def status(self) -> ExitStatus | None:
        """How the direct child ended, or None while it runs."""
        code = self._process.returncode
        if code is None:
            return None
        if self._reaper is not None:
            self._reaper.forget(self.pid)
        return ExitStatus(None, -code) if code < 0 else ExitStatus(code, None)

    async def wait(self) -> ExitStatus:
        """Wait until the direct child has ended. Any number of tasks may.

        The end of its stdout is another matter: it may come earlier, and later where a grandchild holds the pipe.
        """
        await self._process.wait()
        status = self.status
        assert status is not None
        return status

    async def stop(self, ladder: StopLadder | None = None) -> ExitStatus:
        """End the whole tree; when this returns, no process of it is left.

        Idempotent. Callers at the same time share the first one's ladder. Once begun it is not cancelled: that would
        leave half a tree; the ladder bounds it. A task that is writing to stdin gets `trio.ClosedResourceError`.

        Args:
          ladder: instead of the one given to `open_process`.
        """
        async with self._stopping:
            if not self._stopped:
                with trio.CancelScope(shield=True):
                    await self._descend(ladder or self._ladder)
                self._stopped = True
        return self.status or ExitStatus(None, None)

    def kill(self) -> None:
        """SIGKILL the group now, without waiting. Only `stop` takes care of those that left the group."""
        self._signal_group(signal.SIGKILL)

    async def _descend(self, ladder: StopLadder) -> None:
        await self.stdin.aclose()
        if self.status is None:
            with trio.move_on_after(ladder.stdin):
                await self.wait()
        if self.status is None:
            self._signal_group(signal.SIGTERM)
            with trio.move_on_after(ladder.term):
                await self.wait()
        deadline = trio.current_time() + ladder.kill
        if self.status is None:
            self._signal_group(signal.SIGKILL)
            with trio.CancelScope(deadline=deadline):
                await self.wait()
        await sweep_in_thread(lambda cookie: cookie == self.cookie, seconds=deadline - trio.current_time())

    def _signal_group(self, number: signal.Signals) -> None:
        # Not collected, so its pid and with it the number of its group are still its own.
        if self.status is None:
            # A group of nothing but another user's processes (sudo) may not be signalled; nothing else can be done.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


@asynccontextmanager
async def open_process(
    argv: Sequence[str],
    *,
    cookie: Cookie,
    env: Mapping[str, str],
    cwd: str | None = None,
    ladder: StopLadder = DEFAULT_LADDER,
    reaper: Reaper | None = None,
) -> AsyncGenerator[ChildProcess, None]:
    """Start a child in a session of its own, with three pipes.

    Args:
      argv: program and arguments; the program is looked up on the PATH of `env`.
      cookie: what its tree is known by. Must be unique among the children alive.
      env: its whole environment, to which the cookie is added. Nothing of ours is inherited.
      cwd: its working directory, ours if None.
      ladder: how it is stopped on leaving.
      reaper: the reaper of this process, if there is one.

    Resource handling: leaving the context stops the tree and closes the pipes, on every path, also where the child has
    ended by itself; this is shielded from cancellation and bounded by the ladder.

    Raises:
      SpawnFailed: there is no such program or working directory, no permission, a NUL byte, no room.
    """
    process = await spawn(argv, env={**env, COOKIE_VARIABLE: str(cookie)}, cwd=cwd, reaper=reaper)
    child = ChildProcess(process, argv, cookie, ladder, reaper)
    try:
        yield child
    finally:
        with trio.CancelScope(shield=True):
            await child.stop()
            for stream in (child.stdin, child.stdout, child.stderr):
                await stream.aclose()


async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    stdin: int = subprocess.PIPE,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
    reaper: Reaper | None = None,
) -> trio.Process:
    """Start a process in a session of its own, known to the reaper. The caller answers for its end.

    Args:
      stdin, stdout, stderr: as for `subprocess`.
      pass_fds: descriptors that it inherits beside those.

    Cancellation is safe here without a shield: trio gives up before the thread starts, or waits for it and returns
    the process; and nothing in between is a checkpoint.

    Raises:
      SpawnFailed: as `open_process`.
    """
    if not argv:
        raise SpawnFailed("cannot start a process: the command is empty")
    with reaper.spawning() if reaper is not None else contextlib.nullcontext():
        try:
            process = await trio.lowlevel.open_process(
                list(argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=dict(env),
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise SpawnFailed(_explain(argv[0], cwd, error)) from error
        if reaper is not None:
            reaper.adopt(process)
    return process


def _explain(program: str, cwd: str | None, error: Exception) -> str:
    # Only the program is named: arguments and environment may hold secrets.
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        # subprocess names the directory in the error when it was the directory.
        if cwd is not None and error.filename == cwd:
            return f"cannot start {program!r} in the working directory {cwd!r}: {reason}"
    else:
        reason = str(error)
    return f"cannot start {program!r}: {reason}"
