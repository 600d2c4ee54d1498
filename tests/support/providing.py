"""A provider whose sandboxes are real daemons on this machine."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio.to_thread

from sandbox_agent.errors import SandboxDestroyed
from sandbox_agent.providers.provider import Endpoint, Provider

from .daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["DaemonProvider"]


GONE_WITHIN = 5.0
"""Seconds: the sentinel of a killed daemon is still about its work."""


class _Sandbox:
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        daemon = self.daemon
        daemon.home.mkdir(parents=True, exist_ok=True)
        with daemon.log.open("ab") as log:
            self.process = subprocess.Popen(
                daemon.command_line,
                env=daemon.variables,
                cwd=daemon.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self, *, kill: bool = False) -> None:
        if self.process is not None:
            if self.runs:
                self.process.kill() if kill else self.process.terminate()
            self.process.wait(timeout=20)


class DaemonProvider(Provider):
    """See the module. To be made by `opened`, which leaves nothing behind.

    Attributes:
      asked: what was asked of it, in order.
      default_cwd: where sessions work.
    """

    name = "daemons"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.default_cwd = str(home)
        self.asked: list[str] = []
        self._sandboxes: dict[str, _Sandbox] = {}
        self._frozen: set[str] = set()

    @classmethod
    @contextmanager
    def opened(cls, home: Path) -> Generator[DaemonProvider]:
        """A provider; at the end of the block its daemons are ended, and nothing of theirs may be left."""
        provider = cls(home)
        try:
            yield provider
        finally:
            for sandbox in provider._sandboxes.values():
                sandbox.end()
                deadline = time.monotonic() + GONE_WITHIN
                while sandbox.daemon.processes() and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert sandbox.daemon.processes() == []

    def crash(self, sandbox_id: str) -> None:
        """SIGKILL to the server alone."""
        self._sandboxes[sandbox_id].end(kill=True)

    def freeze(self, sandbox_id: str) -> None:
        """The server accepts connections and answers none, as on a machine that swaps itself to death."""
        process = self._sandboxes[sandbox_id].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        self._frozen.add(sandbox_id)

    def runs(self, sandbox_id: str) -> bool:
        return self._sandboxes[sandbox_id].runs

    def daemon(self, sandbox_id: str) -> Daemon:
        return self._sandboxes[sandbox_id].daemon

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is destroyed by somebody else."""
        self._sandboxes.pop(sandbox_id).end(kill=True)

    async def create(self, token: str) -> str:
        self.asked.append("create")
        id = f"d{len(self._sandboxes) + 1}"
        daemon = Daemon(self.home / id, ())
        daemon.token = token
        self._sandboxes[id] = _Sandbox(daemon)
        self._sandboxes[id].start()
        return id

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        return Endpoint(self._found(sandbox_id).daemon.url)

    async def ensure_server(self, sandbox_id: str) -> None:
        self.asked.append("ensure_server")
        sandbox = self._found(sandbox_id)
        if sandbox_id in self._frozen:
            self._frozen.remove(sandbox_id)
            self.crash(sandbox_id)
        if not sandbox.runs:
            sandbox.start()

    async def destroy(self, sandbox_id: str) -> None:
        self.asked.append("destroy")
        if (sandbox := self._sandboxes.get(sandbox_id)) is not None:
            await anyio.to_thread.run_sync(sandbox.end)

    async def pause(self, sandbox_id: str) -> None:
        self.asked.append("pause")
        await anyio.to_thread.run_sync(self._found(sandbox_id).end)

    def _found(self, sandbox_id: str) -> _Sandbox:
        if sandbox_id not in self._sandboxes:
            raise SandboxDestroyed(f"there is no {sandbox_id}")
        return self._sandboxes[sandbox_id]
