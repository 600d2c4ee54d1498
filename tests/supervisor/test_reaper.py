from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_supervisor.process import ExitStatus, open_process
from sandbox_supervisor.reaper import open_reaper
from sandbox_supervisor.sweep import Cookie

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from trio.abc import ReceiveStream

    ReadLine = Callable[[ReceiveStream], Awaitable[str]]
    Start = Callable[..., subprocess.Popen[bytes]]
    Until = Callable[..., Awaitable[None]]


def zombies() -> list[int]:
    """Our children that have ended and that nobody collected."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(int(entry.name))
    return found


def is_subreaper() -> bool:
    flag = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(flag), 0, 0, 0)
    return bool(flag.value)


async def test_two_hundred_exit_codes_are_exact_while_two_hundred_orphans_are_buried(
    cookie: Cookie, environment: dict[str, str], until: Until
) -> None:
    statuses: dict[int, ExitStatus] = {}
    at_once = trio.CapacityLimiter(10)

    async with open_reaper() as reaper, trio.open_nursery() as nursery:

        async def run(number: int) -> None:
            async with (
                at_once,
                open_process(
                    # The parentheses end at once and orphan what they started.
                    ["sh", "-c", f"(sh -c 'exit 99' &); exit {number % 256}"],
                    cookie=Cookie(cookie.owner, cookie.run, str(number)),
                    env=environment,
                    reaper=reaper,
                ) as child,
            ):
                statuses[number] = await child.wait()

        for number in range(200):
            nursery.start_soon(run, number)
        await until(lambda: reaper.reaped >= 200, seconds=30)
        await until(lambda: not zombies())
        await until(lambda: len(statuses) == 200)
        assert reaper.reaped == 200
    assert statuses == {number: ExitStatus(number % 256, None) for number in range(200)}
    assert zombies() == []


async def test_orphan_comes_to_us_and_is_buried_when_it_ends(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine, until: Until
) -> None:
    async with open_reaper() as reaper:
        script = "(setsid sleep 1000 & echo $!); cat"
        async with open_process(["sh", "-c", script], cookie=cookie, env=environment, reaper=reaper) as child:
            orphan = int(await read_line(child.stdout))

            def parent() -> int:
                return int(Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1])

            await until(lambda: parent() == os.getpid())
            os.kill(orphan, signal.SIGTERM)
            await until(lambda: not Path(f"/proc/{orphan}").exists())
            assert reaper.reaped == 1


async def test_own_child_that_nobody_waits_for_hides_no_orphans_and_keeps_its_status(
    cookie: Cookie, environment: dict[str, str], until: Until
) -> None:
    async with open_reaper() as reaper:
        script = "(sh -c 'sleep 0.05' &); exit 5"
        async with open_process(["sh", "-c", script], cookie=cookie, env=environment, reaper=reaper) as child:
            await until(lambda: reaper.reaped == 1)
            assert zombies() == []
            assert child.status == ExitStatus(5, None)


async def test_nothing_is_buried_while_a_spawn_is_in_progress(until: Until) -> None:
    async with open_reaper() as reaper:
        with reaper.spawning():
            # As if the child ended before its pid was known to us.
            process = await trio.lowlevel.open_process(["sh", "-c", "exit 6"], start_new_session=True)
            await until(lambda: zombies() == [process.pid])
            reaper.look()
            await trio.testing.wait_all_tasks_blocked()
            assert zombies() == [process.pid]
            reaper.adopt(process)
        assert await process.wait() == 6
        assert reaper.reaped == 0


async def test_child_of_somebody_who_does_not_know_the_reaper_is_left_to_them(start: Start, until: Until) -> None:
    async with open_reaper() as reaper:
        stranger = start("none", "sh", "-c", "exit 8", new_session=False)
        await until(lambda: zombies() == [stranger.pid])
        reaper.look()
        await trio.testing.wait_all_tasks_blocked()
        assert stranger.wait() == 8
        assert reaper.reaped == 0


async def test_stranger_that_is_never_collected_hides_no_orphans(
    cookie: Cookie, environment: dict[str, str], start: Start, until: Until
) -> None:
    async with open_reaper() as reaper:
        stranger = start("none", "true", new_session=False)
        await until(lambda: zombies() == [stranger.pid])
        argv = ["sh", "-c", "(true &); (true &)"]
        async with open_process(argv, cookie=cookie, env=environment, reaper=reaper) as child:
            await child.wait()
            await until(lambda: reaper.reaped == 2)
        assert zombies() == [stranger.pid]


async def test_entry_left_over_for_a_pid_does_not_hide_who_has_the_pid_now(start: Start, until: Until) -> None:
    async with open_reaper() as reaper:
        with reaper.spawning():
            process = await trio.lowlevel.open_process(["true"], start_new_session=True)
            reaper.adopt(process)
        await process.wait()
        orphan = start("none", "true")
        # What a reused pid comes to: an entry whose process has been collected long ago.
        reaper._owned[orphan.pid] = process
        await until(lambda: reaper.reaped == 1)


async def test_leaving_puts_the_flag_and_the_handler_back() -> None:
    def mine(_number: int, _frame: FrameType | None) -> None: ...

    was = is_subreaper()
    outer = signal.signal(signal.SIGCHLD, mine)
    try:
        async with open_reaper():
            assert is_subreaper()
            assert signal.getsignal(signal.SIGCHLD) is not mine
        assert is_subreaper() == was
        assert signal.getsignal(signal.SIGCHLD) is mine
    finally:
        signal.signal(signal.SIGCHLD, outer)


RUNS = """
import random, subprocess, trio
from sandbox_supervisor import open_reaper

async def run(children):
    async with open_reaper():
        children += [subprocess.Popen(["sleep", str(random.uniform(0.0005, 0.004))]) for _ in range(4)]
        await trio.sleep(random.uniform(0, 0.006))

for _ in range(200):
    children = []
    trio.run(run, children)
    for child in children:
        child.wait()
"""


async def test_children_that_end_just_when_a_run_does_are_no_reason_to_complain() -> None:
    done = await trio.run_process([sys.executable, "-c", RUNS], capture_stderr=True)
    assert done.stderr == b""


async def test_errors_of_the_body_come_out_bare() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_reaper():
            _ = 1 / 0


PID_ONE = """
import os, trio
from sandbox_supervisor.process import open_process
from sandbox_supervisor.reaper import open_reaper
from sandbox_supervisor.sweep import Cookie

async def main():
    assert os.getpid() == 1
    async with open_reaper() as reaper:
        script = "(setsid sh -c 'exit 3' &); (true &); exit 4"
        env = {"PATH": os.environ["PATH"]}
        async with open_process(["sh", "-c", script], cookie=Cookie("o", "r", "n"), env=env, reaper=reaper) as child:
            assert (await child.wait()).code == 4
        with trio.fail_after(5):
            while reaper.reaped < 2:
                await trio.sleep(0.002)
        print("buried", reaper.reaped)

trio.run(main)
"""


async def test_reaper_works_as_pid_one() -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if (
        shutil.which("unshare") is None
        or (await trio.run_process([*unshare, "true"], capture_stderr=True, check=False)).returncode != 0
    ):
        pytest.skip("may not make a namespace for pids here")
    done = await trio.run_process(
        [*unshare, sys.executable, "-c", PID_ONE], capture_stdout=True, capture_stderr=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"buried 2\n", b"", 0)
