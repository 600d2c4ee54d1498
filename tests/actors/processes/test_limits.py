"""Limits: what a process may use, by the kernel's limits for each process and by control groups for all of a tree."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.processes import Cgroups, Limits, Processes, Size, Spec, open_processes
from sandbox_supervisor import ExitStatus, Node, open_reaper, pids
from support.processes import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.processes import RunResult

WITHIN = 15


async def run(processes: Processes, *argv: str, limits: Limits) -> RunResult:
    with trio.fail_after(WITHIN):
        return await processes.run(Spec(argv[0], argv[1:], limits=limits), timeout=WITHIN, limit=10_000)


async def test_limits_are_those_of_the_program_and_told(processes: Processes) -> None:
    limits = Limits(cpu_seconds=5, memory_bytes=1 << 30, file_bytes=1 << 20, open_files=33)
    result = await run(processes, "sh", "-c", "ulimit -t; ulimit -d; ulimit -f; ulimit -n", limits=limits)
    assert result.stdout.text.split() == ["5", str(1 << 20), "2048", "33"]
    assert result.held == {name: ["rlimit"] for name in ("cpu_seconds", "memory_bytes", "file_bytes", "open_files")}


async def test_a_limit_that_nothing_holds_is_told_as_such(processes: Processes) -> None:
    result = await run(processes, "true", limits=Limits(processes=1000, cpus=0.5))
    assert result.held == {"processes": [] if os.geteuid() == 0 else ["rlimit"], "cpus": []}


async def test_a_limit_above_what_we_may_give_is_what_we_may_give(processes: Processes) -> None:
    result = await run(processes, "sh", "-c", "ulimit -n", limits=Limits(open_files=1 << 40))
    assert result.status == ExitStatus(0, None)


async def test_who_takes_too_much_memory_is_refused_it(processes: Processes) -> None:
    script = "try: bytearray(1 << 28)\nexcept MemoryError: print('refused')\nelse: print('given')"
    program = (sys.executable, "-I", "-S", "-c", script)
    assert (await run(processes, *program, limits=Limits(memory_bytes=1 << 27))).stdout.text == "refused\n"
    assert (await run(processes, *program, limits=Limits(memory_bytes=1 << 29))).stdout.text == "given\n"


async def test_who_takes_too_much_time_is_ended(processes: Processes) -> None:
    result = await run(processes, "sh", "-c", "while :; do :; done", limits=Limits(cpu_seconds=1))
    assert result.status == ExitStatus(None, signal.SIGXCPU)
    assert not result.timed_out


async def test_who_writes_too_large_a_file_is_ended(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    script = f"exec head -c 100000 /dev/zero > {file}"
    result = await run(processes, "sh", "-c", script, limits=Limits(file_bytes=50_000))
    assert result.status == ExitStatus(None, signal.SIGXFSZ)
    assert file.stat().st_size == 50_000


async def test_a_terminal_has_its_limits_too(processes: Processes) -> None:
    with trio.fail_after(WITHIN):
        spec = Spec("sh", ("-c", "ulimit -n; tty >&2"), tty=Size(), limits=Limits(open_files=40))
        process = await processes.create(spec)
        await process.exited.wait()
    assert b"".join(entry.data for entry in process.log.after(0)).startswith(b"40\r\n/dev/pts/")


async def test_what_cannot_be_started_with_limits_says_why(processes: Processes) -> None:
    with pytest.raises(Exception, match=r"^failed to spawn process: No such file or directory \(os error 2\)$"):
        await run(processes, "no-such-program", limits=Limits(open_files=40))


def process_group() -> Cgroups | None:
    """Where groups of processes may be made; None where they may not. Others than for their number are left alone."""
    parent = Cgroups.detect().parents.get("pids")
    if parent is None:
        return None
    probe = parent / f"sandbox-agent-probe-{uuid.uuid4().hex}"
    with suppress(OSError):
        probe.mkdir()
        probe.rmdir()
        return Cgroups({"pids": parent}, unified=Cgroups.detect().unified)
    return None


async def test_a_fork_bomb_stays_within_its_limit_and_is_gone_at_the_end(node: Node) -> None:
    cgroups = process_group()
    if cgroups is None:
        pytest.skip("no control group may be made here")
    bomb = "bomb() { bomb | bomb & }; bomb; echo begun; while :; do sleep 1; done"
    name = uuid.uuid4().hex
    with trio.fail_after(WITHIN):
        async with (
            open_reaper() as reaper,
            open_processes(
                dict(os.environ), owner="tests", run=name, reaper=reaper, node=node, cgroups=cgroups
            ) as processes,
        ):
            process = await processes.create(Spec("bash", ("-c", bomb), limits=Limits(processes=40)))
            assert process.held == {"processes": ["cgroup"] if os.geteuid() == 0 else ["rlimit", "cgroup"]}
            (place,) = cgroups.parents["pids"].glob(f"sandbox-agent-{name}-*")
            await eventually(lambda: (place / "pids.events").read_text().split()[1] != "0")
            assert int((place / "pids.current").read_text()) <= 40
            await process.stop(signal.SIGKILL, WITHIN)
            assert process.state == "exited"
            assert pids(lambda cookie: cookie.run == name) == []
            await eventually(lambda: not place.exists())


def group_files(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")


def test_groups_are_found_where_version_1_has_them(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    group_files(mount / "memory" / "inner", "cgroup.procs")
    group_files(mount / "pids", "cgroup.procs")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("4:memory:/outer/inner\n3:cpuset:/\n2:cpu,cpuacct:/gone\n1:pids:/\n0::/x\n")
    (proc / "mountinfo").write_text(
        f"30 24 0:26 /outer {mount}/memory rw - cgroup cgroup rw,memory\n"
        f"31 24 0:27 / {mount}/pids rw,nosuid - cgroup cgroup rw,pids\n"
        f"32 24 0:28 / {mount}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        f"33 24 0:29 / {mount}/unified rw - cgroup2 cgroup2 rw\n"
        f"34 24 0:30 / / rw - ext4 /dev/x rw\n"
    )
    found = Cgroups.detect(proc)
    assert found == Cgroups({"memory": mount / "memory" / "inner", "pids": mount / "pids"})
    group = found.make("one", {"memory": 1000, "pids": 7, "cpu": 0.5})
    assert group is not None
    assert group.controllers == ("memory", "pids")
    assert (mount / "pids" / "one" / "pids.max").read_text() == "7"
    assert (mount / "memory" / "inner" / "one" / "memory.limit_in_bytes").read_text() == "1000"
    assert group.doors == [f"{place}/one/cgroup.procs" for place in (mount / "memory" / "inner", mount / "pids")]


def test_groups_are_found_where_version_2_hands_its_controllers_on(tmp_path: Path) -> None:
    ours = tmp_path / "mount" / "ours"
    group_files(ours, "cgroup.procs", "cgroup.subtree_control")
    (ours / "cgroup.controllers").write_text("cpu memory pids\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("0::/ours\n")
    (proc / "mountinfo").write_text(f"30 24 0:26 / {tmp_path}/mount rw - cgroup2 cgroup rw,nsdelegate\n")
    # A file takes the last word alone, which is as good as a kernel that has handed on only one.
    assert Cgroups.detect(proc) == Cgroups({}, unified=False)
    (ours / "cgroup.subtree_control").unlink()
    (ours / "cgroup.subtree_control").mkdir()
    assert Cgroups.detect(proc) == Cgroups.none()


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo"])
def test_without_the_files_of_the_kernel_there_are_no_groups(tmp_path: Path, missing: str) -> None:
    (tmp_path / ({"cgroup": "mountinfo", "mountinfo": "cgroup"}[missing])).write_text("")
    assert Cgroups.detect(tmp_path) == Cgroups.none()


def test_version_2_is_told_its_limits_in_its_own_words(tmp_path: Path) -> None:
    cgroups = Cgroups({"memory": tmp_path, "pids": tmp_path, "cpu": tmp_path}, unified=True)
    group = cgroups.make("one", {"memory": 1 << 20, "pids": 5, "cpu": 1.5})
    assert group is not None
    assert group.doors == [f"{tmp_path}/one/cgroup.procs"]
    told = {file.name: file.read_text() for file in (tmp_path / "one").iterdir()}
    assert told == {"memory.max": "1048576", "pids.max": "5", "cpu.max": "150000 100000"}


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Cgroups({"pids": tmp_path / "file"}).make("one", {"pids": 5}) is None
    assert Cgroups.none().make("one", {"pids": 5}) is None
