"""The installed command: run to its end, or as a server whose address and log are read off its stderr."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio
from click.testing import CliRunner

from sandbox_agent import cli

from .daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["COMMAND", "Finished", "Server", "clean_environment", "invoke", "run", "run_here", "started"]

COMMAND = str(Path(sys.executable).with_name("sandbox-agent"))

START_WITHIN = 20.0
"""Seconds: a cold interpreter on a small machine that others use too."""


class Finished(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str


class Server(Daemon):
    """A server that was started with nothing but its arguments and its environment."""

    def __init__(self, home: Path, process: trio.Process, token: str) -> None:
        super().__init__(home, ())
        self.token = token
        self.stderr = ""
        self._process = process
        self._news = trio.Event()

    @property
    def headers(self) -> dict[str, str]:
        return super().headers if self.token else {}

    async def collect(self) -> None:
        """Read its stderr to the end."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.stderr += data.decode(errors="replace")
            news, self._news = self._news, trio.Event()
            news.set()

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until this is in its log. The caller brings the deadline."""
        while (found := re.search(pattern, self.stderr)) is None:
            await self._news.wait()
        return found


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """That of the test run without what would configure a daemon, and more."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_AGENT_")}, **more}


async def run(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", within: float = 30
) -> Finished:
    """Run the command to its end."""
    with trio.fail_after(within):
        done = await trio.run_process(
            [COMMAND, *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=clean_environment(env or {}),
        )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def invoke(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run the command to its end in this process: no interpreter has to start.

    One at a time: standard output and the environment are the whole process'.
    """
    ours: dict[str, str | None] = {name: None for name in os.environ if name.startswith("SANDBOX_AGENT_")}
    done = CliRunner().invoke(cli.main, arguments, env={**ours, **(env or {})}, catch_exceptions=False)
    return Finished(done.exit_code, done.stdout, done.stderr)


async def run_here(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """As `invoke`, in a thread, beside a server in this process."""
    return await trio.to_thread.run_sync(lambda: invoke(*arguments, env=env))


@asynccontextmanager
async def started(
    home: Path, *arguments: str, env: Mapping[str, str] | None = None, token: str = ""
) -> AsyncGenerator[Server]:
    """A server on a free port that says in its log where it listens; killed at the end if the test has not stopped it.

    Args:
      home: of its data.
      arguments: of `sandbox-agent server`; some are given anyway unless they, or the environment, say otherwise.
      token: what clients are to use; the server is told by `arguments` or `env`.
    """
    environment = {"SANDBOX_AGENT_PORT": "0", "SANDBOX_AGENT_DATA_DIR": str(home / "data"), **(env or {})}
    process = await trio.lowlevel.open_process(
        [COMMAND, "server", *arguments],
        env=clean_environment({"MOCK_AGENT_HOME": str(home / "agent"), **environment}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    server = Server(home, process, token)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.collect)
        try:
            with trio.fail_after(START_WITHIN):
                server.port = int((await server.until(r'http://[^\s"]+:(\d+)'))[1])
            yield server
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()
