"""An open file descriptor that tasks and threads share."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

__all__ = ["Descriptor"]


class Descriptor:
    """Closed by whoever has it, or else when nobody holds it any more; but never while a thread works with it.

    A thread on a disk that hangs outlives the request that it works for. Were the request to close the descriptor, its
    number could be another file's by the time the thread goes on.
    """

    __slots__ = ("_closed", "_lock", "_users", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._closed = False
        self._users = 0
        self._lock = Lock()

    @property
    def path(self) -> str:
        """A path that leads to just this file, whatever is renamed meanwhile, in this process."""
        return f"/proc/self/fd/{self.number}"

    @contextmanager
    def in_use(self) -> Generator[int]:
        """The number, for work in a thread that others may not wait for.

        Raises:
          OSError: it is closed.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
        try:
            yield self.number
        finally:
            with self._lock:
                self._users -= 1
                if self._closed and not self._users:
                    os.close(self.number)

    def close(self) -> None:
        """Close it now, or as soon as the last thread is done with it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if not self._users:
                    os.close(self.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
