"""The public server 0.4.2 that we stand in for: its own binary, unchanged, from the registry it is published in.

A test that asks both servers the same does not compare with what we remember, but with what is there.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import trio

from interop.cache import CACHE
from interop.npm_script import NPM_WORDS
from support.daemon import START_WITHIN, free_port
from support.processes import eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

__all__ = ["PublicServer", "install_public_server", "is_installed", "public_server", "runs_here"]

PACKAGE = "@sandbox-agent/cli-linux-x64@0.4.2"
PLACE = CACHE / "public-server-0.4.2"
BINARY = "node_modules/@sandbox-agent/cli-linux-x64/bin/sandbox-agent"
MARK = "PUBLIC_SERVER_OF_THE_TEST"
KILL_WITHIN = 5.0
POLL_EVERY = 0.02  # seconds between two tries to reach a port that nobody tells us of


@dataclass(frozen=True, slots=True)
class PublicServer:
    """The public server, as a client needs to know it: it is open to everyone on loopback."""

    url: str
    token: str = ""


def runs_here() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def is_installed() -> bool:
    return PLACE.exists()


async def install_public_server() -> None:
    """Once in a cache, built aside and renamed into place; the caller brings the deadline, 2 s are usual."""
    if is_installed():
        return
    await trio.Path(CACHE).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-", ignore_cleanup_errors=True) as building:
        command = ["npm", *NPM_WORDS, "--loglevel=error", "--prefix", building, PACKAGE]
        done = await trio.run_process(
            command, cwd=building, check=False, capture_stdout=True, stderr=subprocess.STDOUT, stdin=b""
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout.decode(errors='replace')}")
        await (trio.Path(building) / BINARY).chmod(0o755)  # the package leaves that to its installer
        try:
            await trio.Path(building).rename(PLACE)
        except OSError as refused:
            if refused.errno != errno.ENOTEMPTY:  # another run was first, and its install is as good as ours
                raise


@asynccontextmanager
async def public_server(folder: Path) -> AsyncGenerator[PublicServer]:
    """The public server for as long as the block runs. It works in the folder, and `home` there is its home.

    What it has started outlives it, so that is looked for by a mark in its environment, and killed.
    """
    (folder / "home").mkdir(parents=True)
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    server = PublicServer(f"http://127.0.0.1:{port}")
    with (folder / "server.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [str(PLACE / BINARY), "server", "--no-token", "--no-telemetry", *address],
            env={"PATH": os.environ["PATH"], "HOME": str(folder / "home"), MARK: str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        await _answers(server, process)
        yield server
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            with trio.move_on_after(KILL_WITHIN):
                await eventually(lambda: not _kill_all(f"{MARK}={folder}"))


async def _answers(server: PublicServer, process: trio.Process) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with trio.fail_after(START_WITHIN):
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    if (await client.get(f"{server.url}/v1/health")).is_success:
                        return
                await trio.sleep(POLL_EVERY)
    raise AssertionError(f"the public server ended with {process.returncode}")


def _kill_all(mark: str) -> list[int]:
    found = processes_with(mark)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found
