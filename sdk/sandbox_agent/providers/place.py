"""The directory of a local sandbox, and the processes that work in it.

    DIRECTORY/<id>/         mode 0700
        token               of the server, mode 0600
        port                the server's, of its last start
        log                 what the server said, over all its lives
        lock                held while somebody starts or ends the server
        home/ data/ state/  of the server

What runs in a confined sandbox changes the last three alone, so that no file above can be a link of its making.

A process is known by its command line, which names the state directory: a pid proves nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ..errors import ProviderError, SandboxDestroyed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = ["LocalPlace"]

ID = re.compile(r"[0-9a-f]{16}")

ADDRESS = re.compile(rb"http://127\.0\.0\.1:([0-9]{1,5})\n")

LONGEST_ADDRESS = 64
"""Bytes of one, and more."""

LOCKED_WITHIN = 60.0
"""Seconds for somebody else to start or to end a server."""

LOOK_EVERY = 0.05
"""Seconds between two looks at what tells us nothing by itself."""

DELETED_WITHIN = 5.0
"""Seconds in which a killed server's agents are ended by its sentinel; until then they may go on to write."""

LINES_SHOWN = 8
"""Of the log of a server that did not start."""

LARGEST_LOG = 10 << 20
"""Bytes of a log at a server's start; a larger one begins anew."""


class LocalPlace:
    """See the module.

    Attributes:
      path: the directory.
    """

    def __init__(self, directory: Path, sandbox_id: str) -> None:
        self.id = sandbox_id
        self.path = directory / sandbox_id
        self.home, self.data, self.state = (self.path / name for name in ("home", "data", "state"))
        self.token_file, self.log = self.path / "token", self.path / "log"
        self.address_file = self.state / "address"

    @classmethod
    def make(cls, directory: Path, token: str) -> LocalPlace:
        """A new one. Raises `ProviderError`."""
        place = cls(directory, secrets.token_hex(8))
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            place.path.mkdir(mode=0o700)
            for below in (place.home, place.data, place.state):
                below.mkdir(mode=0o700)
            place._write("token", token)
        except OSError as error:
            shutil.rmtree(place.path, ignore_errors=True)
            raise ProviderError(f"cannot make a sandbox in {directory}: {error.strerror}") from None
        return place

    @property
    def exists(self) -> bool:
        """Whether there is such a sandbox."""
        return ID.fullmatch(self.id) is not None and self.token_file.exists()

    def check(self) -> None:
        """Raises `SandboxDestroyed` where there is no such sandbox."""
        if not self.exists:
            raise SandboxDestroyed(f"there is no sandbox {self.path}")

    @property
    def token(self) -> str:
        return self._read("token")

    @property
    def port(self) -> int:
        """Of the last start; 0: there was none."""
        return int(self._read("port") or 0)

    @port.setter
    def port(self, port: int) -> None:
        try:
            self._write("port", str(port))
        except OSError as error:
            raise ProviderError(f"cannot write into {self.path}: {error.strerror}") from None

    @property
    def address(self) -> int | None:
        """The port that the server says it listens on; None as long as it says nothing."""
        # The one file that is the sandbox's: no link is followed, no pipe waited for.
        with suppress(FileNotFoundError):
            file = os.open(self.address_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                said = ADDRESS.fullmatch(os.read(file, LONGEST_ADDRESS))
            finally:
                os.close(file)
            if said is not None:
                return int(said[1])
        return None

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text().strip()
        except FileNotFoundError:
            self.check()
            return ""

    def _write(self, name: str, text: str) -> None:
        new = self.path / f"{name}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{text}\n")
        new.replace(self.path / name)

    @asynccontextmanager
    async def locked(self) -> AsyncGenerator[None]:
        """Nobody else, in whatever process, starts or ends this sandbox's server meanwhile.

        Raises:
          SandboxDestroyed: there is no such sandbox.
          ProviderError: somebody holds it for too long.
        """
        self.check()
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise SandboxDestroyed(f"there is no sandbox {self.path}") from None
        try:
            with anyio.move_on_after(LOCKED_WITHIN) as waiting:
                while not _lock(lock):  # noqa: ASYNC110 (the kernel tells only who waits in a thread)
                    await anyio.sleep(LOOK_EVERY)
            if waiting.cancelled_caught:
                raise ProviderError(f"the sandbox {self.path} is held by somebody who starts or ends its server")
            self.check()  # who held it may have destroyed it
            yield
        finally:
            os.close(lock)

    def open_log(self) -> int:
        """A descriptor to write the log's next part to."""
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if os.fstat(log).st_size > LARGEST_LOG:
            os.ftruncate(log, 0)
        return log

    @property
    def log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def last_words(self, begin: int) -> str:
        """Why a server ended, from its part of the log: what it said to people, else the last lines."""
        with self.log.open("rb") as log:
            log.seek(begin)
            lines = log.read(LARGEST_LOG).decode(errors="replace").splitlines()
        said = [line.removeprefix("sandbox-agent: ") for line in lines if line.startswith("sandbox-agent: ")]
        return (said or ["; ".join(lines[-LINES_SHOWN:]) or "it said nothing"])[-1]

    def servers(self) -> list[int]:
        """The processes that run the server, bubblewrap around it included; ended ones have no command line."""
        return sorted(pid for pid in _processes() if self._names_us(pid))

    def signal(self, number: signal.Signals) -> None:
        """Send it to the server; SIGKILL to bubblewrap as well, which does not pass others on."""
        for pid in self.servers():
            with suppress(ProcessLookupError, PermissionError):
                process = os.pidfd_open(pid)
                try:
                    words = self._names_us(pid)  # asked again: from here on the pid is not somebody else's
                    if words and (number == signal.SIGKILL or not words[0].endswith(b"bwrap")):
                        signal.pidfd_send_signal(process, number)
                finally:
                    os.close(process)

    def _names_us(self, pid: int) -> list[bytes]:
        """The words of its command line, if those name our state directory; else none."""
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if (b"--state-dir", os.fsencode(self.state)) in pairwise(words):
                return words
        return []

    async def delete(self) -> None:
        """Remove all of it; nothing of it runs any more, or is about to end. Raises `ProviderError`."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(DELETED_WITHIN) as deleting:
            while not await anyio.to_thread.run_sync(self._deleted):  # noqa: ASYNC110 (nobody tells when agents ended)
                await anyio.sleep(LOOK_EVERY)
        if deleting.cancelled_caught:
            raise ProviderError(f"cannot delete all of the sandbox {self.path}")

    def _deleted(self) -> bool:
        # First what says that it is one: half of a sandbox is none.
        self.token_file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        if not self.path.exists():
            return True
        # Package caches are read-only, folders included. Links are not followed.
        for folder, _, _ in os.walk(self.path):
            with suppress(OSError):
                os.chmod(folder, 0o700)
        return False


def _processes() -> Generator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            yield int(entry.name)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
