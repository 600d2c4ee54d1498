"""The PyPI package `agent-client-protocol` 0.12.1, unchanged, is a client of `/acp`, by HTTP and by WebSocket.

A program on it holds a whole conversation: it streams, is asked for permission, cancels, leaves, and loads the session
again on another connection. It runs in a process and an environment of its own.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from interop.cache import CACHE, may_install
from interop.model_server import open_model
from interop.real_agents import AGENTS_DIR, REAL_AGENTS
from support.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PACKAGE = "agent-client-protocol[http]==0.12.1"
PLACE = CACHE / "agent-client-protocol-0.12.1"
PROGRAM = Path(__file__).with_name("remote_client.py")
INSTALL_SECONDS = 120.0  # 2 are usual
CONVERSATION_SECONDS = 150.0  # 2 to 15 are usual, with two starts of a real agent; two cores may have other work

by_either_transport = pytest.mark.parametrize("transport", ["http", "ws"])


async def provide() -> None:
    """The package in an environment of its own, once in a cache, built aside and renamed into place."""
    if PLACE.exists():
        return
    if not may_install():
        pytest.skip("the package is not installed, and SANDBOX_AGENT_TEST_INSTALL is 0")
    await trio.Path(CACHE).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-", ignore_cleanup_errors=True) as building:
        uv = str(Path(sys.executable).with_name("uv"))
        for command in (
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, building],
            [uv, "pip", "install", "--quiet", "--python", f"{building}/bin/python", PACKAGE],
        ):
            done = await trio.run_process(
                command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, stdin=b"", cwd=building
            )
            assert done.returncode == 0, done.stdout.decode(errors="replace")
        try:
            await trio.Path(building).rename(PLACE)
        except OSError as refused:
            if refused.errno != errno.ENOTEMPTY:  # another run was first, and its install is as good as ours
                raise


async def converse(daemon: Daemon, transport: str, agent: str, work: Path, **prompts: str) -> dict[str, Any]:
    """Run the program to its end; gives what it told. It must have nothing to complain about."""
    url = f"{daemon.url}/acp?agent={agent}"
    scenario = {
        "transport": transport,
        "url": url if transport == "http" else url.replace("http:", "ws:", 1),
        "headers": daemon.headers,
        "cwd": str(work),
        **prompts,
    }
    done = await trio.run_process(
        [str(PLACE / "bin" / "python"), "-I", "-W", "error", str(PROGRAM)],
        env={"PATH": os.environ["PATH"], "SCENARIO": json.dumps(scenario)},
        stdin=b"",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, ""), done.stderr.decode() + daemon.said
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {facts.pop("tell"): facts for facts in told}


@asynccontextmanager
async def stage(home: Path, *options: str, **environment: str) -> AsyncGenerator[tuple[Daemon, Path]]:
    with trio.fail_after(INSTALL_SECONDS):
        await provide()
    work = home / "work"
    work.mkdir(parents=True)
    with trio.fail_after(CONVERSATION_SECONDS):
        async with running(home / "daemon", *options, **environment) as daemon:
            yield daemon, work


@by_either_transport
async def test_a_conversation_with_the_mock_agent_goes_on_on_another_connection(tmp_path: Path, transport: str) -> None:
    async with stage(tmp_path) as (daemon, work):
        told = await converse(
            daemon,
            transport,
            "mock",
            work,
            stream="/echo one two three",
            replayed="one two three",
            ask="/permission",
            hold="/echo soon\n/hang",
            recite="/recite",
        )
        assert told["greeted"] == {"version": 1, "loads": True}
        assert told["streamed"] == {"stop_reason": "end_turn", "text": "one two three"}
        assert told["asked"] == {"stop_reason": "end_turn", "times": 1, "of_session": True}
        assert told["cancelled"] == {"stop_reason": "cancelled"}
        # The replay is there before the answer, as it is over stdio.
        assert "/echo one two three" in told["loaded"]["prompts"]
        assert "one two three" in told["loaded"]["answers"]
        assert told["recited"]["stop_reason"] == "end_turn"
        assert "/echo one two three" in told["recited"]["text"]


@by_either_transport
async def test_a_conversation_with_a_real_agent_goes_on_on_another_connection(tmp_path: Path, transport: str) -> None:
    agent = REAL_AGENTS["opencode"]
    if (lacks := await agent.provide()) is not None:
        pytest.skip(f"{agent.id}: {lacks}")
    async with open_model() as model:
        environment = agent.environment(tmp_path / "home", model.url)
        async with stage(tmp_path, "--data-dir", str(AGENTS_DIR), **environment) as (daemon, work):
            wanted = work / "wanted.txt"
            told = await converse(
                daemon,
                transport,
                agent.id,
                work,
                stream="say 100",
                replayed="",
                ask=f"write {wanted} as agreed",
                hold="hold",
                recite="recite",
            )
            assert told["greeted"] == {"version": 1, "loads": True}
            numbers = "".join(f"{number} " for number in range(1, 101))
            assert told["streamed"] == {"stop_reason": "end_turn", "text": numbers}
            assert told["asked"] == {"stop_reason": "end_turn", "times": 1, "of_session": True}
            assert wanted.read_text() == "as agreed"
            assert told["cancelled"] == {"stop_reason": "cancelled"}
            assert "say 100" in told["loaded"]["prompts"]
            assert told["recited"]["stop_reason"] == "end_turn"
            assert "say 100" in told["recited"]["text"]
