"""Processes that behave as badly as they can: the daemon stays prompt meanwhile, and nothing is left of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from support.daemon import running
from support.process_client import ProcessClient
from support.processes import alive, eventually, processes_with, zombies_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import Daemon

WITHIN = 40
HEALTHY_WITHIN = 0.25
PROBES = 60

DOUBLE_FORK = "(setsid sh -c \"trap '' TERM HUP INT; echo $$; while :; do sleep 0.1; done\" &)"
STUBBORN = f"trap '' TERM HUP INT; {DOUBLE_FORK}; while :; do sleep 0.1; done"
FLOOD = "yes & yes >&2 & wait"
FORKS = "while :; do /bin/true & wait; done"
"""Always busy with new processes, though never many; how one that grows is held is tested with the limits."""


async def probed(daemon: Daemon) -> list[float]:
    """How long requests for its health took, in seconds, ordered."""
    took: list[float] = []
    async with httpx.AsyncClient(headers=daemon.headers, trust_env=False) as client:
        for _ in range(PROBES):
            began = time.monotonic()
            assert (await client.get(f"{daemon.url}/v1/health")).is_success
            took.append(time.monotonic() - began)
            await trio.sleep(0.01)  # as somebody would who looks at it now and then
    return sorted(took)


async def stubborn_tree(app: ProcessClient, *, tty: bool = False) -> tuple[str, int]:
    """A process whose tree ignores every signal that can be ignored, and the pid of the one that has left it."""
    id = await app.create("sh", "-c", STUBBORN, tty=tty)
    return id, int((await app.until(id, b"\n")).split()[0])


@pytest.mark.alone
async def test_the_daemon_is_prompt_whatever_runs_and_nothing_is_left_after_delete(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path) as daemon:
            app = ProcessClient(daemon)
            escaped = [await stubborn_tree(app, tty=tty) for tty in (False, True)]
            for script in (FLOOD, FORKS):
                await app.create("sh", "-c", script)
            await app.create("sh", "-c", "exec yes", tty=True)
            took = await probed(daemon)
            print(f"half within {took[len(took) // 2]:.3f} s, all within {took[-1]:.3f} s")
            assert took[int(len(took) * 0.99)] < HEALTHY_WITHIN
            listed = (await app.get())["processes"]
            assert [record["status"] for record in listed] == ["running"] * 5
            async with trio.open_nursery() as nursery:
                for record in listed:
                    nursery.start_soon(app.post, f"/{record['id']}/kill?waitMs=10000")
            for record in listed:
                assert (await app.ask("DELETE", f"/{record['id']}")).status == 204
            assert [pid for _, pid in escaped if alive(pid)] == []
            assert len(daemon.processes()) == 2, "the daemon and its sentinel"
            assert zombies_of(daemon.pid) == []
            assert (await app.get())["processes"] == []


BOMB = "bomb() { bomb 2>/dev/null | bomb 2>/dev/null & }; bomb; while :; do sleep 1; done"
HOG = "taken = []\nwhile True:\n try: taken.append(bytearray(1 << 20))\n except MemoryError: pass"
HOGS = f"for one in 1 2 3; do python3 -c '{HOG}' & done; wait"
"""Each takes all that it gets, and then tries again."""


@pytest.mark.alone
async def test_the_daemon_is_prompt_beside_a_fork_bomb_and_memory_hogs_within_their_limits(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path) as daemon:
            app = ProcessClient(daemon)
            hogs = await app.create("sh", "-c", HOGS, limits={"memoryBytes": 192 << 20})
            bomb = await app.create("bash", "-c", BOMB, limits={"processes": 40})
            if not (await app.get(f"/{bomb}"))["limits"]["processes"]["heldBy"]:
                # Root, and no control groups: another user is held by the kernel's limit. The hogs go on.
                assert (await app.ask("POST", f"/{bomb}/kill?waitMs=10000")).status == 200
                bomb = await app.create("bash", "-c", BOMB, limits={"processes": 40}, user="nobody", cwd="/")
            took = await probed(daemon)
            print(f"half within {took[len(took) // 2]:.3f} s, all within {took[-1]:.3f} s")
            assert took[int(len(took) * 0.99)] < HEALTHY_WITHIN
            for id in (bomb, hogs):
                await app.post(f"/{id}/kill?waitMs=10000")
                assert (await app.ask("DELETE", f"/{id}")).status == 204
            assert len(daemon.processes()) == 2, "the daemon and its sentinel"
            assert zombies_of(daemon.pid) == []


async def test_a_stop_of_the_daemon_leaves_no_process(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path) as daemon:
            app = ProcessClient(daemon)
            for tty in (False, True):
                await stubborn_tree(app, tty=tty)
                await app.create("cat", tty=tty)
            assert len(daemon.processes()) >= 2 + 6
            seconds = await daemon.stop()
            assert daemon.processes() == []
            assert seconds < 6


async def test_a_kill_of_the_daemon_leaves_no_process(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path) as daemon:
            app = ProcessClient(daemon)
            for tty in (False, True):
                await stubborn_tree(app, tty=tty)
                await app.create("cat", tty=tty)
            mark = f"A_RUN={tmp_path}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_until_cut, app, mark)
                await eventually(lambda: processes_with(mark))
                await daemon.kill()
            await eventually(lambda: not daemon.processes())


async def run_until_cut(app: ProcessClient, mark: str) -> None:
    name, _, value = mark.partition("=")
    try:
        await app.run("sh", "-c", STUBBORN, env={name: value})
    except AssertionError:
        return  # there is no answer to this one
    raise AssertionError("a daemon that was killed has answered")


async def test_commands_see_nothing_of_the_daemons_own_settings(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path, SANDBOX_AGENT_LOG_LEVEL="debug", npm_config_x="x", MINE="yes") as daemon:
            app = ProcessClient(daemon)
            ids = [await app.create("env"), await app.create("env", tty=True)]
            for id in ids:
                await app.exited(id)
            texts = [(await app.output(id)).decode() for id in ids] + [(await app.run("env"))["stdout"]]
            for text in texts:
                names = {line.partition("=")[0] for line in text.splitlines()}
                ours = {name for name in names if name.startswith(("SANDBOX_AGENT_", "npm_"))}
                assert ours == {"SANDBOX_AGENT_COOKIE"}
                assert "MINE=yes" in text
                assert daemon.token not in text
