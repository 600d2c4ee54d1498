from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_supervisor.process import open_process, spawn
from sandbox_supervisor.reaper import open_reaper
from sandbox_supervisor.sentinel import open_sentinel
from sandbox_supervisor.sweep import COOKIE_VARIABLE, Cookie, pids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.abc import ReceiveStream

    ReadLine = Callable[[ReceiveStream], Awaitable[str]]
    Start = Callable[..., subprocess.Popen[bytes]]
    Until = Callable[..., Awaitable[None]]

DAEMON = """
import os, sys, trio
from sandbox_supervisor.process import open_process
from sandbox_supervisor.reaper import open_reaper
from sandbox_supervisor.sentinel import open_sentinel
from sandbox_supervisor.sweep import Cookie

# A child that ignores everything, a grandchild in its group, and an escapee.
TREE = "trap '' TERM HUP INT; sleep 1000 & (setsid sleep 1000 &); echo ready; while :; do sleep 1; done"

async def main(owner, run):
    env = {"PATH": os.environ["PATH"]}
    async with open_reaper() as reaper, open_sentinel(owner, run, reaper=reaper) as sentinel:
        async def child(name):
            cookie = Cookie(owner, run, name)
            async with open_process(["sh", "-c", TREE], cookie=cookie, env=env, reaper=reaper) as process:
                assert await process.stdout.receive_some() == b"ready\\n"
                ready.release()
                await process.wait()
        ready = trio.Semaphore(0)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(child, f"s{number}")
            for number in range(5):
                await ready.acquire()
            print(sentinel.pid, flush=True)

trio.run(main, *sys.argv[1:])
"""


async def test_daemon_that_is_killed_leaves_nothing_behind(
    cookie: Cookie, read_line: ReadLine, alive: Callable[[int], bool], until: Until
) -> None:
    daemon = await spawn(
        [sys.executable, "-c", DAEMON, cookie.owner, cookie.run],
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.DEVNULL,
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    async with daemon.stdin, daemon.stdout:
        sentinel = int(await read_line(daemon.stdout))
        assert len(pids(lambda found: found.run == cookie.run)) >= 15
        daemon.kill()
        assert await daemon.wait() == -signal.SIGKILL
    await until(lambda: not pids(lambda found: found.run == cookie.run), seconds=2)
    await until(lambda: not alive(sentinel), seconds=2)


async def test_clean_end_says_goodbye_and_nothing_is_swept(cookie: Cookie, start: Start) -> None:
    bystander = start(cookie, "sleep", "1000")
    async with open_sentinel(cookie.owner, cookie.run) as sentinel:
        assert sentinel.alive
    assert not sentinel.alive
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


async def test_end_by_an_error_lets_it_sweep_though_signals_came_before(
    cookie: Cookie, start: Start, until: Until
) -> None:
    left_behind = start(cookie, "sleep", "1000")
    spared = start(Cookie(cookie.owner, cookie.run + "1", "child"), "sleep", "1000")

    async def fail_under_guard() -> None:
        async with open_sentinel(cookie.owner, cookie.run) as sentinel:
            ignored = Path(f"/proc/{sentinel.pid}/status")
            wanted = sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
            await until(lambda: int(ignored.read_text().split("SigIgn:")[1].split()[0], 16) & wanted == wanted)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                os.kill(sentinel.pid, number)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await fail_under_guard()
    assert left_behind.wait() == -signal.SIGKILL
    assert spared.poll() is None


async def test_sentinel_is_no_part_of_any_tree(cookie: Cookie, monkeypatch: pytest.MonkeyPatch, until: Until) -> None:
    # As in a daemon that an agent of another daemon started.
    monkeypatch.setenv(COOKIE_VARIABLE, str(cookie))
    async with open_sentinel(cookie.owner, cookie.run) as sentinel:
        assert sentinel.pid not in pids(lambda found: found == cookie)
        assert os.getsid(sentinel.pid) == sentinel.pid
        assert os.readlink(f"/proc/{sentinel.pid}/cwd") == "/"
        # Python opens files of its own while it starts.
        await until(lambda: sorted(os.listdir(f"/proc/{sentinel.pid}/fd")) == ["0", "1", "2"])


async def test_daemon_goes_on_when_the_sentinel_was_killed(
    cookie: Cookie, environment: dict[str, str], until: Until
) -> None:
    async with open_reaper() as reaper, open_sentinel(cookie.owner, cookie.run, reaper=reaper) as sentinel:
        os.kill(sentinel.pid, signal.SIGKILL)
        await until(lambda: not sentinel.alive)
        async with open_process(["true"], cookie=cookie, env=environment, reaper=reaper) as child:
            assert (await child.wait()).code == 0


async def test_cancellation_takes_the_sentinel_along(cookie: Cookie) -> None:
    with trio.CancelScope() as scope:
        async with open_sentinel(cookie.owner, cookie.run) as sentinel:
            scope.cancel()
            await trio.sleep_forever()
    assert not sentinel.alive
