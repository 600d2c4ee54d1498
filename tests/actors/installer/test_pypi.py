from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from actors.installer.yard import OWNER, failing, programs
from sandbox_actors.installer.pypi import install_requirement
from sandbox_actors.installer.site import Site
from sandbox_actors.installer.tools import find_python, find_uv
from sandbox_actors.installer.trouble import Trouble

if TYPE_CHECKING:
    from actors.installer.yard import Definition, Yard
    from sandbox_actors.installer.progress import Progress
    from support.registries import Registries

OWN = ".".join(map(str, sys.version_info[:2]))


def uvx(spec: str, **more: object) -> Definition:
    return {"distribution": {"uvx": {"package": spec, **more}}}


def site(yard: Yard, seen: list[Progress] | None = None) -> Site:
    told = seen if seen is not None else []
    return Site("fox", yard.environment, OWNER, "run-of-a-site", None, told.append, iter(range(100)))


async def test_a_package_has_an_environment_of_its_own(yard: Yard, registries: Registries) -> None:
    agents = {"fox": uvx(registries.wheel("fox-agent", "1.2.3"), args=["acp"])}
    async with yard.installer(agents) as installer:
        outcome = await installer.install("fox")
        assert outcome.artifacts[0].version == "1.2.3"
        installed = installer.installed("fox")
        assert installed is not None
        assert installed.program == f"{installed.generation}/venv/bin/fox-agent"
        assert msgspec.json.decode(installed.greeting)["agentInfo"]["version"].startswith(f"{OWN}.")
        assert (await yard.answer("fox", **agents))["name"] == "python"
        (Path(installed.generation) / "venv" / "bin" / "python").unlink()
        assert installer.installed("fox") is None, "without its Python it does not run"
        assert not (await installer.install("fox")).already_installed
    assert "/venv/bin\n" in (yard.launchers / "fox-acp").read_text(), "last on PATH"


@pytest.mark.parametrize(
    ("spec", "version", "expected"),
    [
        ("fox==1.0", None, "1.0"),
        ("fox@1.0", None, "1.0"),
        ("fox", None, "2.0"),
        ("fox==1.0", "2.0", "2.0"),
        ("fox==1.0", "latest", "2.0"),
    ],
)
async def test_the_version_is_the_definitions_or_the_clients(
    yard: Yard, registries: Registries, spec: str, version: str | None, expected: str
) -> None:
    registries.wheel("fox", "1.0")
    registries.wheel("fox", "2.0")
    async with yard.installer({"fox": uvx(spec)}) as installer:
        outcome = await installer.install("fox", process_version=version)
    assert outcome.artifacts[0].version == expected


async def test_venv_and_pip_do_where_there_is_no_uv(
    yard: Yard, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shutil.py").write_text("raise SystemExit('a module of the folder in which the daemon runs')")
    monkeypatch.chdir(tmp_path)
    venv = tmp_path / "generation" / "venv"
    venv.parent.mkdir()
    seen: list[Progress] = []
    await install_requirement(site(yard, seen), venv, registries.wheel("fox", "1.0"), None, None)
    assert (venv / "bin" / "fox").exists()
    assert [step.step for step in seen][:2] == ["checking", "installing"]
    assert seen[-1].bytes > 0


async def test_a_package_that_is_not_there_is_told(yard: Yard, registries: Registries) -> None:
    registries.wheel("fox", "1.0")
    async with yard.installer({"fox": uvx("fox==7.0"), "hen": uvx("hen==1.0")}) as installer:
        assert (await failing(installer, "fox")).reason == "not_found"
        assert (await failing(installer, "hen")).reason == "not_found"
    assert yard.generations("fox") == []


async def test_a_network_that_is_not_there_is_told_in_seconds(yard: Yard) -> None:
    yard.environment["UV_INDEX_URL"] = "http://user:hunter2@127.0.0.1:9/simple"
    async with yard.installer({"fox": uvx("fox==1.0")}) as installer:
        with trio.fail_after(25):
            failure = await failing(installer, "fox")
    assert failure.reason == "network"
    assert "hunter2" not in "\n".join(failure.stderr)


async def test_npm_packages_and_a_pypi_package_are_one_install(yard: Yard, registries: Registries) -> None:
    source = 'import os, shutil\nfound = shutil.which("tool")\nassert found\n' + (
        "import json, sys\n"
        "def main():\n"
        "    request = json.loads(sys.stdin.readline())\n"
        '    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"agentInfo": {"tool": found}}}))\n'
    )
    agents = {
        "fox": {
            **uvx(registries.wheel("fox", "1.0", source)),
            "packages": [registries.npm_agent("tool", "5.0.0")],
            "native": {"program": "tool", "package": "tool"},
        }
    }
    async with yard.installer(agents) as installer:
        outcome = await installer.install("fox")
        installed = installer.installed("fox")
    assert installed is not None
    assert installed.native == f"{installed.generation}/node_modules/.bin/tool"
    assert (await yard.answer("fox", **agents))["tool"] == installed.native
    assert [artifact.version for artifact in outcome.artifacts] == ["5.0.0", "1.0"]


async def test_a_python_is_used_only_where_it_runs_and_will_do(yard: Yard, tmp_path: Path) -> None:
    shim = "#!/bin/sh\necho 'pyenv: python3.40: command not found' >&2\nexit 127\n"
    fake = "#!/bin/sh\necho 3.41.2\n"
    own = str(programs(tmp_path / "bin", **{"python3.40": shim, "python3.41": fake}))
    yard.environment["PATH"] = own
    assert await find_python(site(yard), ">=3.40") == f"{own}/python3.41"
    assert await find_python(site(yard), ">=3.42") is None
    assert await find_python(site(yard), f">={OWN}") == f"{sys.base_prefix}/bin/python{OWN}"
    assert await find_python(site(yard), None) == f"{sys.base_prefix}/bin/python{OWN}"


async def test_a_python_that_is_not_there_is_told(yard: Yard, registries: Registries, tmp_path: Path) -> None:
    agents = {"fox": {**uvx(registries.wheel("fox", "1.0")), "python": ">=3.99"}}
    async with yard.installer(agents) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "missing_tool"
    assert "it needs Python >=3.99" in str(failure)
    with pytest.raises(
        Trouble, match=re.escape("it needs Python >=3.99, and none was found; install one, or install uv")
    ):
        await install_requirement(site(yard), tmp_path / "venv", "fox==1.0", ">=3.99", None)


async def test_a_python_without_its_venv_module_is_told(yard: Yard, tmp_path: Path) -> None:
    said = "The virtual environment was not created successfully because ensurepip is not available."
    fake = f'#!/bin/sh\nif [ "$2" = -m ]; then echo "{said}"; exit 1; fi\necho 3.77.0\n'
    yard.environment["PATH"] = str(programs(tmp_path / "bin", **{"python3.77": fake}))
    with pytest.raises(Trouble, match="python3-venv") as trouble:
        await install_requirement(site(yard), tmp_path / "venv", "fox==1.0", ">=3.77", None)
    assert trouble.value.reason == "missing_tool"


async def test_a_package_is_built_only_where_the_definition_names_it(yard: Yard, registries: Registries) -> None:
    spec = registries.sdist("fox", "1.0")
    by_url = f"fox @ {registries.url}/sdists/fox-1.0.tar.gz"
    async with yard.installer({"fox": uvx(spec)}) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "not_found"
    assert "only if the definition names it in 'builds'" in str(failure)
    for agent in ({**uvx(spec), "builds": ["fox"]}, {**uvx(by_url), "program": "fox"}):
        async with yard.installer({"fox": agent}) as installer:
            await installer.install("fox", reinstall=True)


async def test_a_uv_that_does_not_run_is_none(yard: Yard, tmp_path: Path) -> None:
    own = programs(tmp_path / "bin", uv="#!/bin/sh\necho 'pyenv: uv: command not found' >&2\nexit 127\n")
    yard.environment["PATH"] = f"{own}:{yard.environment['PATH']}"
    assert await find_uv(site(yard)) != str(own / "uv")
