"""The sentinel: a guardian process that ends what a killed daemon leaves behind.

A daemon that is killed with SIGKILL runs no cleanup, and perhaps is never started again. The sentinel holds the read
end of a pipe whose only other end is the daemon's. End of file without a goodbye means that the daemon is gone: the
sentinel kills all that carry the cookie of this owner and run, and ends. It carries no cookie itself, lives in its own
session and ignores the signals that end a terminal's processes. If it is killed, the daemon goes on; the next start of
a daemon sweeps as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from . import bearers
from .process import spawn
from .sweep import COOKIE_VARIABLE, Cookie

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .reaper import Reaper

__all__ = ["Sentinel", "open_sentinel"]

# It ends within a millisecond of the goodbye; this is for an overloaded machine, and then it is killed.
_GOODBYE_SECONDS = 1.0


class Sentinel:
    """The guardian of this run."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still stands guard. It is not restarted."""
        return self._process.poll() is None

    async def dismiss(self, *, goodbye: bool) -> None:
        """Let it go and wait for its end, bounded.

        Args:
          goodbye: False lets it sweep first, as if the daemon had died.
        """
        assert self._process.stdin is not None
        try:
            if goodbye:
                await self._process.stdin.send_all(b"\n")
        except trio.BrokenResourceError:
            # It died before us.
            pass
        finally:
            await self._process.stdin.aclose()
        with trio.move_on_after(_GOODBYE_SECONDS if goodbye else bearers.GUARD_SECONDS):
            await self._process.wait()
        if self._process.poll() is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def open_sentinel(owner: str, run: str, *, reaper: Reaper | None = None) -> AsyncGenerator[Sentinel, None]:
    """Post a sentinel for this run.

    Enter it before the first child is started and leave it after the last one is stopped.

    Args:
      owner: the owner in the cookies it goes after.
      run: the run in the cookies it goes after.
      reaper: the reaper of this process, if there is one.

    Error handling: when the context is left by an error (or cancelled) no goodbye is said, and the sentinel
    sweeps once more; that takes milliseconds where nothing was left.

    Raises:
      SpawnFailed: Python could not be started a second time.
    """
    program = Path(bearers.__file__)
    process = await spawn(
        # Isolated and without site: nothing of the environment, of site-packages or of this package is imported.
        [sys.executable, "-I", "-S", str(program), Cookie(owner, run, "").prefix],
        env={name: value for name, value in os.environ.items() if name != COOKIE_VARIABLE},
        # So that it keeps no directory from being removed or unmounted.
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        reaper=reaper,
    )
    sentinel = Sentinel(process)
    goodbye = False
    try:
        yield sentinel
        goodbye = True
    finally:
        with trio.CancelScope(shield=True):
            await sentinel.dismiss(goodbye=goodbye)
