from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sandbox_supervisor.errors import SpawnFailed
from sandbox_supervisor.process import ExitStatus, StopLadder, open_process
from sandbox_supervisor.sweep import COOKIE_VARIABLE, pids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.abc import ReceiveStream

    from sandbox_supervisor.sweep import Cookie

    ReadLine = Callable[[ReceiveStream], Awaitable[str]]

QUICK = StopLadder(stdin=0.1, term=0.2, kill=2.0)

# Leaves the group and its parent, says its pid, and ignores whatever can be ignored.
ESCAPEE = """
import os, signal, time
if os.fork():
    os.wait()
    {then}
else:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(1000)
"""


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_exit_code_is_reported_exactly(cookie: Cookie, environment: dict[str, str], code: int) -> None:
    async with open_process(["sh", "-c", f"exit {code}"], cookie=cookie, env=environment) as child:
        assert await child.wait() == ExitStatus(code, None)
        assert child.status == ExitStatus(code, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
async def test_ending_signal_is_reported_exactly(cookie: Cookie, environment: dict[str, str], number: int) -> None:
    async with open_process(["sh", "-c", f"kill -{int(number)} $$"], cookie=cookie, env=environment) as child:
        assert await child.wait() == ExitStatus(None, int(number))


async def test_pipes_environment_and_directory_are_the_childs_own(
    cookie: Cookie, tmp_path: Path, read_line: ReadLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "leaks")
    script = f'echo "$GIVEN-$OURS-${COOKIE_VARIABLE}"; pwd; read line; echo "got $line"; echo complaint >&2'
    async with open_process(["/bin/sh", "-c", script], cookie=cookie, env={"GIVEN": "yes"}, cwd=str(tmp_path)) as child:
        assert await read_line(child.stdout) == f"yes--{cookie}"
        assert await read_line(child.stdout) == str(tmp_path)
        await child.stdin.send_all(b"hello\n")
        assert await read_line(child.stdout) == "got hello"
        assert await read_line(child.stderr) == "complaint"
        assert os.getsid(child.pid) == child.pid
        assert child.argv[0] == "/bin/sh"


async def test_child_that_ends_with_its_stdin_never_gets_sigterm(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine
) -> None:
    script = "trap 'exit 9' TERM; echo ready; cat >/dev/null; exit 7"
    async with open_process(["sh", "-c", script], cookie=cookie, env=environment, ladder=StopLadder(stdin=10)) as child:
        await read_line(child.stdout)
        assert await child.stop() == ExitStatus(7, None)


async def test_child_that_ignores_its_stdin_ends_by_sigterm(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine
) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    async with open_process(["sh", "-c", script], cookie=cookie, env=environment, ladder=QUICK) as child:
        await read_line(child.stdout)
        assert await child.stop() == ExitStatus(9, None)


async def test_child_that_ignores_sigterm_dies_at_the_end_of_the_ladder(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine
) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    async with open_process(["sh", "-c", script], cookie=cookie, env=environment, ladder=QUICK) as child:
        await read_line(child.stdout)
        begin = trio.current_time()
        assert await child.stop() == ExitStatus(None, signal.SIGKILL)
        assert QUICK.stdin + QUICK.term <= trio.current_time() - begin < QUICK.stdin + QUICK.term + 0.5
        assert pids(lambda other: other == cookie) == []


async def test_grandchild_in_the_group_dies_with_the_child(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine, alive: Callable[[int], bool]
) -> None:
    async with open_process(["sh", "-c", "sleep 1000 & echo $!; wait"], cookie=cookie, env=environment) as child:
        grandchild = int(await read_line(child.stdout))
        assert alive(grandchild)
        child.kill()
        assert await child.wait() == ExitStatus(None, signal.SIGKILL)
        await child.stop()
        assert not alive(grandchild)


@pytest.mark.parametrize("then", ["time.sleep(1000)", "os._exit(3)"], ids=["child runs", "child crashed"])
async def test_double_forker_in_a_session_of_its_own_dies_with_the_child(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine, alive: Callable[[int], bool], then: str
) -> None:
    argv = [sys.executable, "-c", ESCAPEE.format(then=then)]
    async with open_process(argv, cookie=cookie, env=environment, ladder=QUICK) as child:
        escapee = int(await read_line(child.stdout))
        assert os.getsid(escapee) != child.pid
        if "exit" in then:
            assert await child.wait() == ExitStatus(3, None)
        assert alive(escapee)
    assert not alive(escapee)


async def test_group_of_a_child_that_crashed_is_killed_on_leaving(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine, alive: Callable[[int], bool]
) -> None:
    async with open_process(["sh", "-c", "sleep 1000 & echo $!; kill -9 $$"], cookie=cookie, env=environment) as child:
        grandchild = int(await read_line(child.stdout))
        assert await child.wait() == ExitStatus(None, signal.SIGKILL)
        assert alive(grandchild)
    assert not alive(grandchild)


async def test_callers_of_stop_share_one_ladder_and_one_of_them_may_be_cancelled(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine
) -> None:
    script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done"
    statuses: list[ExitStatus] = []
    async with open_process(["sh", "-c", script], cookie=cookie, env=environment, ladder=QUICK) as child:
        await read_line(child.stdout)

        async def stop() -> None:
            statuses.append(await child.stop())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            nursery.start_soon(stop)
            await wait_all_tasks_blocked()
            with trio.move_on_after(0.05) as scope:
                await child.stop()
            assert scope.cancelled_caught
        assert statuses == [ExitStatus(None, signal.SIGKILL)] * 2
        assert await child.stop() == statuses[0]
        # The group gets one SIGTERM, and "echo" is a builtin of the one process that traps it.
        assert await child.stdout.receive_some() == b"term\n"
        assert await child.stdout.receive_some() == b""


async def test_stop_that_is_cancelled_halfway_still_goes_to_the_end(
    cookie: Cookie, environment: dict[str, str], read_line: ReadLine
) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    async with open_process(["sh", "-c", script], cookie=cookie, env=environment, ladder=QUICK) as child:
        await read_line(child.stdout)
        with trio.move_on_after(0.15):
            await child.stop()
        assert child.status == ExitStatus(None, signal.SIGKILL)
        assert pids(lambda other: other == cookie) == []


async def test_many_tasks_may_wait_and_cancelled_ones_do_no_harm(cookie: Cookie, environment: dict[str, str]) -> None:
    statuses: list[ExitStatus] = []
    async with open_process(["sh", "-c", "read line; exit 4"], cookie=cookie, env=environment) as child:

        async def wait() -> None:
            statuses.append(await child.wait())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await child.wait()
            await child.stdin.send_all(b"\n")
    assert statuses == [ExitStatus(4, None)] * 3


async def test_cancellation_while_the_child_runs_leaves_nothing(cookie: Cookie, environment: dict[str, str]) -> None:
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            async with open_process(["sleep", "1000"], cookie=cookie, env=environment, ladder=QUICK) as child:
                nursery.cancel_scope.cancel()
                await child.wait()

        nursery.start_soon(run)
    assert pids(lambda other: other == cookie) == []


async def test_cancellation_in_the_middle_of_a_spawn_leaves_nothing(
    cookie: Cookie, environment: dict[str, str]
) -> None:
    spawned = 0
    with trio.CancelScope() as scope:

        async def run() -> None:
            nonlocal spawned
            async with open_process(["sleep", "1000"], cookie=cookie, env=environment, ladder=QUICK):
                spawned += 1
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            # Blocked on the thread that spawns, which takes a millisecond.
            await wait_all_tasks_blocked()
            scope.cancel()
    assert spawned == 1
    assert pids(lambda other: other == cookie) == []


async def test_spawn_in_a_cancelled_scope_starts_nothing(cookie: Cookie, environment: dict[str, str]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_process(["sleep", "1000"], cookie=cookie, env=environment):
            pytest.fail("started")
    assert scope.cancelled_caught


async def test_errors_of_the_body_come_out_bare(cookie: Cookie, environment: dict[str, str]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_process(["sleep", "1000"], cookie=cookie, env=environment, ladder=QUICK):
            _ = 1 / 0


async def test_leaving_wakes_a_task_that_writes_to_a_child_which_does_not_read(
    cookie: Cookie, environment: dict[str, str]
) -> None:
    closed = trio.Event()
    async with trio.open_nursery() as nursery:
        async with open_process(["sleep", "1000"], cookie=cookie, env=environment, ladder=QUICK) as child:

            async def write() -> None:
                try:
                    await child.stdin.send_all(bytes(1 << 20))
                except trio.ClosedResourceError:
                    closed.set()

            nursery.start_soon(write)
            await wait_all_tasks_blocked()
        await closed.wait()


@pytest.mark.parametrize(
    ("argv", "cwd", "extra", "message"),
    [
        (["no-such-program"], None, {}, "cannot start 'no-such-program': No such file"),
        (["/etc/passwd"], None, {}, "cannot start '/etc/passwd': Permission denied"),
        (["true"], "/no/such/place", {}, "cannot start 'true' in the working directory '/no/such/place': No such file"),
        (["echo", "a\0b"], None, {}, "cannot start 'echo': embedded null byte"),
        (["true"], None, {"A=B": "c"}, "cannot start 'true': illegal environment variable name"),
        (["true"], None, {"TOO_LONG": "x" * 4_000_000}, "cannot start 'true': Argument list too long"),
        ([], None, {}, "the command is empty"),
    ],
)
async def test_spawn_that_fails_says_why_and_keeps_no_descriptors(
    cookie: Cookie,
    environment: dict[str, str],
    argv: list[str],
    cwd: str | None,
    extra: dict[str, str],
    message: str,
) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SpawnFailed, match=message):
        async with open_process(argv, cookie=cookie, env=environment | extra, cwd=cwd):
            pytest.fail("started")
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_leaving_keeps_no_descriptors(cookie: Cookie, environment: dict[str, str]) -> None:
    before = os.listdir("/proc/self/fd")
    async with open_process(["true"], cookie=cookie, env=environment):
        pass
    assert len(os.listdir("/proc/self/fd")) == len(before)
