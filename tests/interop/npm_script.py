"""Programs on the npm package `sandbox-agent`, as its users write them: ES modules, run by node, the package untouched.

A program stands in a folder of its own beside a link to the installed package, so it imports it by name. It tells the
test what it found by lines of JSON on stdout, one after the other, and is told what it cannot know on stdin. Its stderr
belongs to the package: what that writes there, its users see.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import trio

from interop.cache import CACHE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Facts", "Script", "Served", "install", "is_installed", "script"]

PACKAGE = "sandbox-agent@0.4.2"
# The optional dependency is the server's own binary, which is what we stand in for.
NPM_WORDS = ("install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--omit=optional")
PLACE = CACHE / "npm-sdk-0.4.2"
SCRIPTS = Path(__file__).parent / "npm_sdk"
EXIT_SECONDS = 5.0  # node ends by itself once the SDK holds no connection any more

Facts: TypeAlias = dict[str, Any]


class Served(Protocol):
    """A server, as a client needs to know it."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...


def is_installed() -> bool:
    return PLACE.exists()


async def install() -> None:
    """Once in a cache, built aside and renamed into place; the caller brings the deadline, 3 s are usual."""
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
        try:
            await trio.Path(building).rename(PLACE)
        except OSError as refused:
            if refused.errno != errno.ENOTEMPTY:  # another run was first, and its install is as good as ours
                raise


@dataclass(slots=True)
class Script:
    """A program that runs."""

    process: trio.Process
    stderr: bytearray = field(default_factory=bytearray)
    _lines: bytearray = field(default_factory=bytearray)
    _heard_out: trio.Event = field(default_factory=trio.Event)

    async def collect_stderr(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.stderr += data
        self._heard_out.set()

    async def tells(self, what: str) -> Facts:
        """What it tells next, which must be this; the caller brings the deadline."""
        assert self.process.stdout is not None
        while b"\n" not in self._lines:
            data = await self.process.stdout.receive_some()
            if not data:
                code = await self.process.wait()
                await self._heard_out.wait()
                raise AssertionError(f"the script ended with {code} before it told {what!r}: {self.complaints}")
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        facts: Facts = json.loads(line)
        assert facts.pop("tell") == what, facts
        return facts

    async def tells_all(self) -> dict[str, Facts]:
        """Everything it tells until its end, in order, by what it is; the caller brings the deadline."""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self._lines += data
        *lines, rest = self._lines.split(b"\n")
        self._lines = rest
        told: dict[str, Facts] = {}
        for line in lines:
            facts: Facts = json.loads(line)
            what = facts.pop("tell")
            assert what not in told, f"told twice: {what}"
            told[what] = facts
        return told

    async def is_told(self, **facts: object) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(facts).encode() + b"\n")

    @property
    def complaints(self) -> str:
        return self.stderr.decode(errors="replace")

    async def ends_in_peace(self) -> None:
        """It ends by itself, with status 0, with nothing left to tell and without a word on stderr."""
        assert self.process.stdout is not None
        with trio.fail_after(EXIT_SECONDS):
            self._lines += await self.process.stdout.receive_some()
            code = await self.process.wait()
            await self._heard_out.wait()
        end = (code, bytes(self._lines), self.complaints)
        assert end == (0, b"", ""), end


@asynccontextmanager
async def script(name: str, served: Served, folder: Path, *node_words: str) -> AsyncGenerator[Script]:
    """One of the programs, against a server. It must end in peace when the block does."""
    _furnish(folder)
    environment = {"PATH": os.environ["PATH"], "NO_COLOR": "1"}
    process = await trio.lowlevel.open_process(
        ["node", *node_words, f"{name}.mjs"],
        cwd=folder,
        env={**environment, "SCENARIO_URL": served.url, "SCENARIO_TOKEN": served.token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running = Script(process)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdin, process.stdout, process.stderr, trio.open_nursery() as nursery:
        nursery.start_soon(running.collect_stderr)
        try:
            yield running
            await running.ends_in_peace()
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def _furnish(folder: Path) -> None:
    shutil.copytree(SCRIPTS, folder)
    (folder / "node_modules").symlink_to(PLACE / "node_modules")
