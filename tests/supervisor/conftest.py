"""Real processes for tests, and the proof that none of them is left."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_supervisor.sweep import COOKIE_VARIABLE, Cookie, pids, sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from trio.abc import ReceiveStream


@pytest.fixture
def cookie() -> Iterator[Cookie]:
    """A cookie of this test alone; at its end no process may carry it, nor another of the same run."""
    cookie = Cookie("tests", uuid.uuid4().hex, "child")
    yield cookie
    left = pids(lambda other: other.run == cookie.run)
    sweep(lambda other: other.run == cookie.run)
    assert left == []


@pytest.fixture
def environment() -> dict[str, str]:
    """The least a child needs."""
    return {"PATH": os.environ["PATH"]}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes without any of our code, and collect them at the end."""
    children: list[subprocess.Popen[bytes]] = []

    def start_one(cookie: object, *argv: str, new_session: bool = True) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], COOKIE_VARIABLE: str(cookie)}
        child = subprocess.Popen(argv, env=environment, start_new_session=new_session, stdout=subprocess.PIPE)
        children.append(child)
        return child

    yield start_one
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def read_line() -> Callable[[ReceiveStream], Awaitable[str]]:
    """Read one line, byte by byte, so that the rest stays where it is."""

    async def read(stream: ReceiveStream) -> str:
        line = b""
        with trio.fail_after(10):
            while not line.endswith(b"\n"):
                piece = await stream.receive_some(1)
                assert piece, f"end of file after {line!r}"
                line += piece
        return line.decode().strip()

    return read


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a pid is a process that still runs: neither gone nor a zombie."""

    def check(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    return check


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait for a condition of the outside world, which sends no events; bounded."""

    async def wait(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 (other processes set no events of ours)
                await trio.sleep(0.002)

    return wait
