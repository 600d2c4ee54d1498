# Written by scripts/make-sync from ../process.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.process`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .process_log import ProcessLog
from .terminals import Terminal

if TYPE_CHECKING:
    import signal as signals
    from contextlib import AbstractContextManager

    from ..process import Process as AsyncProcess
    from ..process_models import Exit, LogPage, ProcessInfo
    from ._line import Line


__all__ = ["Process"]


class Process:
    """A process that was started, as `Processes.start` and `Processes.get` give it.

    Methods raise `NotFound` once the server has forgotten it: after many others have exited, or since it was started
    anew. Then another process may have the number, and all but `write` make sure that it has not. Further `ApiError`s
    say what was wrong, and `ConnectionFailed` that it is not known what has happened.

    Attributes:
      info: as it was last told.
    """

    def __init__(self, actual: AsyncProcess, line: Line) -> None:
        self._actual = actual
        self._line = line

    def __repr__(self) -> str:
        return repr(self._actual)

    @property
    def info(self) -> ProcessInfo:
        return self._actual.info

    @property
    def id(self) -> str:
        """Its number, as `proc_1`: in this life of the server."""
        return self._actual.id

    def refresh(self) -> ProcessInfo:
        """Have `info` told anew."""
        return self._line.call(self._actual.refresh)

    def stop(self, *, wait: float = 2.0, kill_after: float | None = None) -> ProcessInfo:
        """SIGTERM to all that belongs to it; a shell at a terminal ignores that.

        Args:
          wait: seconds for its end. If it has not come by then, `info.status` still says `running`.
          kill_after: seconds after which it is killed; less than `wait`.
        """
        return self._line.call(self._actual.stop, wait=wait, kill_after=kill_after)

    def kill(self, *, wait: float = 2.0) -> ProcessInfo:
        """SIGKILL to all that belongs to it."""
        return self._line.call(self._actual.kill, wait=wait)

    def signal(self, signal: signals.Signals | str) -> ProcessInfo:
        """One signal to its group, or to the job in the foreground of its terminal. Not repeated after a break."""
        return self._line.call(self._actual.signal, signal)

    def write(self, data: bytes | str) -> None:
        """Give it input; waits while it does not read. Not repeated after a break.

        Raises:
          Overloaded: it does not read, for as long as requests are retried. What was passed on by then stays.
          Conflict: it has exited, or takes no input.
          StreamError: it has closed its input.
        """
        self._line.call(self._actual.write, data)

    def close_stdin(self) -> None:
        """Its input ends, behind what was written; at a terminal, as by Ctrl-D. Raises as `write`."""
        self._line.call(self._actual.close_stdin)

    def logs(self, *, stream: str | None = None, tail: int | None = None, since: int | None = None) -> LogPage:
        """Its output, as far as it is kept.

        Args:
          stream: `stdout`, `stderr` or `combined`, or `pty`; else all of it.
          tail: the last so many entries.
          since: those behind this number.
        """
        return self._line.call(self._actual.logs, stream=stream, tail=tail, since=since)

    def follow(
        self, *, stream: str | None = None, tail: int | None = None, since: int | None = None
    ) -> AbstractContextManager[ProcessLog]:
        """Its output, what there is and what comes, until it has exited. After a break it goes on where it was.

            with process.follow() as log:
                for entry in log: print(entry.data)
            print(log.exit)

        Args:
          stream, tail, since: as of `logs`.
        """
        return self._line.enter(self._actual.follow(stream=stream, tail=tail, since=since), ProcessLog)

    def wait(self) -> Exit:
        """Wait until it has exited, however long that takes."""
        return self._line.call(self._actual.wait)

    def terminal(self) -> AbstractContextManager[Terminal]:
        """View its terminal: first what is kept of the past, then what comes. See `Terminal`.

        After a break, enter it again: the terminal is told anew from the past, as to any other viewer.

        Raises:
          Conflict: it has none, or too many viewers.
        """
        return self._line.enter(self._actual.terminal(), Terminal)

    def resize(self, rows: int, cols: int) -> None:
        """Give its terminal another size."""
        self._line.call(self._actual.resize, rows, cols)

    def delete(self) -> None:
        """Have the server forget it. Not repeated after a break.

        Raises:
          Conflict: it still runs.
        """
        self._line.call(self._actual.delete)
