"""The daemon of one address that runs in the background, as its files tell of it.

    DATA/daemon/daemon-<host>-<port>.pid       its process
                                    .version   the build that was started
                                    .log       what it has said, over all its lives; .log.1: what it said before that
                                    .lock      held while somebody starts or stops it

A pid alone proves nothing: after a reboot it is somebody else's. The process must also have been started with the
command line by which this daemon would be started.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .health import look, url_of
from .options import Failure, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

__all__ = ["Background"]

START_WITHIN = 30.0
"""Seconds until a new daemon must answer."""

STOP_MARGIN = 4.0
"""Seconds beyond the server's own grace until it is killed."""

KILL_WITHIN = 3.0
"""Seconds from SIGKILL until the kernel has taken the process away."""

POLL_EVERY = 0.02
"""Seconds between two looks at what tells us nothing by itself."""

LARGEST_LOG = 10 << 20
"""Bytes of a log at a daemon's start; a larger one is put aside, in the place of the one before."""

LINES_SHOWN = 15
"""Of the log of a daemon that did not start."""


class Background:
    """See the module.

    Args:
      host, port: where it listens.
    """

    def __init__(self, data_dir: Path, host: str, port: int) -> None:
        self.url = url_of(host, port)
        self._directory = data_dir / "daemon"
        self._stem = f"daemon-{re.sub('[^A-Za-z0-9]', '-', host)}-{port}"
        self._arguments = ["-m", "sandbox_agent", "server"]
        self._arguments += ["--host", host, "--port", str(port), "--data-dir", str(data_dir)]
        self.log = self._file("log")

    def _file(self, suffix: str) -> Path:
        return self._directory / f"{self._stem}.{suffix}"

    @property
    def pid(self) -> int | None:
        """Its process, or None where it does not run."""
        try:
            pid = int(self._file("pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_its_process(pid) else None

    @property
    def build(self) -> str | None:
        """The build that runs, as far as we know."""
        with suppress(OSError, UnicodeDecodeError):
            return self._file("version").read_text().strip() or None
        return None

    @contextmanager
    def locked(self) -> Generator[None]:
        """Nobody else starts or stops this daemon meanwhile; waits for whoever does. Stale files are removed.

        Raises:
          Failure: the directory cannot be used.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._file("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failure(f"cannot use the directory {self._directory}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.pid is None:
                self._forget()
            yield
        finally:
            os.close(lock)

    def start(self, token: str | None, options: Sequence[str], build: str, told: Callable[[str], None]) -> int:
        """Start it, and wait until it answers; gives its pid. The caller holds the lock, and it does not run.

        Args:
          options: further ones of the server.
          told: takes what there is to say meanwhile.

        Raises:
          Failure: it ended, or does not answer in time; then it does not run.
        """
        try:
            process, log_start = self._launch(token, options, build)
        except OSError as error:
            raise Failure(f"cannot start the daemon: {error.strerror}: {error.filename}") from None
        try:
            self._write("pid", str(process.pid))
            deadline = time.monotonic() + START_WITHIN
            while True:
                if (code := process.poll()) is not None:
                    raise Failure(self._why(log_start, f"the daemon ended with code {code}", told))
                if look(self.url, token) == "healthy":
                    return process.pid
                if time.monotonic() > deadline:
                    why = f"the daemon does not answer at {self.url} within {START_WITHIN:g} seconds"
                    raise Failure(self._why(log_start, why, told))
                time.sleep(POLL_EVERY)
        except BaseException:  # ^C as well: nothing half-started stays
            for end in (process.terminate, process.kill):
                end()
                # Never without a limit: where ^C came within `poll`, Popen's own lock may be held for good.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_MARGIN)
                    break
            self._forget()
            raise

    def stop(self, pid: int, grace: float) -> None:
        """End it, with all that it has started. The caller holds the lock.

        Args:
          grace: seconds that the server gives itself.

        Raises:
          Failure: it may not be signalled, or stays in spite of SIGKILL.
        """
        try:
            for number, within in ((signal.SIGTERM, grace + STOP_MARGIN), (signal.SIGKILL, KILL_WITHIN)):
                # A daemon that is killed cannot end its agents: its sentinel does.
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                deadline = time.monotonic() + within
                while self._is_its_process(pid) and time.monotonic() < deadline:
                    time.sleep(POLL_EVERY)
                if not self._is_its_process(pid):
                    self._forget()
                    return
        except PermissionError:
            raise Failure(f"the daemon (PID {pid}) belongs to another user") from None
        raise Failure(f"the daemon (PID {pid}) does not end, in spite of SIGKILL")

    def _launch(self, token: str | None, options: Sequence[str], build: str) -> tuple[subprocess.Popen[bytes], int]:
        """Start the process; gives it, and where its part of the log begins."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LARGEST_LOG:
                self.log.replace(self._file("log.1"))
        # By the environment: command lines are public.
        environment = {name: value for name, value in os.environ.items() if name != "SANDBOX_AGENT_TOKEN_FILE"}
        if token is not None:
            environment["SANDBOX_AGENT_TOKEN"] = token
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            log_start = os.fstat(log).st_size
            self._write("version", build)
            process = subprocess.Popen(
                # -P: whatever lies in the current directory is not imported.
                [sys.executable, "-P", *self._arguments, *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it stays when the terminal goes
            )
        finally:
            os.close(log)
        return process, log_start

    def _why(self, log_start: int, sentence: str, told: Callable[[str], None]) -> str:
        """Why it did not start: in its own words where it said something to people, else with the end of its log."""
        with self.log.open("rb") as log:
            log.seek(log_start)
            lines = log.read(LARGEST_LOG).decode(errors="replace").splitlines()
        for line in reversed(lines):
            if line.startswith("sandbox-agent: "):
                return line.removeprefix("sandbox-agent: ")
        for line in lines[-LINES_SHOWN:]:
            told(f"  {plain(line)}")
        return f"{sentence}; its log: {self.log}"

    def _is_its_process(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        wanted = [os.fsencode(argument) for argument in self._arguments]
        # A zombie has no command line any more, and it does not run.
        return any(arguments[at : at + len(wanted)] == wanted for at in range(1, 4))

    def _write(self, suffix: str, text: str) -> None:
        path = self._file(suffix)
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_text(f"{text}\n")
            new.replace(path)
        except OSError as error:
            raise Failure(f"cannot write {path}: {error.strerror}") from None

    def _forget(self) -> None:
        for suffix in ("pid", "version"):
            self._file(suffix).unlink(missing_ok=True)
