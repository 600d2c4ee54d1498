"""Processes that stay: their states, signals, input, restarts, and their ends with all of their trees."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from actors.processes.watching import output, until
from sandbox_actors.errors import ShuttingDown
from sandbox_actors.processes import ProcessConfig, ProcessNotFound, Size, Spec
from sandbox_actors.processes.errors import InputBroken, InputFull, NotRunning, ProcessTrouble, StartFailed
from sandbox_supervisor import PERMANENT, TRANSIENT, ExitStatus, RestartPolicy
from support.processes import alive, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.processes import Process, Processes
    from sandbox_supervisor import Node

WITHIN = 15

STUBBORN = "trap '' TERM HUP INT; "
"""What ignores all but SIGKILL."""

DOUBLE_FORK = "(setsid sh -c \"trap '' TERM HUP; echo $$; while :; do sleep 0.1; done\" &)"
"""What leaves the group, the session and the parent, and ignores all but SIGKILL."""


def sh(script: str, **more: object) -> Spec:
    return replace(Spec("sh", ("-c", script)), **more)  # type: ignore[arg-type]  # the fields of Spec


async def kill(process: Process) -> None:
    await process.stop(signal.SIGKILL, WITHIN)
    assert process.state == "exited"


async def test_a_process_runs_writes_and_exits(processes: Processes, node: Node) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("echo out; echo err >&2; read line; echo $line; exit 5"))
        assert (process.id, process.state) == ("proc_1", "running")
        pid = process.pid
        assert pid is not None
        assert alive(pid)
        assert [child.details["pid"] for child in node.snapshot().children] == [pid]
        await until(process, b"out\n")
        await process.write(b"word\n")
        await process.exited.wait()
    assert str(process.state) == "exited"
    assert process.status == ExitStatus(5, None)
    assert process.pid is None
    assert (output(process, "stdout"), output(process, "stderr")) == (b"out\nword\n", b"err\n")
    assert process.created_ms <= process.exited_ms


async def test_numbers_are_spent_on_processes_alone(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        first = await processes.create(Spec("true"))
        with pytest.raises(StartFailed):
            await processes.create(Spec("no-such-program"))
        second = await processes.create(Spec("true"))
    assert [process.id for process in processes.all()] == [first.id, second.id] == ["proc_1", "proc_2"]


async def test_there_is_no_more_of_one_that_was_deleted(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("cat"))
        with pytest.raises(ProcessTrouble, match="still running; stop or kill it before delete"):
            processes.delete(process.id)
        await process.end_input()
        await process.exited.wait()
        processes.delete(process.id)
        for gone in (process.id, "nope"):
            with pytest.raises(ProcessNotFound):
                processes.delete(gone)


async def test_too_many_are_refused_and_those_that_have_exited_do_not_count(processes: Processes) -> None:
    processes.config = ProcessConfig(max_concurrent_processes=2, max_terminals=1)
    with trio.fail_after(WITHIN):
        first = await processes.create(Spec("cat", tty=Size()))
        with pytest.raises(ProcessTrouble, match=r"max terminal limit reached \(1\)"):
            await processes.create(Spec("cat", tty=Size()))
        await processes.create(Spec("cat"))
        with pytest.raises(ProcessTrouble, match=r"max concurrent process limit reached \(2\)"):
            await processes.create(Spec("cat"))
        await kill(first)
        await processes.create(Spec("cat"))


async def test_starts_at_the_same_time_do_not_pass_the_limit(processes: Processes) -> None:
    processes.config = ProcessConfig(max_concurrent_processes=3)
    refused: list[bool] = []

    async def create() -> None:
        try:
            await processes.create(Spec("cat"))
        except ProcessTrouble:
            refused.append(True)

    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(create)
    assert (len(refused), len(processes.all())) == (5, 3)


async def test_of_those_that_have_exited_the_latest_are_kept(processes: Processes) -> None:
    processes.config = ProcessConfig(max_exited_processes=2)
    with trio.fail_after(WITHIN):
        living = await processes.create(Spec("cat"))
        for _ in range(4):
            process = await processes.create(Spec("true"))
            await process.exited.wait()
        await eventually(lambda: len(processes.all()) == 3)
        assert [process.id for process in processes.all()] == [living.id, "proc_4", "proc_5"]
        processes.config = ProcessConfig(max_exited_log_bytes=1500)
        for _ in range(3):
            process = await processes.create(sh("head -c 1000 /dev/zero"))
            await process.exited.wait()
        await eventually(lambda: len(processes.all()) == 2)
        assert [process.id for process in processes.all()] == [living.id, process.id]


async def test_stop_reaches_the_whole_tree_and_gives_each_the_chance_to_end_well(processes: Processes) -> None:
    helper = "trap 'echo escaped >&2; exit' TERM; echo ready; while :; do sleep 0.05; done"
    script = f"setsid sh -c \"{helper}\" & trap 'echo main; wait; exit 7' TERM; while :; do sleep 0.05; done"
    with trio.fail_after(WITHIN):
        process = await processes.create(sh(script))
        await until(process, b"ready\n")
        await process.stop(signal.SIGTERM, WITHIN)
    assert process.status == ExitStatus(7, None)
    assert b"main\n" in output(process)
    assert b"escaped\n" in output(process, "stderr")


async def test_stop_reaches_one_that_is_held_up(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("echo ready; kill -STOP $$; exit 1"))
        await until(process, b"ready\n")
        await process.stop(signal.SIGTERM, WITHIN)
    assert process.status == ExitStatus(None, signal.SIGTERM)


async def test_a_stop_waits_no_longer_than_it_is_told_and_kill_ends_all(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh(f"{STUBBORN}{DOUBLE_FORK}; while :; do sleep 0.05; done"))
        escaped = int(await until(process, b"\n"))
        began = time.monotonic()
        await process.stop(signal.SIGTERM, 0.1)
        assert 0.1 <= time.monotonic() - began < 2
        assert process.state == "running"
        await process.stop(signal.SIGTERM, 0)
        await kill(process)
    assert process.status == ExitStatus(None, signal.SIGKILL)
    assert not alive(escaped)


async def test_a_stop_may_end_in_a_kill(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh(f"{STUBBORN}echo ready; while :; do sleep 0.05; done"))
        await until(process, b"ready")
        await process.stop(signal.SIGTERM, WITHIN, kill_after=0.1)
    assert process.status == ExitStatus(None, signal.SIGKILL)
    await process.stop(signal.SIGTERM, WITHIN)  # there is nothing to be done any more


async def test_what_the_first_process_leaves_behind_ends_with_it(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh(f"{DOUBLE_FORK}; sleep 60 & read line; exit 0"))
        escaped = int(await until(process, b"\n"))
        await process.write(b"go\n")
        await process.exited.wait()
    assert process.status == ExitStatus(0, None)
    assert not alive(escaped)


async def test_a_signal_is_for_the_group_and_is_not_the_end(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("trap 'echo got it' USR1; echo ready; while :; do sleep 0.05; done"))
        await until(process, b"ready\n")
        await process.signal(signal.SIGUSR1)
        await until(process, b"got it\n")
        assert process.state == "running"
        await kill(process)
        with pytest.raises(NotRunning):
            await process.signal(signal.SIGUSR1)


async def test_input_comes_in_order_and_ends_when_told(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("sha256sum"))
        for number in range(100):
            await process.write(b"%d\n" % number * 1000)
        await process.end_input()
        with pytest.raises(ProcessTrouble, match="does not accept stdin"):
            await process.write(b"more")
        await process.exited.wait()
        expected = await processes.run(
            Spec("sha256sum", stdin=b"".join(b"%d\n" % number * 1000 for number in range(100))), timeout=5, limit=1000
        )
    assert output(process).decode() == expected.stdout.text


async def test_input_that_nobody_reads_is_bounded_and_refused_at_once(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("echo ready; sleep 60"))
        await until(process, b"ready\n")
        taken = 0
        refused = False
        while not refused:
            try:
                await process.write(bytes(50_000))
                taken += 50_000
            except InputFull:
                refused = True
        assert 1 << 20 <= taken < 2 << 20
        await kill(process)
        with pytest.raises(NotRunning):
            await process.write(b"x")


async def test_input_to_a_process_that_has_closed_its_own_is_refused(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("exec <&-; echo ready; sleep 60"))
        await until(process, b"ready\n")
        for _ in range(2):
            with pytest.raises(InputBroken, match=r"failed to write stdin: Broken pipe \(os error 32\)"):
                await process.write(b"x")


async def test_the_whole_input_may_be_given_at_the_start(processes: Processes) -> None:
    big = b"0123456789" * 200_000
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("wc", ("-c",), stdin=big))
        await process.exited.wait()
    assert output(process).strip() == b"2000000"


async def test_its_time_over_its_whole_tree_is_ended(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh(f"{DOUBLE_FORK}; sleep 60", timeout=0.3))
        escaped = int(await until(process, b"\n"))
        await process.exited.wait()
    assert (process.ended_by, process.status) == ("timeout", ExitStatus(None, signal.SIGKILL))
    assert not alive(escaped)


QUICKLY = RestartPolicy(TRANSIENT, intensity=3, backoff=0.001)


async def test_one_that_fails_is_started_again_until_it_fails_too_often(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("sleep 60 & echo $!; exit 3", restart=QUICKLY))
        await process.exited.wait()
    pids = [int(line) for line in output(process).split()]
    assert (process.runs, process.status, len(set(pids))) == (4, ExitStatus(3, None), 4)
    assert not any(map(alive, pids))


async def test_one_that_ends_well_is_not_started_again_unless_it_is_to_run_for_ever(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        process = await processes.create(Spec("true", restart=QUICKLY))
        await process.exited.wait()
        assert process.runs == 1
        process = await processes.create(Spec("true", restart=replace(QUICKLY, restart=PERMANENT)))
        await process.exited.wait()
        assert process.runs == 4


async def test_one_that_was_stopped_is_not_started_again(processes: Processes) -> None:
    forever = RestartPolicy(PERMANENT, backoff=0.001)
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("echo begun; read line; exit 1", restart=forever))
        await until(process, b"begun\n")
        await process.write(b"x\n")
        await until(process, b"begun\nbegun\n")
        await process.stop(signal.SIGTERM, WITHIN)
        assert (process.state, process.runs) == ("exited", 2)

        # Also not while it waits for its next run.
        process = await processes.create(sh("exit 1", restart=RestartPolicy(PERMANENT, backoff=60, backoff_limit=60)))
        await eventually(lambda: process.state == "restarting")
        with pytest.raises(NotRunning):
            await process.write(b"x")
        await process.stop(signal.SIGTERM, WITHIN)
        assert (process.state, process.runs) == ("exited", 1)


async def test_every_process_ends_with_the_daemon_the_stubborn_ones_by_force(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        good = await processes.create(sh("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"))
        bad = await processes.create(sh(f"{STUBBORN}{DOUBLE_FORK}; while :; do sleep 0.05; done"))
        await until(good, b"ready")
        escaped = int(await until(bad, b"\n"))
        began = time.monotonic()
        await processes.close()
        assert time.monotonic() - began < 4
        with pytest.raises(ShuttingDown):
            await processes.create(Spec("true"))
    assert (good.status, bad.status) == (ExitStatus(0, None), ExitStatus(None, signal.SIGKILL))
    assert b"bye\n" in output(good)
    assert not alive(escaped)


async def test_who_asks_for_a_process_and_leaves_does_not_leave_one_without_a_name(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        with trio.move_on_after(0.0001):
            await processes.create(Spec("cat"))
        assert [process.state for process in processes.all()] in ([], ["running"])


async def test_output_that_floods_is_kept_at_its_end_and_holds_up_nobody(processes: Processes) -> None:
    processes.config = ProcessConfig(max_log_bytes_per_process=1 << 20)
    with trio.fail_after(WITHIN):
        process = await processes.create(sh("yes | head -c 50000000; echo; echo done"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.exited.wait)
        assert process.log.size == 1 << 20
        assert output(process).endswith(b"y\n\ndone\n")
        assert process.log.after(0)[0].offset == 50_000_000 + len("\ndone\n") - (1 << 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start processes of others")
async def test_a_process_of_another_user_is_theirs_and_ends_as_every_other(
    processes: Processes, tmp_path: Path
) -> None:
    with trio.fail_after(WITHIN):
        result = await processes.run(
            Spec("sh", ("-c", "id -un; id -Gn; echo $HOME $USER"), user="nobody", cwd="/"), timeout=5, limit=1000
        )
        name, groups, environment = result.stdout.text.splitlines()
        assert (name, groups.split()[0], environment.split()[-1]) == ("nobody", "nogroup", "nobody")
        process = await processes.create(sh(f"{STUBBORN}{DOUBLE_FORK}; while :; do sleep 0.05; done", user="nobody"))
        escaped = int(await until(process, b"\n"))
        await kill(process)
        assert not alive(escaped)
        with pytest.raises(Exception, match=re.escape("there is no user 'nobody-at-all'")):
            await processes.create(Spec("true", user="nobody-at-all"))
