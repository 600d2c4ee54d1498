"""Terminals: a controlling terminal, jobs, sizes, viewers, and what keeps one alive."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from actors.processes.watching import output, until
from sandbox_actors.errors import InvalidRequest
from sandbox_actors.processes import ProcessConfig, Size, Spec
from sandbox_actors.processes.errors import ProcessTrouble, StartFailed
from sandbox_supervisor import ExitStatus
from support.processes import alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_actors.processes import Process, Processes

WITHIN = 15
SHELL = Spec("sh", ("-i",), env={"PS1": "$ ", "ENV": ""}, tty=Size())


async def matching(process: Process, pattern: bytes) -> re.Match[bytes]:
    """Wait until what it has written has this in it."""
    seen = b""
    async for read in process.log.cursor():
        assert isinstance(read, list)
        seen += b"".join(entry.data for entry in read)
        if (found := re.search(pattern, seen)) is not None:
            return found
    raise AssertionError(f"it ended before {pattern!r}: {seen!r}")


async def test_a_program_has_a_terminal_of_its_own_that_is_its_controlling_one(processes: Processes) -> None:
    script = (
        "import os; print(os.isatty(0), os.isatty(2), os.ttyname(1) == os.ttyname(0), os.tcgetpgrp(0) == os.getpid());"
    )
    script += "print(os.open('/dev/tty', os.O_RDWR) > 0, os.getsid(0) == os.getpid(), os.environ['TERM'])"
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec(sys.executable, ("-I", "-S", "-c", script), tty=Size()))
        await process.exited.wait()
    assert output(process) == b"True True True True\r\nTrue True xterm-256color\r\n"
    assert process.status == ExitStatus(0, None)


async def test_the_program_gets_none_of_our_descriptors_and_its_environment_untouched(processes: Processes) -> None:
    script = "import os; print(sorted(os.listdir('/proc/self/fd'))); print('LC_CTYPE' in os.environ, os.environ['A'])"
    spec = Spec("sh", ("-c", "ls /proc/self/fd | wc -l; env"), env={"A": "b=c", "LANG": "C"}, tty=Size())
    processes._environment = {"PATH": "/usr/bin:/bin"}  # the daemon's own, as `open_processes` was given it
    with trio.fail_after(WITHIN):
        process = await processes.create(spec)
        await process.exited.wait()
    count, *variables = output(process).decode().split()
    assert int(count) == 4, script  # its three, and the one it lists with
    assert {line.partition("=")[0] for line in variables} <= {
        "PATH",
        "A",
        "LANG",
        "TERM",
        "PWD",
        "SANDBOX_AGENT_COOKIE",
    }
    assert "A=b=c" in variables


async def test_what_python_ignores_the_program_does_not(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("sh", ("-c", "grep SigIgn /proc/self/status"), tty=Size()))
        await process.exited.wait()
    assert int(output(process).split()[-1], 16) == 0


async def test_ctrl_c_reaches_the_job_in_the_foreground_and_not_the_shell(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(SHELL)
        await until(process, b"$ ")
        await process.write(b"sh -c 'echo pid $$; exec sleep 60'\n")
        pid = int((await matching(process, rb"pid (\d+)\r\n"))[1])
        await process.write(b"\x03")
        await process.write(b"echo code $?\n")
        await until(process, b"code 130")
        assert not alive(pid)
        await process.write(b"sh -c 'echo pid $$ again; exec sleep 60'\n")
        pid = int((await matching(process, rb"pid (\d+) again\r\n"))[1])
        await process.signal(signal.SIGINT)  # the same by request
        await process.write(b"echo once $?; exit 4\n")
        await until(process, b"once 130")
        await process.exited.wait()
    assert process.status == ExitStatus(4, None)


async def test_a_program_sees_the_size_and_is_told_of_a_change(processes: Processes) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.02; done"
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("sh", ("-c", script), tty=Size(30, 100)))
        await until(process, b"30 100\r\n")
        await process.resize(Size(43, 132))
        await until(process, b"43 132\r\n")
        await process.stop(signal.SIGKILL, WITHIN)
        with pytest.raises(ProcessTrouble, match="PTY resize handle unavailable"):
            await process.resize(Size())
    with pytest.raises(InvalidRequest):
        Size(0, 80).checked()


async def test_pipes_have_no_size(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("cat"))
        with pytest.raises(ProcessTrouble, match="process is not running in tty mode"):
            await process.resize(Size())


async def test_the_end_of_input_is_the_key_for_it(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("cat", tty=Size()))
        await process.write(b"hello\n")
        await until(process, b"hello\r\nhello\r\n")
        await process.end_input()
        await process.exited.wait()
    assert process.status == ExitStatus(0, None)
    assert output(process) == b"hello\r\nhello\r\n"


async def test_what_cannot_be_started_says_why(processes: Processes) -> None:
    for spec in (Spec("no-such-program", tty=Size()), Spec("true", cwd="/no/such", tty=Size())):
        with pytest.raises(
            StartFailed, match=r"^failed to spawn tty process: No such file or directory \(os error 2\)$"
        ):
            await processes.create(spec)
    assert processes.all() == []


async def test_all_that_a_terminal_shows_is_in_the_log(processes: Processes) -> None:
    script = "import sys; [print(n) for n in range(200000)]"
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec(sys.executable, ("-I", "-S", "-c", script), tty=Size()))
        await process.exited.wait()
    assert output(process) == b"".join(b"%d\r\n" % number for number in range(200_000))


async def test_the_python_prompt_answers(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        python = Spec(sys.executable, ("-q", "-I"), env={"PYTHON_BASIC_REPL": "1"}, tty=Size())
        process = await processes.create(python)
        await until(process, b">>> ")
        await process.write(b"6 * 7\n")
        await until(process, b"42\r\n>>> ")
        await process.write("print('é' * 3)\n".encode())
        await until(process, "ééé".encode())
        await process.end_input()
        await process.exited.wait()
    assert process.status == ExitStatus(0, None)


async def test_a_kill_takes_what_ignores_the_hang_up(processes: Processes) -> None:
    script = "trap '' HUP TERM; (setsid sh -c \"trap '' HUP; echo escaped $$; sleep 60\" &); sleep 60"
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("sh", ("-c", script), tty=Size()))
        escaped = int((await matching(process, rb"escaped (\d+)\r\n"))[1])
        await process.stop(signal.SIGKILL, WITHIN)
    assert process.state == "exited"
    assert not alive(escaped)


async def test_a_terminal_that_nobody_uses_is_ended(processes: Processes) -> None:
    processes.config = ProcessConfig(terminal_idle_ms=150)
    with trio.fail_after(WITHIN):
        looked_at = await processes.create(Spec("cat", tty=Size()))
        looked_at.viewers.enter()
        pipe = await processes.create(Spec("cat"))
        stubborn = await processes.create(Spec("sh", ("-c", "trap '' HUP; while :; do sleep 0.1; done"), tty=Size()))
        idle = await processes.create(Spec("cat", tty=Size()))
        began = trio.current_time()
        await idle.exited.wait()
        assert trio.current_time() - began >= 0.1
        await stubborn.exited.wait()
    assert (idle.ended_by, idle.status) == ("idle", ExitStatus(None, signal.SIGHUP))
    assert (stubborn.ended_by, stubborn.status) == ("idle", ExitStatus(None, signal.SIGKILL))
    assert (looked_at.state, pipe.state) == ("running", "running")


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except ProcessTrouble:
        return True
    return False


async def test_viewers_are_counted_and_one_may_take_over(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        viewers = (await processes.create(Spec("cat", tty=Size()))).viewers
        ann, bob = viewers.enter(), viewers.enter()
        assert all(map(viewers.may_write, (ann, bob)))
        viewers.take_over(bob)
        assert (viewers.may_write(ann), viewers.may_write(bob)) == (False, True)
        viewers.release(ann)  # it is not ann's to give
        assert not viewers.may_write(ann)
        viewers.take_over(ann)
        assert (viewers.may_write(ann), viewers.may_write(bob)) == (True, False)
        viewers.leave(ann)
        assert viewers.may_write(bob)
        while not refused(viewers.enter):
            assert len(viewers) < 100
        viewers.leave(bob)
        assert not refused(viewers.enter)
