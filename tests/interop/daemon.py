"""Our daemon as its users run it: the installed command, a process of its own, a free port, a fresh token."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

__all__ = ["Daemon", "children_of", "daemon", "eventually", "processes_with", "zombies_of"]

START_SECONDS = 20.0  # a cold interpreter on a busy two-core machine
STOP_SECONDS = 15.0  # the daemon promises 10
POLL_SECONDS = 0.02  # nothing tells us of a port that starts to listen, nor of another's process that ends


@dataclass(slots=True)
class Daemon:
    process: trio.Process
    port: int
    token: str
    output: bytearray = field(default_factory=bytearray)
    """stdout and stderr so far."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    async def wait_healthy(self) -> None:
        async with httpx.AsyncClient(headers=self.headers, trust_env=False) as client:
            while self.process.poll() is None:
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/v1/health")).is_success:
                        return
                await trio.sleep(POLL_SECONDS)
        raise RuntimeError(f"the daemon ended with {self.process.returncode}: {self.output.decode(errors='replace')}")

    async def stop(self) -> int:
        """SIGTERM and its exit status. One that does not end by itself is killed, and that is an error."""
        if self.process.poll() is None:
            self.process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            return await self.process.wait()
        self.process.kill()
        await self.process.wait()
        raise RuntimeError(f"the daemon ignored SIGTERM: {self.output.decode(errors='replace')}")


def _command(port: int, data_dir: Path, args: Sequence[str]) -> list[str]:
    """SANDBOX_AGENT_TEST_BIN names another server to compare with; it must take the same arguments."""
    binary = os.environ.get("SANDBOX_AGENT_TEST_BIN") or str(Path(sys.executable).with_name("sandbox-agent"))
    return [binary, "server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data_dir), *args]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def daemon(
    data_dir: Path, *, port: int | None = None, env: Mapping[str, str] | None = None, args: Sequence[str] = ()
) -> AsyncIterator[Daemon]:
    """A healthy daemon; at the end it is stopped by SIGTERM, on every path.

    The caller brings the deadline for what it does with the daemon; starting and stopping have their own.

    Args:
      data_dir: also its working directory.
      port: that of an earlier daemon whose sessions this one shall have; a daemon keeps its journal by its address.
      env: beside ours, without our own SANDBOX_AGENT_ variables. The token travels this way too.
      args: more options of `sandbox-agent server`.
    """
    await trio.Path(data_dir).mkdir(parents=True, exist_ok=True)
    port, token = port or free_port(), secrets.token_hex(24)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_AGENT_")}
    process = await trio.lowlevel.open_process(
        _command(port, data_dir, args),
        env={**ours, **(env or {}), "SANDBOX_AGENT_TOKEN": token},
        cwd=data_dir,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    running = Daemon(process, port, token)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_collect, running)
        try:
            with trio.fail_after(START_SECONDS):
                await running.wait_healthy()
            yield running
        finally:
            with trio.CancelScope(shield=True):  # bounded by stop
                await running.stop()
            nursery.cancel_scope.cancel()  # a process that the daemon left behind may hold the pipe open


async def _collect(running: Daemon) -> None:
    assert running.process.stdout is not None
    async with running.process.stdout as stream:
        async for data in stream:
            running.output += data


def processes_with(marker: str) -> list[int]:
    """The living processes that carry the marker in their environment, arguments or working directory."""
    # One listing can miss a process: in the middle of an exec its environment looks empty.
    return _bearers(marker) or _bearers(marker)


def _bearers(marker: str) -> list[int]:
    found: list[int] = []
    for process in _processes():
        with suppress(OSError):  # it ended while we looked, or is not ours to see
            said = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if marker.encode() in said or marker in os.readlink(process / "cwd"):
                found.append(int(process.name))
    return sorted(set(found) - {os.getpid()})


def children_of(parent: int) -> list[int]:
    """The parent's direct children, the ended ones too."""
    return [pid for pid, _, ppid in _relations() if ppid == parent]


def zombies_of(parent: int) -> list[int]:
    """The ended children that the parent has not reaped."""
    return [pid for pid, state, ppid in _relations() if ppid == parent and state == "Z"]


def _relations() -> Iterator[tuple[int, str, int]]:
    """pid, state and parent of every process."""
    for process in _processes():
        with suppress(OSError):
            state, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            yield int(process.name), state, int(parent)


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what nobody announces, such as the end of a process that is not ours; the caller brings the deadline."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(POLL_SECONDS)
