"""The daemon as its users run it: the installed command, its own process, to be stopped, killed and begun again."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import trio

from .processes import eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["Daemon", "free_port", "running"]

START_WITHIN = 20.0
"""Seconds: a cold interpreter on a small machine that others use too."""

STOP_WITHIN = 12.0
"""Seconds: the daemon promises 10."""

POLL_EVERY = 0.02
"""Seconds between two tries to reach a port that nobody tells us of."""


class Daemon:
    """A daemon with a home of its own. Everything it starts carries the home's path in its environment.

    Attributes:
      home: of its data, its state, its log and the mock agent's memory.
      options: of the command, beside address and directories.
      environment: beside what the test run itself has.
    """

    def __init__(self, home: Path, options: tuple[str, ...], environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.options = options
        self.environment = dict(environment or {})
        self.port = free_port()
        self.token = secrets.token_hex(16)
        self.log = home / "daemon.log"
        self._process: trio.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def state_dir(self) -> Path:
        return self.home / "state"

    @property
    def process(self) -> trio.Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """Its log, over all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def processes(self) -> list[int]:
        """Everything alive that belongs to it: itself, its sentinel, agents, whatever those have started."""
        return processes_with(f"MOCK_AGENT_HOME={self.home}/")

    @property
    def command_line(self) -> list[str]:
        command = [str(Path(sys.executable).with_name("sandbox-agent")), "server"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--data-dir", str(self.home / "data"), "--state-dir", str(self.state_dir)]
        return [*command, *self.options]

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of its process."""
        # The environment of the test run must neither configure the daemon nor look like a child of another one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_AGENT_")}
        environment |= {"SANDBOX_AGENT_TOKEN": self.token, "MOCK_AGENT_HOME": f"{self.home}/agent"}
        return environment | self.environment

    async def launch(self, *options: str) -> trio.Process:
        """Start the command, and give its process: it may be meant to fail. Later options win over earlier ones."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return await trio.lowlevel.open_process(
                [*self.command_line, *options],
                env=self.variables,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        self._process = process = await self.launch()
        async with httpx.AsyncClient(headers=self.headers, trust_env=False) as client:
            with trio.fail_after(START_WITHIN):
                while process.poll() is None:
                    with suppress(httpx.TransportError):
                        if (await client.get(f"{self.url}/v1/health")).is_success:
                            return
                    await trio.sleep(POLL_EVERY)
        raise AssertionError(f"the daemon ended with {process.returncode}:\n{self.said}")

    async def kill(self) -> None:
        """SIGKILL to it alone: whatever it has started is on its own."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> float:
        """SIGTERM; gives the seconds that it took to end, which must be with status 0."""
        start = time.monotonic()
        self.process.terminate()
        with trio.fail_after(STOP_WITHIN):
            code = await self.process.wait()
        assert code == 0, f"the daemon ended with {code}:\n{self.said[-4000:]}"
        return time.monotonic() - start


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(home: Path, *options: str, **environment: str) -> AsyncGenerator[Daemon]:
    """A daemon that answers, for as long as the block runs. Keywords are variables of its environment.

    At its end the daemon is stopped if it still runs, and nothing that it ever started may be left.
    """
    daemon = Daemon(home, options, environment)
    try:
        await daemon.start()
        yield daemon
        if daemon.process.poll() is None:
            await daemon.stop()
        with trio.move_on_after(3):  # the sentinel of a killed daemon is still about its work
            await eventually(lambda: not daemon.processes())
        assert daemon.processes() == []
    finally:
        with trio.CancelScope(shield=True):
            if daemon._process is not None and daemon.process.poll() is None:
                daemon.process.kill()
                await daemon.process.wait()
        for pid in daemon.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
