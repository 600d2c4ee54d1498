"""Installs by several processes, by processes that are killed, and on a disk that is full."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from actors.installer.yard import OWNER, failing
from sandbox_actors.catalog.platforms import registry_platform
from support.processes import eventually, processes_with
from support.registries import SHELL_AGENT, tar_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from actors.installer.yard import Agents, Definition, Yard
    from support.registries import Registries

INSTALLING = Path(__file__).with_name("installing.py")


def command(yard: Yard, agents: Agents, run: str, *, reinstall: bool = False) -> list[str]:
    """The command of a process that installs the fox."""
    told: dict[str, Any] = {
        "agents": agents,
        "launchers": str(yard.launchers),
        "environment": yard.environment,
        "owner": OWNER,
        "run": run,
        "id": "fox",
        "reinstall": reinstall,
    }
    return [sys.executable, str(INSTALLING), json.dumps(told)]


@pytest.fixture
def fox(registries: Registries) -> Agents:
    """An agent with every step that there is for npm."""
    spec = registries.npm_agent("fox", "1.0.0")
    return {"fox": {"distribution": {"npx": {"package": spec}}, "after_install": ["node", "--version"]}}


async def test_two_processes_at_once_make_one_install(yard: Yard, registries: Registries, fox: Agents) -> None:
    said: list[str] = []

    async def install(run: str) -> None:
        done = await trio.run_process(command(yard, fox, run), capture_stdout=True)
        said.append(done.stdout.decode().split()[-1])

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(install, "one")
            nursery.start_soon(install, "two")
    assert sorted(said) == ["installed", "there"]
    assert registries.asked.count("/npm/fox/-/fox-1.0.0.tgz") == 1
    assert len(yard.generations("fox")) == 1


@pytest.mark.parametrize("installed_before", [False, True])
async def test_a_process_that_is_killed_leaves_no_broken_agent_and_no_child(
    yard: Yard, fox: Agents, installed_before: bool
) -> None:
    with trio.fail_after(120):
        if installed_before:
            await trio.run_process(command(yard, fox, "before"), capture_stdout=True)
        launcher = yard.launchers / "fox-acp"
        for step in ("checking", "installing", "finishing", "verifying", "installed"):
            run = f"killed-at-{step}"
            await run_until(command(yard, fox, run, reinstall=True), step)
            await eventually(partial(nobody, run))
            if installed_before or launcher.exists():
                assert (await yard.answer("fox", **fox))["name"] == "node", step
        async with yard.installer(fox) as installer:
            await installer.install("fox", reinstall=True)
        assert (await yard.answer("fox", **fox))["name"] == "node"
        assert len(yard.generations("fox")) == 2


def nobody(run: str) -> bool:
    return not processes_with(f"{OWNER}/{run}/")


async def run_until(argv: list[str], word: str) -> None:
    """Run a process until it says a word, and kill it there and then."""
    process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with process.stdout:
        text = b""
        while word.encode() not in text.split():
            chunk = await process.stdout.receive_some()
            assert chunk, text
            text += chunk
        process.kill()
        await process.wait()


@contextmanager
def small_disk(path: Path) -> Generator[None]:
    """A file system of 2 MB; skips the test where we may not mount one."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if (done := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_a_full_disk_is_told_and_what_was_installed_works(yard: Yard, registries: Registries) -> None:
    def binary(name: str, content: bytes) -> Definition:
        build = {"archive": registries.file(name, content), "cmd": "dist/fox"}
        return {"distribution": {"binary": {registry_platform(): build}}}

    large = "x" * (4 << 20)
    small = {"fox": binary("small.tgz", tar_of({"dist/fox": SHELL_AGENT}))}
    fat: dict[str, Agents] = {
        "download": {"fox": binary("fat.tar", tar_of({"dist/fox": SHELL_AGENT, "large": large}, "w"))},
        "unpacking": {"fox": binary("fat.tgz", tar_of({"dist/fox": SHELL_AGENT, "large": large}))},
        "npm": {"fox": {"distribution": {"npx": {"package": registries.npm("fox", "1.0.0", {"large": large})}}}},
        "uv": {"fox": {"distribution": {"uvx": {"package": registries.wheel("fox", "1.0", f'large = "{large}"')}}}},
    }
    with small_disk(yard.home / "data"):
        async with yard.installer(small) as installer:
            await installer.install("fox")
        before = yard.generations("fox")
        for agents in fat.values():
            async with yard.installer(agents) as installer:
                failure = await failing(installer, "fox", reinstall=True)
            assert failure.reason == "disk_full"
            assert "the disk is full; free some space" in str(failure)
            assert yard.generations("fox") == before
            assert (await yard.answer("fox", **small))["name"] == "shell"
