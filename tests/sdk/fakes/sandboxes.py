"""A directory of this machine as a sandbox: commands are real processes, files are real files.

It is HOME of its processes, and all that they get of the test run. Whatever they start carries a mark in its
environment, by which it is found again, daemons included. Blocking, so that a fake may use any library, in any thread.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from support.processes import alive, processes_with

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FakeSandbox", "Finished"]

ENDED_WITHIN = 10.0
"""Seconds for killed processes to be gone, on a busy machine."""

POLL_EVERY = 0.01
"""Seconds between two looks at processes, most of which are not our children."""

COMMANDS = Path(sys.executable).parent
"""Where `sandbox-agent` is installed for this test run: the image has it."""

Finished: TypeAlias = "subprocess.CompletedProcess[bytes]"


class FakeSandbox:
    """A sandbox.

    Attributes:
      id: also the name of its directory.
      home: the directory.
      env: variables that its processes have beside HOME and PATH.
    """

    def __init__(self, root: Path, env: Mapping[str, str] | None = None, id: str | None = None) -> None:
        self.id = id or secrets.token_hex(8)
        self.home = root / self.id
        self.home.mkdir(parents=True)
        # A login shell takes its PATH from /etc/profile, whatever it is given.
        (self.home / ".profile").write_text(f'PATH="{COMMANDS}:$PATH"\n')
        self.mark = f"FAKE_SANDBOX={self.id}-{secrets.token_hex(8)}"
        self.env = dict(env or {})
        self._started: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._closed = False

    def path(self, name: str) -> Path:
        """Where a file is: relative names are below the home, and absolute ones have to be."""
        path = (self.home / name).resolve()
        if not path.is_relative_to(self.home.resolve()):
            raise PermissionError(f"outside of the sandbox: {name}")
        return path

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a process, in a session of its own. Its pipes are the caller's to close."""
        mark, value = self.mark.split("=")
        variables = {"HOME": str(self.home), "PATH": f"{COMMANDS}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        with self._lock:
            if self._closed:
                raise ProcessLookupError(f"the sandbox {self.id} is gone")
            process = subprocess.Popen(
                list(argv),
                env=variables | self.env | dict(env or {}) | {mark: value},
                cwd=self.path(cwd or "."),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            self._started.append(process)
        return process

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        within: float = 600.0,
    ) -> Finished:
        """Run a command to its end; `subprocess.TimeoutExpired` where that takes longer, and then it is killed."""
        process = self.spawn(argv, env, cwd)
        with process:
            try:
                output, errors = process.communicate(timeout=within)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, output, errors)

    def processes(self) -> list[int]:
        """All that is alive in it."""
        return processes_with(self.mark)

    def freeze(self) -> None:
        """Stop all its processes where they are, memory kept."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill all its processes; the files stay, and new processes may be started."""
        deadline = time.monotonic() + ENDED_WITHIN
        while left := self.processes():
            assert time.monotonic() < deadline, f"these do not end: {left}"
            self._signal(signal.SIGKILL)
            time.sleep(POLL_EVERY)
        with self._lock:
            started, self._started = self._started, []
        for process in started:
            process.wait(ENDED_WITHIN)

    def destroy(self) -> None:
        """Kill all its processes and delete its files, for good. Twice is no error."""
        with self._lock:
            self._closed = True
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            if alive(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
