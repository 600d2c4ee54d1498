"""One command from its start to its end: its output, its time, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.errors import InvalidRequest, ShuttingDown
from sandbox_actors.processes import ProcessConfig, Spec
from sandbox_actors.processes.errors import ProcessTrouble, StartFailed
from sandbox_supervisor import ExitStatus
from support.processes import alive, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.processes import Processes, RunResult

WITHIN = 15


async def run(processes: Processes, spec: Spec, *, timeout: float = WITHIN, limit: int = 1 << 20) -> RunResult:
    with trio.fail_after(WITHIN):
        return await processes.run(spec, timeout=timeout, limit=limit)


def sh(script: str, **more: object) -> Spec:
    return replace(Spec("sh", ("-c", script)), **more)  # type: ignore[arg-type]  # the fields of Spec


async def test_output_and_status_are_given_back(processes: Processes) -> None:
    result = await run(processes, sh("echo out; echo err >&2; exit 3"))
    assert (result.status, result.timed_out) == (ExitStatus(3, None), False)
    assert (result.stdout.text, result.stderr.text) == ("out\n", "err\n")
    assert not result.stdout.truncated
    assert 0 < result.seconds < WITHIN


async def test_without_input_there_is_none_and_with_some_that_is_all(processes: Processes) -> None:
    assert (await run(processes, sh("cat; echo end"))).stdout.text == "end\n"
    big = b"0123456789" * 300_000
    result = await run(processes, sh("cat", stdin=big), limit=len(big))
    assert result.stdout.text.encode() == big


async def test_input_that_nobody_reads_does_no_harm(processes: Processes) -> None:
    result = await run(processes, sh("exit 4", stdin=bytes(1 << 20)))
    assert result.status == ExitStatus(4, None)


async def test_the_environment_is_the_daemons_without_its_secrets(processes: Processes) -> None:
    processes._environment = {  # the daemon's own, as `open_processes` was given it
        "PATH": os.environ["PATH"],
        "INHERITED": "yes",
        "SANDBOX_AGENT_TOKEN": "secret",
        "npm_config_x": "no",
    }
    text = (await run(processes, Spec("env", env={"MINE": "1", "INHERITED": "changed"}))).stdout.text
    variables = dict(line.split("=", 1) for line in text.splitlines())
    assert set(variables) - {"SANDBOX_AGENT_COOKIE"} == {"PATH", "INHERITED", "MINE", "TERM"}
    assert (variables["INHERITED"], variables["TERM"]) == ("changed", "xterm-256color")


async def test_stderr_may_go_where_stdout_goes(processes: Processes) -> None:
    result = await run(processes, sh("echo 1; echo 2 >&2; echo 3", merged=True))
    assert (result.stdout.text, result.stderr.text) == ("1\n2\n3\n", "")


@pytest.mark.parametrize(
    ("text", "limit", "kept", "truncated"),
    [
        ("12345", 5, "12345", False),
        ("123456", 5, "12345", True),
        ("1", 0, "", True),
        ("aé", 2, "a", True),
        ("日本", 5, "日", True),
        ("日本", 6, "日本", False),
    ],
)
async def test_output_is_cut_between_characters(
    processes: Processes, text: str, limit: int, kept: str, truncated: bool
) -> None:
    result = await run(processes, Spec("printf", ("%s", text)), limit=limit)
    assert (result.stdout.text, result.stdout.truncated) == (kept, truncated)


async def test_bytes_that_are_no_text_are_replaced_also_at_the_end(processes: Processes) -> None:
    assert (await run(processes, sh(r"printf '\377a\303'"))).stdout.text == "\ufffda\ufffd"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (Spec("no-such-program"), "failed to spawn process: No such file or directory (os error 2)"),
        (Spec("true", cwd="/no/such/directory"), "failed to spawn process: No such file or directory (os error 2)"),
        (Spec("/dev/null"), "failed to spawn process: Permission denied (os error 13)"),
        (Spec("echo", ("a\0b",)), "failed to spawn process: nul byte found in provided data"),
    ],
)
async def test_what_cannot_be_started_says_why(processes: Processes, spec: Spec, reason: str) -> None:
    with pytest.raises(StartFailed, match=f"^{re.escape(reason)}$"):
        await run(processes, spec)


async def test_nothing_is_no_command(processes: Processes) -> None:
    with pytest.raises(InvalidRequest, match="command must not be empty"):
        await run(processes, Spec(" \t"))


async def test_the_time_bounds_the_call_and_ends_the_whole_tree(processes: Processes) -> None:
    began = time.monotonic()
    script = "trap '' TERM; sleep 60 & setsid sleep 60 & (setsid sh -c 'sleep 60 & sleep 60' &); echo begun; sleep 60"
    result = await run(processes, sh(script), timeout=0.5)
    assert time.monotonic() - began < 3
    assert (result.timed_out, result.status, result.stdout.text) == (True, ExitStatus(None, 9), "begun\n")


async def test_a_child_in_the_background_does_not_hold_up_the_answer_and_ends_with_it(processes: Processes) -> None:
    began = time.monotonic()
    result = await run(processes, sh("sleep 60 & setsid sleep 60 >/dev/null 2>&1 & echo $! begun"))
    assert time.monotonic() - began < 5
    pid, word = result.stdout.text.split()
    assert (result.status, word) == (ExitStatus(0, None), "begun")
    assert not alive(int(pid))


async def test_what_was_written_last_before_the_end_is_there(processes: Processes) -> None:
    for _ in range(10):
        result = await run(processes, sh("head -c 100000 /dev/zero & wait; kill -9 $$"))
        assert (len(result.stdout.text), result.status) == (100_000, ExitStatus(None, 9))


async def test_who_leaves_takes_the_tree_along(processes: Processes, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            spec = sh(f"setsid sleep 60 & echo $! > {mark}.new; mv {mark}.new {mark}; sleep 60")
            nursery.start_soon(run, processes, spec)
            await eventually(mark.exists)
            pid = int(mark.read_text())
            assert alive(pid)
            nursery.cancel_scope.cancel()
    assert not alive(pid)


async def test_calls_beyond_the_limit_wait_for_their_turn_within_their_time(
    processes: Processes, tmp_path: Path
) -> None:
    processes.config = ProcessConfig(max_concurrent_processes=1)
    go, begun = tmp_path / "go", tmp_path / "begun"
    answers: list[str] = []

    async def first() -> None:
        await run(processes, sh(f"touch {begun}; while ! test -e {go}; do sleep 0.01; done"))
        answers.append("first")

    async def second() -> None:
        await run(processes, Spec("true"))
        answers.append("second")

    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await eventually(begun.exists)
            with pytest.raises(ProcessTrouble, match="1 commands ran all the time"):
                await run(processes, Spec("true"), timeout=0.05)
            nursery.start_soon(second)
            go.touch()
    assert sorted(answers) == ["first", "second"]


async def test_calls_are_answered_when_the_daemon_ends(processes: Processes, tmp_path: Path) -> None:
    refused: list[bool] = []

    async def call() -> None:
        with pytest.raises(ShuttingDown):
            await run(processes, sh(f"touch {tmp_path}/begun; sleep 60"))
        refused.append(True)

    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await eventually((tmp_path / "begun").exists)
            await processes.close()
    assert refused == [True]
    with pytest.raises(ShuttingDown):
        await run(processes, Spec("true"))


async def test_many_at_once_get_each_its_own(processes: Processes) -> None:
    seen: dict[int, str] = {}

    async def one(number: int) -> None:
        script = f"import sys; sys.stdout.write('{number} ' * 20000)"
        seen[number] = (await run(processes, Spec(sys.executable, ("-I", "-S", "-c", script)))).stdout.text

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert seen == {number: f"{number} " * 20_000 for number in range(20)}
