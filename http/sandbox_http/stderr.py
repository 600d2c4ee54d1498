"""Stderr, written to by a thread: logging neither blocks nor fails.

Whoever reads our stderr may stop reading, or go, and its disk may be full: then lines are dropped, and the daemon goes
on. It is a daemon thread, and it writes past Python's `sys.stderr`, because the end of the program must not wait for
such a reader either: the interpreter flushes that buffer last, waits for who holds its lock, and fails where it fails.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from contextlib import suppress

__all__ = ["Stderr"]

STDERR = 2
"""Its descriptor."""

LINES_WAITING = 1000
"""Lines that may wait for whoever reads our stderr; the rest is dropped."""

LAST_LINES_WITHIN = 1.0
"""Seconds for the last lines at the end of the program."""


class Stderr:
    """What structlog writes to. The thread starts with the first line."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(LINES_WAITING)
        self._writer: threading.Thread | None = None

    def write(self, text: str) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="log", daemon=True)
            self._writer.start()
            atexit.register(self.finish)
        with suppress(queue.Full):
            self._lines.put_nowait(text)

    def flush(self) -> None:
        """The thread flushes."""

    def finish(self) -> None:
        """Wait for the last lines, not for long."""
        deadline = time.monotonic() + LAST_LINES_WITHIN
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self._lines.all_tasks_done.wait(left)

    def _write(self) -> None:
        while True:
            text = self._lines.get()
            data = text.encode(errors="backslashreplace")
            with suppress(OSError):
                while data:
                    data = data[os.write(STDERR, data) :]
            self._lines.task_done()
