"""`sandbox-agent server --exit-with-stdin` and `--address-file`: a server for the program that starts it."""

from __future__ import annotations

import signal
import socket
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from support.clients import Session
from support.command import COMMAND, Server, clean_environment, run
from support.processes import processes_with
from support.wire import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

WITHIN = 40


@asynccontextmanager
async def held(
    home: Path, *arguments: str, stdin: int = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> AsyncGenerator[Server]:
    """A server with a lifeline, known by its address file; it is killed at the end if it still runs."""
    environment = {"SANDBOX_AGENT_DATA_DIR": str(home / "data"), "MOCK_AGENT_HOME": f"{home}/agent", **(env or {})}
    options = ["--port", "0", "--address-file", str(home / "address"), "--exit-with-stdin"]
    process = await trio.lowlevel.open_process(
        [COMMAND, "server", *options, *arguments],
        env=clean_environment(environment),
        stdin=stdin,
        stderr=subprocess.PIPE,
    )
    server = Server(home, process, "")
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.collect)
            try:
                while not (address := home / "address").exists():
                    assert process.poll() is None, server.stderr
                    await trio.sleep(0.01)
                server.port = int((await trio.Path(address).read_text()).removeprefix("http://127.0.0.1:"))
                yield server
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                    if process.stdin is not None:
                        await process.stdin.aclose()
                nursery.cancel_scope.cancel()


async def test_the_end_of_stdin_ends_the_server_and_its_agents_in_good_order(tmp_path: Path) -> None:
    async with held(tmp_path) as server:
        stdin = server.process.stdin
        assert stdin is not None
        await Session(server, "s").open("mock")
        await stdin.send_all(b"what comes by a lifeline\n" * 100_000)
        assert (await exchange(server.port, "GET", "/v1/health")).status == 200
        await stdin.aclose()
        assert await server.process.wait() == 0
        await server.until('event="shutting down" by="end of stdin"')
        await server.until("event=stopped")
        assert processes_with(f"MOCK_AGENT_HOME={tmp_path}/") == []
        assert not (tmp_path / "address").exists()


async def test_a_server_that_waits_to_be_initialized_ends_with_its_stdin_too(tmp_path: Path) -> None:
    async with held(tmp_path, "--await-init") as server:
        assert b"awaiting_init" in (await exchange(server.port, "GET", "/v1/health")).body
        assert server.process.stdin is not None
        await server.process.stdin.aclose()
        assert await server.process.wait() == 0


async def test_a_signal_and_the_end_of_stdin_are_not_two_signals(tmp_path: Path) -> None:
    for first in ("stdin", "signal"):
        home = tmp_path / first
        home.mkdir()
        async with held(home) as server:
            stdin = server.process.stdin
            assert stdin is not None
            await Session(server, "s").open("mock")
            if first == "signal":
                server.process.send_signal(signal.SIGTERM)
            await stdin.aclose()
            if first == "stdin":
                server.process.send_signal(signal.SIGTERM)
            assert await server.process.wait() == 0
            await server.until("event=stopped")


async def test_a_connection_will_do_as_a_lifeline(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with held(tmp_path, stdin=theirs.fileno()) as server:
            theirs.close()
            ours.send(b"hello")
            assert (await exchange(server.port, "GET", "/v1/health")).status == 200
            ours.close()
            assert await server.process.wait() == 0


@pytest.mark.parametrize("stdin", ["/dev/null", "a file", "closed"])
async def test_a_stdin_that_cannot_end_with_anybody_is_refused(tmp_path: Path, stdin: str) -> None:
    (tmp_path / "file").write_text("text")
    redirect = {"/dev/null": "</dev/null", "a file": f"<{tmp_path}/file", "closed": "<&-"}[stdin]
    done = await trio.run_process(
        ["sh", "-c", f'"$0" server --port 0 --exit-with-stdin {redirect}', COMMAND],
        env=clean_environment({"SANDBOX_AGENT_DATA_DIR": str(tmp_path)}),
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"sandbox-agent: --exit-with-stdin needs a stdin that ends with somebody")


async def test_an_address_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = str(tmp_path / "nowhere" / "address")
    env = {"SANDBOX_AGENT_DATA_DIR": str(tmp_path), "SANDBOX_AGENT_ADDRESS_FILE": file}
    done = await run("server", "--port", "0", env=env)
    assert done.code == 1
    assert f"sandbox-agent: cannot write --address-file {file}: No such file or directory" in done.stderr
