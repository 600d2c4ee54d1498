"""Bearers: the live processes whose environment carries a cookie, found in /proc and killed.

A process can leave its group (`setsid`), its parent (a double fork) and its name (`exec`), but the environment it was
started with stays readable in /proc/PID/environ. So whatever a child started can be found by the cookie the child was
given. What escapes: a process that wiped its environment, or overwrote that memory with a title of its own.

Two moments hide a process. In the middle of an exec the kernel shows an empty environment, for milliseconds where the
machine is busy, and `subprocess` returns within that time: such a process is waited for. And one that forks and ends
between the listing of /proc and the reading of its environment hides its child: so nothing counts as gone before two
listings in a row found nothing.

This file imports the standard library only, and little of it: the sentinel runs it as a program, and every module
would cost start time and memory (`typing` alone 6 ms, `dataclasses` 20 ms). For the same reason it knows a cookie as
text only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COOKIE_VARIABLE", "bearers", "kill_bearers", "stand_guard"]

COOKIE_VARIABLE = "SANDBOX_AGENT_COOKIE"

# One more than the one that can miss a process; see above.
QUIET_LISTINGS = 2

# Pause where there is nothing to wait on: no pidfds (gVisor, old kernels, interpreters built on old headers), or
# no file descriptor left to list with. A killed process needs about a millisecond to go.
PAUSE = 0.005

# How long a process may take for the second half of an exec; longer only where its file is on a disk that hangs.
EXEC_SECONDS = 0.5
EXEC_PAUSE = 0.0005

# How long to wait for a killed process before looking again at all.
RELIST = 0.05

# How long the sentinel goes after what the daemon left. Kills take milliseconds; the rest is for an overloaded machine.
GUARD_SECONDS = 10.0

_MARK = b"\0" + COOKIE_VARIABLE.encode() + b"="

# More than nearly every environment has, so that one read does.
_READ_SIZE = 32 * 1024

_HAS_PIDFD = hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


def bearers(matches: Callable[[str], bool]) -> list[int]:
    """List the live processes whose cookie matches, this process left out.

    Zombies have no environment any more and are not listed; neither are processes this user may not look into.

    Args:
      matches: decides on the text of a cookie.

    Raises:
      OSError: /proc cannot be listed or read, for want of file descriptors for example.
    """
    own = os.getpid()
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        if pid != own and _carries(pid, matches):
            found.append(pid)
    return found


def kill_bearers(matches: Callable[[str], bool], *, seconds: float) -> int:
    """SIGKILL every process whose cookie matches, again and again until none is left.

    Processes that may not be signalled (another user's) are left alone.

    Args:
      matches: decides on the text of a cookie.
      seconds: when to give up. One round of signals is sent in any case.

    Returns:
      How many processes were killed.
    """
    deadline = time.monotonic() + seconds
    killed: set[int] = set()
    refused: set[int] = set()
    quiet = 0
    while True:
        try:
            victims = [pid for pid in bearers(matches) if pid not in refused]
        except OSError:
            # What cannot be listed is not known to be gone.
            quiet = 0
            time.sleep(PAUSE)
        else:
            quiet = 0 if victims else quiet + 1
            if quiet == QUIET_LISTINGS:
                break
            if victims:
                _kill_and_wait(victims, matches, deadline, killed, refused)
        if time.monotonic() >= deadline:
            break
    return len(killed)


def stand_guard(prefix: str) -> None:
    """Wait for the end of standard input; if no goodbye came before it, kill all whose cookie starts with the prefix.

    The other end of standard input is held by the daemon alone, so its end is the daemon's end, whatever the cause.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not os.read(0, 1):
        kill_bearers(lambda text: text.startswith(prefix), seconds=GUARD_SECONDS)


def _carries(pid: int, matches: Callable[[str], bool]) -> bool:
    try:
        environment = _settled_environment(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    # The NUL in front lets the first variable be found by the same mark as every other.
    _, mark, rest = (b"\0" + environment).partition(_MARK)
    return bool(mark) and matches(rest.partition(b"\0")[0].decode("utf-8", "replace"))


def _settled_environment(pid: int) -> bytes:
    environment = _read_environment(pid)
    if environment or not _has_program(pid):
        return environment
    deadline = time.monotonic() + EXEC_SECONDS
    while _is_in_exec(pid) and time.monotonic() < deadline:
        time.sleep(EXEC_PAUSE)
    # The kernel first sets where the environment begins and then goes along it: for an instant it looks truly empty.
    environment = _read_environment(pid)
    if not environment:
        time.sleep(EXEC_PAUSE)
        environment = _read_environment(pid)
    return environment


def _has_program(pid: int) -> bool:
    try:
        os.readlink(f"/proc/{pid}/exe")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # Kernel threads and zombies have none.
        return False
    return True


def _is_in_exec(pid: int) -> bool:
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)
    # Field 51 of proc(5), env_end, counted from the third: not yet set. An environment that is truly empty has one.
    # A zombie has none either, but its state says so.
    return len(fields) > 48 and fields[48] == b"0" and fields[0] not in (b"Z", b"X")


def _read_environment(pid: int) -> bytes:
    descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _READ_SIZE)
        while len(content) >= _READ_SIZE and (more := os.read(descriptor, _READ_SIZE)):
            content += more
        return content
    finally:
        os.close(descriptor)


def _kill_and_wait(
    victims: list[int], matches: Callable[[str], bool], deadline: float, killed: set[int], refused: set[int]
) -> None:
    dying = select.poll()
    handles: set[int] = set()
    waiting = 0
    try:
        for pid in victims:
            handle = _open_handle(pid)
            if handle is not None:
                handles.add(handle)
            # The pid may have been given to another process since the listing. From here on the handle pins it, so
            # the second look decides; without a handle the window is as small as it can be.
            if not _still_carries(pid, matches):
                continue
            try:
                if handle is None:
                    os.kill(pid, signal.SIGKILL)
                else:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                refused.add(pid)
            else:
                killed.add(pid)
                if handle is not None:
                    dying.register(handle, select.POLLIN)
                    waiting += 1
        # One that ends is enough to go on, the next listing shows the rest; and one that cannot end (a hung disk) must
        # not keep us from its relatives.
        remaining = max(0.0, deadline - time.monotonic())
        if waiting:
            dying.poll(min(RELIST, remaining) * 1000)
        else:
            time.sleep(min(PAUSE, remaining))
    finally:
        for handle in handles:
            os.close(handle)


def _still_carries(pid: int, matches: Callable[[str], bool]) -> bool:
    with contextlib.suppress(OSError):
        return _carries(pid, matches)
    return False


def _open_handle(pid: int) -> int | None:
    if _HAS_PIDFD:
        # Not only "no such process": sandboxes forbid the call, and descriptors run out.
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


if __name__ == "__main__":
    stand_guard(sys.argv[1])
