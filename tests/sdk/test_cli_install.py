"""`sandbox-agent install-agent`, with registries of our own on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from sandbox_actors.catalog.sources import read_agents
from sandbox_agent import cli
from support.command import COMMAND, Finished, clean_environment, run
from support.processes import eventually, processes_with
from support.registries import SHELL_AGENT, Registries, open_registries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

WITHIN = 60

PLATFORMS = ("linux-x86_64", "linux-aarch64")


class Yard:
    """A data directory, an agents file in which nothing of ours is left to install, and registries."""

    def __init__(self, home: Path, registries: Registries) -> None:
        self.home = home
        self.registries = registries
        self.launchers = home / "data" / "bin" / "agent_processes"
        self.agents: dict[str, dict[str, Any]] = {id: {"command": ["/bin/true"]} for id in read_agents(None)}
        self.agents["mock"] = {}

    @property
    def mark(self) -> str:
        return f"HOME={self.home}/home"

    @property
    def env(self) -> dict[str, str]:
        agents = self.home / "agents.json"
        agents.write_text(json.dumps({"agents": self.agents}))
        (self.home / "home").mkdir(exist_ok=True)
        return {
            **self.registries.environment,
            "HOME": f"{self.home}/home",
            "npm_config_cache": f"{self.home}/npm-cache",
            "SANDBOX_AGENT_AGENTS": str(agents),
            "SANDBOX_AGENT_DATA_DIR": str(self.home / "data"),
        }

    def binary(self, id: str, source: str = SHELL_AGENT, **more: Any) -> None:
        """Define an agent that is one program to download."""
        url = self.registries.file(f"{id}/program", source.encode())
        way = {"archive": url, "cmd": "program", **more}
        self.agents[id] = {"version": "1.0", "distribution": {"binary": dict.fromkeys(PLATFORMS, way)}}

    def npm(self, id: str, package: str, **more: Any) -> None:
        """Define an agent of npm."""
        self.agents[id] = {"distribution": {"npx": {"package": package}}, **more}

    async def install(self, *arguments: str) -> Finished:
        return await run("install-agent", *arguments, env=self.env, within=WITHIN)

    @asynccontextmanager
    async def installing(self, *arguments: str) -> AsyncGenerator[trio.Process]:
        """The command at work; killed at the end if it still is."""
        process = await trio.lowlevel.open_process(
            [COMMAND, "install-agent", *arguments],
            env=clean_environment(self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdout is not None
                await process.stdout.aclose()


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncGenerator[Yard]:
    async with open_registries() as registries:
        yield Yard(tmp_path, registries)


async def test_an_agent_is_installed_once_with_its_steps_on_stderr(yard: Yard) -> None:
    yard.binary("tool")
    launcher = str(yard.launchers / "tool-acp")
    first = await yard.install("tool")
    assert first.code == 0
    assert [row.split() for row in first.stdout.splitlines()] == [
        ["INSTALLED", "VERSION", "SOURCE", "PATH"],
        ["agent_process", "1.0", "fallback", launcher],
    ]
    steps = [line.split()[:2] for line in first.stderr.splitlines()]
    assert ["tool:", "downloading"] in steps
    assert steps[-1] == ["tool:", "verifying"]
    assert await yard.install("tool") == (0, "tool is already installed\n", "")
    assert yard.registries.asked_for("tool/program") == 1
    told = await yard.install("tool", "--json")
    assert (told.code, json.loads(told.stdout)) == (0, {"alreadyInstalled": True, "artifacts": []})
    again = await yard.install("tool", "--reinstall", "--json")
    artifact = {"kind": "AgentProcess", "path": launcher, "source": "Fallback", "version": "1.0"}
    assert (again.code, json.loads(again.stdout)) == (0, {"alreadyInstalled": False, "artifacts": [artifact]})


async def test_the_mock_agent_is_built_in(yard: Yard) -> None:
    assert await yard.install("mock") == (0, "mock is already installed\n", "")
    again = json.loads((await yard.install("mock", "-r", "--json")).stdout)
    (artifact,) = again["artifacts"]
    assert (artifact["kind"], artifact["source"], artifact["version"]) == ("AgentProcess", "Builtin", "builtin")


async def test_an_install_that_fails_ends_with_the_tool_s_last_words_a_sentence_and_code_1(yard: Yard) -> None:
    yard.npm("gone", "gone@1.0.0")
    done = await yard.install("gone", "--json")
    *_, tail, last = done.stderr.splitlines()
    assert (done.code, done.stdout) == (1, "")
    assert last.startswith("sandbox-agent: install failed: gone: npm could not install gone@1.0.0")
    assert tail.startswith("  npm error")
    assert "E404" in done.stderr
    yard.binary("broken", "#!/bin/sh\nexit 3\n")
    done = await yard.install("broken")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("sandbox-agent: install failed: broken: ")
    assert list(yard.launchers.glob("*-acp")) == []


async def test_what_cannot_be_asked_for_is_told_in_a_sentence(yard: Yard) -> None:
    unknown = await yard.install("nope")
    assert (unknown.code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("sandbox-agent: unsupported agent: nope; known agents: claude, ")
    yard.npm("tool", "tool@1.0.0")
    version = await yard.install("tool", "--agent-process-version", "../../x")
    assert (version.code, version.stdout, version.stderr.count("\n")) == (1, "", 1)
    offline = await yard.install("tool", "--offline")
    assert (offline.code, "offline" in offline.stderr) == (1, True)
    assert yard.registries.asked == []
    yard.agents["UPPER"] = {}
    invalid = await yard.install("tool")
    assert (invalid.code, invalid.stdout, invalid.stderr.count("\n")) == (1, "", 1)
    assert invalid.stderr.startswith("sandbox-agent: ")


@pytest.mark.parametrize(
    "arguments",
    [(), ("pi", "--all"), ("--all", "--agent-version", "1"), ("--all", "--agent-process-version", "1"), ("pi", "x")],
)
def test_arguments_that_make_no_sense_are_usage_errors(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.main, ["install-agent", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")


async def test_all_goes_on_behind_a_failure_and_tells_how_each_has_ended(yard: Yard) -> None:
    yard.npm("first", yard.registries.npm_agent("first", "1.2.3"))
    yard.binary("bad", sha256="0" * 64)
    elsewhere = {"binary": {"windows-x86_64": {"archive": "https://files.example/tool.zip", "cmd": "tool.exe"}}}
    yard.agents["vendor"] = {"distribution": elsewhere}
    yard.npm("picky", "picky@1.0.0", needs={"no-such-program": "Get it from its vendor."})
    yard.binary("last")
    done = await yard.install("--all", "--json")
    told = json.loads(done.stdout)["agents"]
    assert list(told)[-5:] == ["first", "bad", "vendor", "picky", "last"]
    assert told["mock"] == {"alreadyInstalled": True, "artifacts": []}
    assert [artifact["version"] for artifact in told["first"]["artifacts"]] == ["1.2.3"]
    assert told["last"]["alreadyInstalled"] is False
    reasons = {id: told[id]["error"]["reason"] for id in ("bad", "vendor", "picky")}
    assert reasons == {"bad": "checksum", "vendor": "unsupported_platform", "picky": "missing_tool"}
    assert "Get it from its vendor." in told["picky"]["error"]["message"]
    assert done.code == 0  # what cannot be had from npm or PyPI here is no failure of this command
    shown = await yard.install("--all")
    rows = {row.split()[0]: row for row in shown.stdout.splitlines()}
    assert rows["first"].split() == ["first", "already", "there", "1.2.3"]
    assert rows["claude"].split() == ["claude", "already", "there"]
    for id in ("bad", "vendor", "picky"):
        assert rows[id].split()[1:3] == ["not", "installed"]
    assert shown.code == 0
    yard.npm("gone", "gone@1.0.0")
    failed = await yard.install("--all", "--json")
    assert failed.code == 1
    error = json.loads(failed.stdout)["agents"]["gone"]["error"]
    assert error["reason"] == "not_found"
    assert any("E404" in line for line in error["stderr"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_ends_it_with_all_that_it_has_started(yard: Yard, number: signal.Signals, code: int) -> None:
    yard.npm("slow", yard.registries.npm_agent("slow", "1.0.0"))
    yard.registries.held["/npm/slow"] = trio.Event()
    with trio.fail_after(WITHIN):
        async with yard.installing("slow") as process:
            await eventually(lambda: yard.registries.asked_for("/npm/slow"))
            process.send_signal(number)
            assert await process.wait() == code
            await eventually(lambda: not processes_with(yard.mark))
    assert not (yard.launchers / "slow-acp").exists()


async def test_even_a_killed_command_leaves_no_npm_and_the_next_one_succeeds(yard: Yard) -> None:
    yard.npm("slow", yard.registries.npm_agent("slow", "1.0.0"))
    yard.registries.held["/npm/slow"] = trio.Event()
    with trio.fail_after(WITHIN):
        async with yard.installing("slow") as process:
            await eventually(lambda: yard.registries.asked_for("/npm/slow"))
            process.kill()
            await process.wait()
            await eventually(lambda: not processes_with(yard.mark))
        yard.registries.held.clear()
        assert (await yard.install("slow")).code == 0
    assert [path.name for path in yard.launchers.glob("*-acp")] == ["slow-acp"]


async def test_two_commands_at_once_install_once_and_both_succeed(yard: Yard) -> None:
    yard.binary("tool")
    ended: list[Finished] = []

    async def install() -> None:
        ended.append(await yard.install("tool", "--json"))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(install)
    assert [done.code for done in ended] == [0, 0]
    assert sorted(json.loads(done.stdout)["alreadyInstalled"] for done in ended) == [False, True]
    assert yard.registries.asked_for("tool/program") == 1
