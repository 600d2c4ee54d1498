"""A PostgreSQL server of our own, on a Unix socket in a directory of its own: to be used, restarted, and stopped."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
import psycopg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = ["Postgres", "programs", "running_postgres"]

START_WITHIN = STOP_WITHIN = 60.0
"""Seconds: a small machine that others use too."""

LIFELINE = '"$@" & read -r how; kill -"${how:-QUIT}" $!; wait $!'
"""It is told how to end, or ends when the test run does, however that comes about."""

SETTINGS = {
    "fsync": "off",  # nobody cuts our power
    "shared_buffers": "16MB",
    "max_connections": "40",
    "listen_addresses": "",
    "autovacuum": "off",
}


def programs() -> Path | None:
    """Where the newest version is installed."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(found, key=lambda path: float(path.parent.name), default=None)


class Postgres:
    """A server, and its one database.

    Attributes:
      place: its directory, which it can be reached by.
    """

    def __init__(self, place: Path, bin: Path) -> None:
        self.place = place
        self._bin = bin
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"host={self.place} user=postgres dbname=postgres"

    def make(self) -> None:
        initdb = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust"]
        self._run([*initdb, "--no-sync", "--no-locale", "-E", "UTF8"])

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-k", str(self.place), *settings]
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_nobody(), "sh", "-c", LIFELINE, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.place,
            )
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                psycopg.connect(self.dsn).close()
            except psycopg.OperationalError:
                said = (self.place / "log").read_text()
                assert self._process.poll() is None, f"it ended:\n{said}"
                assert time.monotonic() < deadline, f"it does not answer:\n{said}"
                time.sleep(0.02)
            else:
                return

    def stop(self, how: Literal["INT", "QUIT"] = "INT") -> None:
        """INT cuts whoever is connected; QUIT is a crash that is tidy about its processes."""
        assert self._process is not None
        self._process.communicate(how.encode() + b"\n", timeout=STOP_WITHIN)

    @asynccontextmanager
    async def away(self, how: Literal["INT", "QUIT"] = "INT") -> AsyncGenerator[None]:
        """It is stopped while the block runs, and there again for the next test, whatever happens in this one."""
        await anyio.to_thread.run_sync(self.stop, how)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.start)

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """As its administrator."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def cut(self) -> int:
        """Kill all connections but our own; gives how many there were."""
        return len(self.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"))

    @property
    def _data(self) -> Path:
        return self.place / "data"

    def _run(self, command: list[str]) -> None:
        done = subprocess.run([*_as_nobody(), *command], capture_output=True, cwd=self.place, check=False)
        assert done.returncode == 0, done.stderr.decode()


OTHERS = "backend_type = 'client backend' AND pid <> pg_backend_pid()"


def _as_nobody() -> list[str]:
    """It refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []


@contextmanager
def running_postgres() -> Generator[Postgres]:
    """A server, for as long as the block runs."""
    bin = programs()
    assert bin is not None
    place = Path(tempfile.mkdtemp(prefix="pg-"))  # the path of a socket is short, that of a test's directory is not
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(place, user.pw_uid, user.pw_gid)
    server = Postgres(place, bin)
    try:
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop("QUIT")
    finally:
        shutil.rmtree(place)
