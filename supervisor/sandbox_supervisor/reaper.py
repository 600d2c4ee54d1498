"""The reaper: orphans come home to the daemon, and it buries them without touching the children of others.

As a child subreaper the daemon becomes the parent of every orphaned descendant (as PID 1 it is that anyway), and each
one that ends stays a zombie until the daemon waits for it. Waiting for just any child would steal exit statuses:
`subprocess` then reports 0 for a child that failed. So:

1. Peek first (`WNOWAIT`): learn who has ended, and take nothing.
2. A child we own is collected by its own `trio.Process`, which so keeps the status. So it never hides others either.
3. While a spawn is in progress nothing is taken: the child may end before its pid is known here.
4. A zombie of the daemon's own session is no orphan: owned children start in sessions of their own, and no descendant
   of theirs can come back into ours. It belongs to somebody who spawned it without the reaper, and is left to them.
5. Everything else is an orphan.

The peek shows one zombie at a time. One that has to stay would hide all others, so then every child is looked at.

There is no task: SIGCHLD asks the run loop for a look, and so does the end of a spawn.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from types import FrameType

__all__ = ["Reaper", "open_reaper"]

# From linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

# At 5 µs each, so that a flood of orphans holds the loop for a millisecond at most.
_BATCH = 200


class Reaper:
    """Buries orphans. Whoever spawns a child in a session of its own must do so inside `spawning` and `adopt` it."""

    def __init__(self) -> None:
        self.reaped = 0
        """Orphans buried so far."""
        self._owned: dict[int, trio.Process] = {}
        self._spawns = 0
        self._token = trio.lowlevel.current_trio_token()

    @contextmanager
    def spawning(self) -> Generator[None, None, None]:
        """Hold reaping back: enter before a spawn, leave after `adopt`."""
        self._spawns += 1
        try:
            yield
        finally:
            self._spawns -= 1
            self._reap()

    def adopt(self, process: trio.Process) -> None:
        """Register a child as owned: its exit status is kept for its owner."""
        self._owned[process.pid] = process

    def forget(self, pid: int) -> None:
        """Drop a child whose exit status is known. Optional and idempotent: a look at the same pid does it as well."""
        self._owned.pop(pid, None)

    @property
    def receives_orphans(self) -> bool:
        """Whether orphans come to this process at all: some sandboxes refuse that, and then they go to PID 1."""
        return os.getpid() == 1 or _is_subreaper()

    def may_have_orphans(self) -> bool:
        """Whether an orphan may be alive, whosever it was; False is certain. A few reads, which can spare a sweep.

        Whatever is left of a tree whose first process has been waited for has somebody in it whose parent is gone,
        and who is therefore a child of ours that we do not own.
        """
        # The kernel may leave a child out when another one goes while it lists them, so it is asked twice.
        return not self.receives_orphans or self._has_strangers() or self._has_strangers()

    def _has_strangers(self) -> bool:
        try:
            return any(
                int(pid) not in self._owned
                for thread in os.listdir("/proc/self/task")
                for pid in Path(f"/proc/self/task/{thread}/children").read_text().split()
            )
        except OSError:
            # A thread has ended, and its children are another one's; or the kernel was built without that file.
            return True

    def look(self) -> None:
        """Ask for a look at the ended children, soon, in the run loop. May be called from a signal handler."""
        self._token.run_sync_soon(self._reap, idempotent=True)

    def _reap(self) -> None:
        for _ in range(_BATCH):
            if self._spawns:
                return
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if not self._bury(ended.si_pid):
                self._reap_behind()
                return
        self.look()

    def _reap_behind(self) -> None:
        for pid in _children():
            # A pid may be gone since; a peek at a child that still runs is None.
            with suppress(ChildProcessError):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    self._bury(pid)

    def _bury(self, pid: int) -> bool:
        """Take the zombie off the list of the kernel, or say that it has to stay."""
        owned = self._owned.pop(pid, None)
        if owned is not None:
            # If the status was known before, this entry was left over and the pid is an orphan's by now: the next
            # peek shows it again and finds no owner.
            if owned.poll() is not None:
                return True
            # Somebody is inside Popen.wait in a thread, and will collect it in an instant.
            self._owned[pid] = owned
            return False
        try:
            if os.getsid(pid) == os.getsid(0):
                return False
            os.waitpid(pid, os.WNOHANG)
        except (ChildProcessError, ProcessLookupError):
            # Its owner, unknown here, was quicker.
            return True
        self.reaped += 1
        return True


@asynccontextmanager
async def open_reaper() -> AsyncGenerator[Reaper, None]:
    """Make this process the parent of its orphaned descendants, and bury those that end.

    At most one at a time, in the main thread. Where the kernel refuses (some sandboxes do), orphans go to PID 1 as
    ever, and the reaper works for what it still gets.

    Resource handling: on leaving, the subreaper flag is what it was before, and so is what SIGCHLD does.
    """
    reaper = Reaper()

    def on_child(number: int, frame: FrameType | None) -> None:
        reaper.look()

    was_subreaper = _is_subreaper()
    _set_subreaper(True)
    before = signal.signal(signal.SIGCHLD, on_child)
    try:
        # Some may have ended before the handler was in place.
        reaper.look()
        yield reaper
    finally:
        if before in (None, signal.SIG_DFL, _ignore):  # None: a handler that Python did not install
            _default()
        else:
            signal.signal(signal.SIGCHLD, before)
        _set_subreaper(was_subreaper)


def _default() -> None:
    """Let SIGCHLD do nothing again, and let nobody complain.

    A signal may be on its way. If Python took its handler out, it would complain on stderr of one that finds none
    ("ignored due to race condition"). If it kept one, it would complain of one that comes at the end of the run, where
    Trio closes the socket it is written to before it says so. So a handler stays in Python, and goes in the kernel.
    """
    signal.signal(signal.SIGCHLD, _ignore)
    ctypes.CDLL(None).signal(signal.SIGCHLD, signal.SIG_DFL)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """For a signal that was on its way."""


def _children() -> list[int]:
    """The pids of all children; none where the kernel was built without that file (then they are found later)."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


def _is_subreaper() -> bool:
    flag = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return flag.value != 0


def _set_subreaper(on: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on), 0, 0, 0)
