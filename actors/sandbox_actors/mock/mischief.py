"""Mischief: what real agents have been seen to do to the program that runs them, one function a command."""

from __future__ import annotations

import os
import signal
import threading

from .script import Misuse
from .updates import stream_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from .script import Words
    from .turn import Turn

GARBAGE = (
    b"Warning: this line is not JSON\n",
    b'{"jsonrpc":"2.0","method":"session/upd\n',
    b"\xff\xfe\x80 not UTF-8\n",
    b"\x1b[33mcoloured\x1b[0m text \x07\n",
)
# What an unnamed grandchild lives: longer than any test waits, short enough to leave nothing behind for good.
LIFETIME = 60.0
# A handler of this process runs in the main thread, so a signal to itself takes effect a moment later.
SIGNAL_DELAY = 0.2
# The intermediate shell leads a session of its own, tells the pid on 3 and leaves: what it started has lost its parent.
_ORPHAN = 'sleep "$1" 3>&- & echo $! >&3'


class Stubbornness:
    """Whether SIGTERM and the end of input still end this process."""

    def __init__(self) -> None:
        self.on = False

    def install(self) -> None:
        """Python lets only the main thread set handlers, so it is set at the start and a flag decides."""
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if not self.on:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


stubbornness = Stubbornness()


def ignore_sigterm(turn: Turn, words: Words) -> None:
    stubbornness.on = True
    turn.say("SIGTERM and the end of input are ignored from now on")


def crash(turn: Turn, words: Words) -> None:
    code, updates = words.whole(1), words.whole(0)
    stream_lines(turn, updates)
    os._exit(code & 0xFF)


def kill(turn: Turn, words: Words) -> None:
    name = words.word().upper()
    try:
        number = signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise Misuse(f"no signal {name!r}") from None
    os.kill(os.getpid(), number)
    turn.sleep(SIGNAL_DELAY)


def deaf(turn: Turn, words: Words) -> None:
    turn.say("deaf from now on")
    threading.Event().wait()


def garbage(turn: Turn, words: Words) -> None:
    for number in range(words.whole(len(GARBAGE))):
        turn.check()
        turn.wire.write(GARBAGE[number % len(GARBAGE)])


def stderr(turn: Turn, words: Words) -> None:
    times = words.last_whole(1)
    line = f"{words.rest('')}\n".encode(errors="replace")
    for _ in range(times):
        turn.check()
        os.write(2, line)


def grandchild(turn: Turn, words: Words) -> None:
    """In the same process group, and with the agent's own pipes, as an adapter's native process has them."""
    seconds = words.number(LIFETIME)
    child = os.posix_spawnp("sleep", ["sleep", str(seconds)], os.environ, setsigdef=[signal.SIGPIPE])
    threading.Thread(target=os.waitpid, args=(child, 0), daemon=True).start()
    turn.say(f"grandchild pid {child}")


def orphan(turn: Turn, words: Words) -> None:
    """Out of the group, out of the session, without its parent; with `pipes` it keeps stdout and stderr."""
    seconds, stdio = words.number(LIFETIME), words.word("")
    reading, writing = os.pipe()
    actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_DUP2, writing, 3)]
    if stdio != "pipes":
        actions[:0] = [(os.POSIX_SPAWN_OPEN, file, os.devnull, os.O_RDWR, 0) for file in (0, 1, 2)]
    shell = os.posix_spawnp(
        "sh",
        ["sh", "-c", _ORPHAN, "sh", str(seconds)],
        os.environ,
        file_actions=actions,
        setsid=True,
        setsigdef=[signal.SIGPIPE],
    )
    os.close(writing)
    with open(reading, "rb") as answer:
        pid = int(answer.read())
    os.waitpid(shell, 0)
    turn.say(f"orphan pid {pid}")
