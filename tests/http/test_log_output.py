"""Whoever reads the daemon's log may stop, or go away: nobody else notices."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from support.clients import Session, refused
from support.daemon import running
from support.wire import exchange, request_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUESTS = 3000
"""Each is a line of the log, of some 150 bytes: many times what a pipe holds, and more than the daemon keeps."""

TOGETHER = 100
"""Requests that are sent at once on one connection."""

QUICKLY = 2.0
"""Seconds for `/v1/health`, on a machine that has other work, too."""

WITHIN = 40


@pytest.fixture(autouse=True)
def ordinary_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own stderr has a buffer, as it has for users: a thread that hangs in it must not hold up the end."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@contextmanager
def unread_log(home: Path) -> Iterator[int]:
    """Where the daemon of a home will write its log, a pipe instead of a file; gives the end that nobody reads."""
    home.mkdir(exist_ok=True)
    os.mkfifo(home / "daemon.log")
    reader = os.open(home / "daemon.log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield reader
    finally:
        os.close(reader)


async def ask_unauthorised(port: int) -> None:
    """Some requests without a token, on one connection, all of them answered."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request_bytes("GET", "/v1/acp") * TOGETHER)
        heard = b""
        while heard.count(b"HTTP/1.1 401 ") < TOGETHER or not heard.endswith(b"}"):
            chunk = await stream.receive_some(1 << 16)
            assert chunk, "the connection was closed before all were answered"
            heard += chunk


async def test_a_log_that_nobody_reads_does_not_hold_up_the_daemon(tmp_path: Path) -> None:
    with unread_log(tmp_path), trio.fail_after(WITHIN):
        async with running(tmp_path) as daemon:
            daemon.log.unlink()  # open as it is; nobody is to look for the log of a failure in it
            for _ in range(REQUESTS // TOGETHER):
                await ask_unauthorised(daemon.port)
                answer = await exchange(daemon.port, "GET", "/v1/health", daemon.headers, within=QUICKLY)
                assert answer.status == 200
            session = Session(daemon)
            await session.open()
            assert (await session.prompt("still there"))["result"]["stopReason"] == "end_turn"
            assert await daemon.stop() < 8


async def test_a_log_whose_reader_is_gone_takes_neither_session_nor_daemon_along(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        with unread_log(tmp_path) as reader:
            async with running(tmp_path, "--restart-backoff-ms", "0") as daemon:
                daemon.log.unlink()
                crashing, other = Session(daemon, "crashing"), Session(daemon, "other")
                await crashing.open()
                await other.open()
                os.dup2(os.open(os.devnull, os.O_RDONLY), reader)  # the pipe has no reader any more
                async with crashing.subscribed() as stream:
                    for crash in range(3):
                        start = len(stream.events)
                        assert refused(await crashing.prompt("/crash 3")) == "agent_process_exited", crash
                        await stream.until_method("_sandboxagent/agent/restarted", start)
                    assert (await crashing.prompt("and now?"))["result"]["stopReason"] == "end_turn"
                assert (await other.prompt("still there"))["result"]["stopReason"] == "end_turn"
                assert (await exchange(daemon.port, "GET", "/v1/health", daemon.headers, within=QUICKLY)).status == 200
                await daemon.stop()
