"""An agent's place on the disk: generations, of which the launcher names one.

    <launchers>/<id>-acp                      the launcher, a shell script
    <launchers>/<id>/<generation>/            everything of one install, and `installed.json`
    <launchers>/<id>/.lock                    held by whoever installs

An install is built under a name that nobody has used, where it is to stay (a virtual environment cannot be moved). It
counts from the moment at which its launcher takes the place of the old one, by one rename: before, whatever happens,
the old one works; afterwards the new one does. That holds for a loss of power, too, since all of it is on the disk
before the rename. The generation before is kept, because an agent that runs may still load files of it; older ones and
broken ones are removed with the next install.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shlex
import shutil
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

__all__ = ["Installed", "Place", "locked", "to_disk"]

GENERATION = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}", re.ASCII)
MARK = re.compile(rf"^# sandbox-agent: generation ({GENERATION.pattern})$", re.MULTILINE | re.ASCII)
LAUNCHER_HEAD = 1024
"""Bytes of a launcher that are searched for the mark."""

LARGEST_MANIFEST = 16 << 20
"""Bytes: an agent's own greeting is the most of it."""

NOT_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
"""Errors that say nothing of the file: what it names must not be taken for a leftover."""

LAUNCHER = "launcher"
"""The name of a launcher that does not count yet, in its generation."""

TRY_EVERY = 0.1
"""Seconds between two tries to get a lock that another process holds: it tells nobody when it lets go."""


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """What an install has brought: its manifest.

    Attributes:
      agent: the id.
      version: of the agent itself; where that is not told apart from its adapter, the adapter's.
      process_version: of the distribution's main package, the adapter's.
      source: as in `Artifact`.
      packages: what npm and PyPI were asked for.
      program: the path of what the launcher runs.
      native: the path of the command line tool behind the adapter, where it was found.
      native_version: of its package, where that is known.
      relies_on: programs without which it does not run, an interpreter for one.
      generation: the directory.
      previous: the name of the generation before.
      installed_at_ms: in milliseconds of Unix time.
      greeting: the agent's answer to `initialize`.
    """

    agent: str
    version: str | None
    process_version: str | None
    source: Literal["registry", "fallback"]
    packages: list[str]
    program: str
    native: str | None
    native_version: str | None
    relies_on: list[str]
    generation: str
    previous: str | None
    installed_at_ms: int
    greeting: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Place:
    """Where one agent is installed. All of it blocks.

    Attributes:
      launchers: the directory of all launchers.
      id: of the agent.
    """

    launchers: Path
    id: str

    @property
    def launcher(self) -> Path:
        return self.launchers / f"{self.id}-acp"

    @property
    def home(self) -> Path:
        return self.launchers / self.id

    @property
    def is_users_own(self) -> bool:
        """Whether there is a launcher that no install has written."""
        return os.path.lexists(self.launcher) and self.current() is None

    def current(self) -> str | None:
        """The name of the generation that the launcher names.

        Raises:
          OSError: that cannot be told now.
        """
        try:
            head = _read(self.launcher, LAUNCHER_HEAD)
        except OSError as error:
            if error.errno in NOT_NOW:
                raise
            return None
        found = MARK.search(head.decode(errors="replace"))
        return None if found is None else found[1]

    def installed(self) -> Installed | None:
        """The manifest of what the launcher starts; None where that was not installed here, or is damaged."""
        try:
            name = self.current()
            if name is None or not os.access(self.launcher, os.X_OK):
                return None
            found = msgspec.json.decode(_read(self.home / name / "installed.json", LARGEST_MANIFEST), type=Installed)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return found if all(os.access(program, os.X_OK) for program in [found.program, *found.relies_on]) else None

    def begin(self) -> Path:
        """A new generation, empty. What broken installs left behind is removed first. Hold the lock."""
        current = self.current()
        installed = self.installed()
        self.tidy({current, installed.previous if installed is not None else None})
        generation = self.home / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        generation.mkdir(mode=0o700)
        return generation

    def tidy(self, keep: set[str | None]) -> None:
        """Remove all generations but these. Hold the lock."""
        for entry in self.home.iterdir():
            if GENERATION.fullmatch(entry.name) and entry.name not in keep:
                self.discard(entry)

    def discard(self, generation: Path) -> None:
        # Somebody may still be writing to it who survived a killed install: the next one removes the rest.
        shutil.rmtree(generation, ignore_errors=True)

    def write_launcher(
        self,
        generation: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        path: Sequence[Path],
        path_end: Sequence[Path],
    ) -> Path:
        """Write a launcher into its generation, from where `settle` takes it.

        Args:
          path: directories that the agent has before those on PATH.
          path_end: directories that it has after them.
        """
        exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        before, after = ([shlex.quote(str(folder)) for folder in folders] for folders in (path, path_end))
        if before or after:
            exports.append("export PATH=" + ":".join([*before, '"${PATH:-/usr/bin:/bin}"', *after]))
        text = [
            "#!/bin/sh",
            f"# sandbox-agent: generation {generation.name}",
            "# Written by an install; the next one replaces it. Without the line above it is your own, and stays.",
            *exports,
            f'exec {shlex.join(command)} "$@"',
        ]
        launcher = generation / LAUNCHER
        _write(launcher, "".join(f"{line}\n" for line in text).encode(), 0o755)
        return launcher

    def settle(self, installed: Installed) -> None:
        """Make a generation with its launcher the one that counts, and remove those before the last. Hold the lock."""
        generation = Path(installed.generation)
        _write(generation / "installed.json", msgspec.json.encode(installed), 0o600)
        to_disk(generation)
        (generation / LAUNCHER).replace(self.launcher)
        _sync(self.launchers)
        self.tidy({generation.name, installed.previous})


@asynccontextmanager
async def locked(file: Path, waiting: Callable[[], None]) -> AsyncGenerator[None]:
    """Hold a lock that ends with this process, for as long as the block runs.

    Args:
      waiting: called where another process holds it.
    """
    descriptor = await trio.to_thread.run_sync(_open_lock, file)
    try:
        told = False
        while not _try_lock(descriptor):
            if not told:
                told = True
                waiting()
            await trio.sleep(TRY_EVERY)
        yield
    finally:
        os.close(descriptor)


def _open_lock(file: Path) -> int:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(file, os.O_CREAT | os.O_RDWR, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def to_disk(directory: Path) -> None:
    """Have everything below a directory on the disk, and not only in memory.

    By its file system as a whole: an install has some ten thousand files, and one fsync for each takes minutes.

    Raises:
      OSError: it cannot be written after all; the disk is full, for one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = errno.ENOSYS
    if hasattr(libc, "syncfs"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            number = 0 if libc.syncfs(descriptor) == 0 else ctypes.get_errno()
        finally:
            os.close(descriptor)
    if number in (errno.ENOSYS, errno.EPERM):  # not Linux, or a sandbox that does not let us
        os.sync()
    elif number:
        raise OSError(number, os.strerror(number), str(directory))


def _read(file: Path, limit: int) -> bytes:
    """The first bytes of a file. One that is a pipe by now must not hold up whoever asks."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        return stream.read(limit) or b""


def _write(file: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(content)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
