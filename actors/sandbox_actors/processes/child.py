"""One run of a command: a tree of processes with pipes or a terminal, which never outlives its context.

Its first process leads a session of its own and carries a cookie, as every child of the daemon. Whatever it starts
belongs to the tree, also what leaves its group; when the first process has ended, the rest is ended with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from sandbox_supervisor import COOKIE_VARIABLE, ExitStatus, SpawnFailed, pids, spawn, sweep_in_thread

from . import launcher
from .ends import open_ends
from .input import Input
from .limits import Limits
from .terminal import Size, foreground

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sandbox_supervisor import Cookie, Reaper

    from .cgroups import Cgroups, Group
    from .descriptor import Descriptor
    from .ends import Ends
    from .user import User

__all__ = ["Child", "Launch", "open_child"]

KILLED_WITHIN = 2.0
"""Seconds for the kernel to end what got SIGKILL; longer only where a disk hangs."""

_HELPERS = trio.CapacityLimiter(4)
"""Threads that look at processes and control groups: they wait for the kernel, and for nobody's files."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started.

    Attributes:
      env: its whole environment, but for the cookie.
      tty: its terminal; None for pipes.
      stdin: whether it has an input of ours; otherwise its input is empty.
      merged: whether stderr goes where stdout goes.
      user: whom it runs as; None: as we do.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    tty: Size | None = None
    stdin: bool = True
    merged: bool = False
    limits: Limits = field(default_factory=Limits)
    user: User | None = None

    @property
    def plain(self) -> bool:
        """Whether there is nothing to do but to start it."""
        return self.tty is None and self.user is None and not self.limits.any


class Child:
    """A running tree. Made by `open_child`.

    Attributes:
      outputs: our ends of what it writes to, by the name of the stream.
      terminal: our end of its terminal; None where it has none.
      group: its control group; None where it has none.
    """

    def __init__(
        self, process: trio.Process, cookie: Cookie, reaper: Reaper | None, ends: Ends, group: Group | None
    ) -> None:
        self.pid = process.pid
        self.outputs = ends.outputs
        self.terminal = ends.terminal
        self.input = Input(ends.input, tty=ends.terminal is not None)
        self.group = group
        self._process = process
        self._cookie = cookie
        self._reaper = reaper
        self._ended = False

    @property
    def status(self) -> ExitStatus | None:
        """How the first process ended; None while it runs."""
        code = self._process.returncode
        if code is None:
            return None
        if self._reaper is not None:
            self._reaper.forget(self.pid)
        return ExitStatus(None, -code) if code < 0 else ExitStatus(code, None)

    async def wait(self) -> None:
        """Wait until the first process has ended."""
        await self._process.wait()

    def signal(self, number: int, *, job: bool = False) -> None:
        """Signal the group of the first process.

        Args:
          job: whether the terminal's foreground job is meant in its place, as by Ctrl-C.
        """
        if self.status is not None:
            return
        group = self.pid
        if job and self.terminal is not None:
            with contextlib.suppress(OSError):
                group = foreground(self.terminal.fileno()) or group
        # A job may just have ended; one of another user's processes alone (sudo) may not be signalled.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)

    async def signal_escaped(self, number: int) -> None:
        """Signal those of the tree that have left the group of the first process."""
        await trio.to_thread.run_sync(self._signal_escaped, number, limiter=_HELPERS)

    def _signal_escaped(self, number: int) -> None:
        with contextlib.ExitStack() as handles:
            found: dict[int, int] = {}
            for pid in pids(lambda cookie: cookie == self._cookie):
                with contextlib.suppress(OSError):
                    if os.getpgid(pid) != self.pid:
                        found[pid] = handle = os.pidfd_open(pid)
                        handles.callback(os.close, handle)
            # The handles pin the numbers: whoever carries the cookie now is who gets the signal.
            for pid in pids(lambda cookie: cookie == self._cookie) if found else ():
                if pid in found:
                    with contextlib.suppress(OSError):
                        signal.pidfd_send_signal(found[pid], number)

    async def end(self) -> ExitStatus:
        """SIGKILL whatever is left of the tree; when this returns, nothing is. Bounded, and not to be cancelled."""
        with trio.CancelScope(shield=True):
            if not self._ended:
                self._ended = True
                self.signal(signal.SIGKILL)
                if self.group is not None:
                    await trio.to_thread.run_sync(self.group.kill, limiter=_HELPERS)
                with trio.move_on_after(KILLED_WITHIN):
                    await self.wait()
                if self.status is None or self._reaper is None or self._reaper.may_have_orphans():
                    await sweep_in_thread(lambda cookie: cookie == self._cookie, seconds=KILLED_WITHIN)
        return self.status or ExitStatus(None, None)


@asynccontextmanager
async def open_child(
    launch: Launch, *, cookie: Cookie, reaper: Reaper | None, cgroups: Cgroups
) -> AsyncGenerator[Child]:
    """Start a command.

    Args:
      cookie: unique among the children alive.

    Resource handling: leaving the context ends the tree and closes our ends, on every path; shielded, and bounded.

    Raises:
      SpawnFailed: there is no such program or working directory, no permission, no room. Its cause says more.
    """
    async with _grouped(launch.limits, cookie, cgroups) as group:
        with open_ends(tty=launch.tty, stdin=launch.stdin, merged=launch.merged, report=not launch.plain) as ends:
            process = await _start(launch, cookie, reaper, ends, group)
            child = Child(process, cookie, reaper, ends, group)
            try:
                if ends.report is not None:
                    await _begun(ends.report, launch.argv[0])
                yield child
            finally:
                await child.end()


@asynccontextmanager
async def _grouped(limits: Limits, cookie: Cookie, cgroups: Cgroups) -> AsyncGenerator[Group | None]:
    group: Group | None = None
    # Not cancelled: a group that nobody knows of stays for ever.
    with trio.CancelScope(shield=True):
        if limits.any and cgroups.parents:
            name = f"sandbox-agent-{cookie.run}-{cookie.name}"
            group = await trio.to_thread.run_sync(cgroups.make, name, limits.settings(), limiter=_HELPERS)
    try:
        yield group
    finally:
        if group is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(group.remove, limiter=_HELPERS)


async def _start(
    launch: Launch, cookie: Cookie, reaper: Reaper | None, ends: Ends, group: Group | None
) -> trio.Process:
    try:
        return await spawn(
            launch.argv if ends.reported is None else (*_prelude(launch, ends.reported, group), *launch.argv),
            env={**launch.env, COOKIE_VARIABLE: str(cookie)},
            cwd=launch.cwd,
            stdin=ends.stdin,
            stdout=ends.stdout,
            stderr=ends.stderr,
            pass_fds=() if ends.reported is None else (ends.reported,),
            reaper=reaper,
        )
    finally:
        ends.given()


def _prelude(launch: Launch, report: int, group: Group | None) -> list[str]:
    argv = [sys.executable, "-I", "-S", str(Path(launcher.__file__)), f"report={report}"]
    if launch.tty is not None:
        argv.append("tty")
    if group is not None:
        argv += [f"cgroup={door}" for door in group.doors]
    argv += [f"rlimit={name}:{soft}:{hard}" for name, (soft, hard) in launch.limits.rlimits().items()]
    if launch.user is not None:
        argv.append(f"user={launch.user.uid}:{launch.user.gid}:{','.join(map(str, launch.user.groups))}")
    return [*argv, "--"]


async def _begun(report: Descriptor, program: str) -> None:
    """Wait until the launcher has become the program.

    Raises:
      SpawnFailed: it could not.
    """
    told: list[bytes] = []
    await report.pump(told.append)
    if not told:
        return
    text = b"".join(told).decode(errors="replace")
    if not text.isdigit():
        raise SpawnFailed(f"cannot start {program!r}: {text}")
    error = OSError(int(text), os.strerror(int(text)))
    raise SpawnFailed(f"cannot start {program!r}: {error.strerror}") from error
