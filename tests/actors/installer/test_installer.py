from __future__ import annotations

import fcntl
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from actors.installer.yard import OWNER, failing, programs
from sandbox_actors.catalog.platforms import registry_platform
from sandbox_actors.errors import AgentNotInstalled, InstallFailed, ShuttingDown, UnsupportedAgent
from sandbox_actors.installer import Artifact, Outcome
from sandbox_supervisor import Node, Reply
from support.processes import eventually, processes_with
from support.registries import NODE_AGENT, SHELL_AGENT

if TYPE_CHECKING:
    from pathlib import Path

    from actors.installer.yard import Agents, Definition, Yard
    from sandbox_actors.installer import Installer
    from support.registries import Registries

TARBALL = "/npm/fox/-/fox-1.0.0.tgz"


@pytest.fixture
def fox(registries: Registries) -> Agents:
    """An agent of npm."""
    return {"fox": {"distribution": {"npx": {"package": registries.npm_agent("fox", "1.0.0")}}}}


def program(source: str, folder: Path, **more: object) -> Definition:
    """An agent that is a program on this machine."""
    folder.mkdir(exist_ok=True)
    (folder / "fox").write_text(source)
    build = {"archive": (folder / "fox").as_uri(), "cmd": "fox", **more}
    return {"distribution": {"binary": {registry_platform(): build}}}


def leftovers(yard: Yard) -> list[int]:
    return processes_with(f"{OWNER}/run-{yard.home.name}/")


def held(registries: Registries, path: str = TARBALL) -> trio.Event:
    """Hold the answer to a request back; gives the event that lets it go."""
    registries.held[path] = release = trio.Event()
    return release


async def test_callers_at_once_share_one_install(yard: Yard, registries: Registries, fox: Agents) -> None:
    outcomes: list[Outcome] = []

    async def install(installer: Installer) -> None:
        outcomes.append(await installer.install("fox"))

    async with yard.installer(fox) as installer, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(install, installer)
        nursery.start_soon(installer.ensure, "fox")
    assert len(outcomes) == 5
    assert {outcome.already_installed for outcome in outcomes} == {False}
    assert registries.asked.count(TARBALL) == 1


async def test_a_caller_that_gives_up_takes_nobody_along(yard: Yard, registries: Registries, fox: Agents) -> None:
    release = held(registries)
    async with yard.installer(fox) as installer:
        begun = installer.begin("fox")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(installer.install, "fox")
                await eventually(lambda: TARBALL in registries.asked)
                scope.cancel()
        assert not begun.settled
        release.set()
        assert not (await begun.wait()).already_installed
    assert registries.asked.count(TARBALL) == 1


async def test_a_failure_is_told_to_all_and_the_next_try_begins_anew(
    yard: Yard, registries: Registries, fox: Agents
) -> None:
    release = held(registries, "/npm/fox")
    fox["fox"]["distribution"]["npx"]["package"] = "fox@2.0.0"
    async with yard.installer(fox) as installer:
        replies = [installer.begin("fox"), installer.begin("fox")]
        await eventually(lambda: "/npm/fox" in registries.asked)
        release.set()
        for reply in replies:
            with pytest.raises(InstallFailed, match="no such package or version"):
                await reply.wait()
        assert installer.progress("fox") is None
        del registries.held["/npm/fox"]
        registries.npm_agent("fox", "2.0.0")
        assert not (await installer.install("fox")).already_installed


async def test_another_version_waits_for_its_turn(yard: Yard, registries: Registries, fox: Agents) -> None:
    registries.npm_agent("fox", "2.0.0")
    release = held(registries)
    async with yard.installer(fox) as installer:
        first, second = installer.begin("fox"), installer.begin("fox", process_version="2.0.0")
        await eventually(lambda: TARBALL in registries.asked)
        joined = installer.under_way("fox")
        assert joined is not None
        release.set()
        assert await first.wait() == await joined.wait()
        assert (await second.wait()).artifacts[0].version == "2.0.0"
        assert installer.under_way("fox") is None


async def test_a_watcher_sees_where_it_is_and_that_it_ends(yard: Yard, fox: Agents) -> None:
    fox["fox"]["after_install"] = ["true"]
    steps: list[str] = []

    async def watch(installer: Installer) -> None:
        await installer.changed("fox")
        while (progress := installer.progress("fox")) is not None:
            if progress.step not in steps:
                steps.append(progress.step)
            await installer.changed("fox")

    async with yard.installer(fox) as installer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, installer)
            await installer.install("fox")
        assert steps == ["checking", "installing", "finishing", "verifying"]


async def test_the_tree_shows_what_is_installed(yard: Yard, registries: Registries, fox: Agents) -> None:
    node = Node("installer", "installer")
    release = held(registries)
    async with yard.installer(fox, node=node) as installer:
        begun = installer.begin("fox")
        await eventually(lambda: TARBALL in registries.asked)
        assert [(child.name, child.kind) for child in node.snapshot().children] == [("fox", "install")]
        release.set()
        await begun.wait()
        assert node.snapshot().children == ()


async def test_closing_ends_what_is_under_way_with_its_whole_tree(
    yard: Yard, registries: Registries, fox: Agents
) -> None:
    held(registries)
    async with yard.installer(fox) as installer:
        begun = installer.begin("fox")
        queued = installer.begin("fox", reinstall=True)
        await eventually(lambda: TARBALL in registries.asked)
        assert leftovers(yard)
        installer.close()
        for reply in (begun, queued):
            with pytest.raises(ShuttingDown):
                await reply.wait()
        with pytest.raises(ShuttingDown):
            await installer.install("fox")
        await installer.changed("fox")
    assert leftovers(yard) == []
    assert yard.generations("fox") == []
    assert not (yard.launchers / "fox-acp").exists()


async def test_whoever_waits_is_answered_when_all_is_cancelled(yard: Yard, registries: Registries, fox: Agents) -> None:
    held(registries)
    begun: list[Reply[Outcome]] = []
    with trio.CancelScope() as everything:
        async with yard.installer(fox) as installer:
            begun += [installer.begin("fox"), installer.begin("fox", reinstall=True), installer.begin("fox")]
            await eventually(lambda: TARBALL in registries.asked)
            everything.cancel()
    for reply in begun:
        with pytest.raises(ShuttingDown):
            await reply.wait()


async def test_what_works_stays_where_the_next_install_does_not_verify(yard: Yard, tmp_path: Path) -> None:
    agents = {"fox": program(SHELL_AGENT, tmp_path / "agent")}
    async with yard.installer(agents, verify_within=0.5) as installer:
        await installer.install("fox")
        before = (yard.launchers / "fox-acp").read_text()
        for source, said in (
            ("#!/bin/sh\necho broken >&2\nexit 3\n", "it exited with code 3 before it answered"),
            ("#!/bin/sh\nexec sleep 60\n", "did not answer 'initialize' within 0.5 s"),
            ("#!/no/such/interpreter\n", "it"),
        ):
            (tmp_path / "agent" / "fox").write_text(source)
            failure = await failing(installer, "fox", reinstall=True)
            assert failure.reason == "verification"
            assert said in str(failure)
            assert (yard.launchers / "fox-acp").read_text() == before
            assert len(yard.generations("fox")) == 1
    assert (await yard.answer("fox", **agents))["name"] == "shell"
    assert leftovers(yard) == []


async def test_an_agent_is_asked_in_a_home_of_its_own_and_with_what_it_needs_for_it(
    yard: Yard, registries: Registries
) -> None:
    source = NODE_AGENT.replace("home: process.env.HOME", "config: process.env.CONFIG, home: process.env.HOME")
    spec = registries.npm_agent("fox", "1.0.0", source)
    agents = {"fox": {"distribution": {"npx": {"package": spec}}, "verify_env": {"CONFIG": "some"}}}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
        installed = installer.installed("fox")
    assert installed is not None
    assert b'"config":"some"' in bytes(installed.greeting)
    assert yard.environment["HOME"].encode() not in bytes(installed.greeting)
    assert (await yard.answer("fox", **agents)).get("config") is None


async def test_a_launcher_without_its_program_is_no_install(yard: Yard, tmp_path: Path) -> None:
    agents = {"fox": program(SHELL_AGENT, tmp_path / "agent")}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
        installed = installer.installed("fox")
        assert installed is not None
        await trio.Path(installed.program).unlink()
        assert installer.installed("fox") is None
        await installer.ensure("fox")
        assert installer.installed("fox") is not None
    assert (await yard.answer("fox", **agents))["name"] == "shell"


async def test_a_launcher_of_the_users_own_is_taken_as_it_is_and_never_replaced(yard: Yard, tmp_path: Path) -> None:
    own = programs(yard.launchers, **{"fox-acp": SHELL_AGENT}) / "fox-acp"
    async with yard.installer({"fox": program(SHELL_AGENT, tmp_path / "agent")}) as installer:
        assert await installer.install("fox") == Outcome(already_installed=True)
        assert installer.installed("fox") is None
        failure = await failing(installer, "fox", reinstall=True)
        assert f"{own} was not written by an install; remove it" in str(failure)
        own.chmod(0o644)
        assert "make it executable" in str(await failing(installer, "fox"))
    assert own.read_text() == SHELL_AGENT


async def test_a_program_on_path_is_an_install_and_a_reinstall_comes_before_it(yard: Yard, tmp_path: Path) -> None:
    yard.environment["PATH"] = f"{programs(tmp_path / 'bin', fox=SHELL_AGENT)}:{yard.environment['PATH']}"
    agents = {"fox": {**program(SHELL_AGENT, tmp_path / "agent"), "on_path": ["fox"]}}
    async with yard.installer(agents) as installer:
        assert await installer.install("fox") == Outcome(already_installed=True)
        assert not (await installer.install("fox", reinstall=True)).already_installed
    assert yard.catalog(**agents).command("fox") == (str(yard.launchers / "fox-acp"),)


async def test_what_was_installed_once_is_not_told_of_an_agent_that_is_a_command_now(
    yard: Yard, tmp_path: Path
) -> None:
    agent = program(SHELL_AGENT, tmp_path / "agent")
    async with yard.installer({"fox": agent}) as installer:
        await installer.install("fox")
        assert installer.installed("fox") is not None
    async with yard.installer({"fox": {**agent, "command": ["true"]}}) as installer:
        assert installer.installed("fox") is None


async def test_mock_is_built_in(yard: Yard) -> None:
    async with yard.installer({"mock": {}}, offline=True) as installer:
        assert await installer.install("mock") == Outcome(already_installed=True)
        artifact = Artifact("agent_process", sys.executable, "builtin", "builtin")
        assert await installer.install("mock", reinstall=True) == Outcome(False, (artifact,))


async def test_offline_nothing_is_touched_and_what_is_there_works(yard: Yard, tmp_path: Path) -> None:
    agents = {"fox": program(SHELL_AGENT, tmp_path / "agent"), "hen": {"command": ["true"]}}
    async with yard.installer(agents, offline=True) as installer:
        assert (await failing(installer, "fox")).reason == "offline"
        assert await installer.install("hen") == Outcome(already_installed=True)
    assert not yard.launchers.exists()


async def test_where_only_what_is_there_may_be_used_nothing_is_installed_by_itself(yard: Yard, tmp_path: Path) -> None:
    agents = {"fox": program(SHELL_AGENT, tmp_path / "agent")}
    async with yard.installer(agents, preinstalled_only=True) as installer:
        with pytest.raises(AgentNotInstalled, match="run 'sandbox-agent install-agent fox'"):
            await installer.ensure("fox")
        await installer.install("fox")
        await installer.ensure("fox")


async def test_what_cannot_be_installed_is_told_with_what_to_do(yard: Yard) -> None:
    agents = {"fox": {"on_path": ["fox-of-the-vendor"]}, "hen": {"command": ["true"]}}
    async with yard.installer(agents) as installer:
        failure = await failing(installer, "fox")
        assert failure.reason == "nothing_to_install"
        assert "put a program 'fox-of-the-vendor' on PATH, or give fox a command" in str(failure)
        assert (await failing(installer, "hen", reinstall=True)).reason == "nothing_to_install"
        with pytest.raises(UnsupportedAgent):
            await installer.install("rabbit")


async def test_an_agent_goes_by_its_aliases(yard: Yard, tmp_path: Path) -> None:
    agents = {"fox": {**program(SHELL_AGENT, tmp_path / "agent"), "aliases": ["vixen"]}}
    async with yard.installer(agents) as installer:
        await installer.install("vixen")
        assert installer.installed("vixen") == installer.installed("fox") is not None


async def test_who_holds_the_lock_is_waited_for(yard: Yard, tmp_path: Path) -> None:
    agents = {"fox": program(SHELL_AGENT, tmp_path / "agent")}
    lock = yard.launchers / "fox" / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with yard.installer(agents) as installer:
            begun = installer.begin("fox")

            def waits() -> bool:
                progress = installer.progress("fox")
                return progress is not None and progress.step == "waiting"

            await eventually(waits)
            assert not begun.settled
            fcntl.flock(file, fcntl.LOCK_UN)
            assert not (await begun.wait()).already_installed


async def test_a_directory_that_cannot_be_written_is_told(yard: Yard, tmp_path: Path) -> None:
    yard.launchers.parent.mkdir(parents=True)
    yard.launchers.write_text("a file is in the way")
    async with yard.installer({"fox": program(SHELL_AGENT, tmp_path / "agent")}) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "failed"
    assert str(yard.launchers) in str(failure)
