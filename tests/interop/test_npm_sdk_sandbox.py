"""Files, processes and terminals: the npm package `sandbox-agent` 0.4.2 finds here what it finds at the public server.

Each test runs one program of `npm_sdk/` against both servers. It tells what comes of every method, step by step; each
step has the same outcome at both, but for those in `differences.py`, where the public server is wrong or lacks
something. Why, is told in `docs/compatibility.md`, in the row that begins with the text given there.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from interop import npm_script, reference
from interop.cache import may_install
from interop.differences import ADDED, ADDITIONS, DIFFERENCES
from sandbox_actors.processes import ProcessConfig
from sandbox_http.process_answers import config_members
from support.daemon import running

if TYPE_CHECKING:
    from interop.npm_script import Facts, Served

INSTALL_SECONDS = 120.0
SCENARIO_SECONDS = 60.0  # 3 to 12 are usual; two cores may have other work
COMPATIBILITY = Path(__file__).parents[2] / "docs" / "compatibility.md"
# node has a WebSocket of its own since 22, and before that where it is asked for
NODE_WORDS = ("--experimental-websocket", "--disable-warning=ExperimentalWarning")
NODE_SINCE = (20, 11)


async def both_installed() -> None:
    """Skip the test where the package or the public server neither is there nor may be fetched."""
    if not reference.runs_here():
        pytest.skip("the public server of the test is a binary for Linux on x86-64")
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not on PATH")
    version = (await trio.run_process(["node", "--version"], capture_stdout=True)).stdout.decode()
    if tuple(map(int, version.strip().removeprefix("v").split(".")))[:2] < NODE_SINCE:
        pytest.skip(f"node {version} has no WebSocket")
    if not (npm_script.is_installed() and reference.is_installed()) and not may_install():
        pytest.skip("the npm packages are not installed, and SANDBOX_AGENT_TEST_INSTALL is 0")
    with trio.fail_after(INSTALL_SECONDS):
        await npm_script.install()
        await reference.install_public_server()


async def transcript(name: str, server: Served, folder: Path) -> dict[str, Facts]:
    """What a scenario tells of a server that works in this folder."""
    async with npm_script.script(name, server, folder / "app", *NODE_WORDS) as program:
        await program.is_told(app=str(folder / "app"), home=str(folder / "home"), cwd=str(folder))
        return await program.tells_all()


def on_the_wire(facts: Facts) -> Facts:
    """Without the members of a result that only this server has."""

    def known(members: Facts) -> Facts:
        return {name: value for name, value in members.items() if name not in ADDITIONS}

    told: Facts = json.loads(json.dumps(facts), object_hook=known) if "result" in facts else facts
    return told


@pytest.mark.parametrize("scenario", DIFFERENCES)
async def test_each_method_has_the_outcome_it_has_at_the_public_server_but_where_that_is_wrong(
    scenario: str, tmp_path: Path
) -> None:
    await both_installed()
    told: dict[str, dict[str, Facts]] = {}

    async def ask_public() -> None:
        async with reference.public_server(tmp_path / "public") as server:
            told["public"] = await transcript(scenario, server, tmp_path / "public")

    async def ask_here() -> None:
        (tmp_path / "here" / "home").mkdir(parents=True)
        async with running(tmp_path / "here", HOME=str(tmp_path / "here" / "home")) as daemon:
            told["here"] = await transcript(scenario, daemon, tmp_path / "here")

    with trio.fail_after(SCENARIO_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_public)
            nursery.start_soon(ask_here)

    public = told["public"]
    here = {step: on_the_wire(facts) for step, facts in told["here"].items()}
    assert list(here) == list(public)
    rows = {row.step: row for row in DIFFERENCES[scenario]}
    wrong = {
        step: {"public": public[step], "here": here[step]}
        for step, row in ((step, rows.get(step)) for step in public)
        if (public[step] != here[step] if row is None else (public[step], here[step]) != (row.public, row.here))
    }
    assert wrong == {}


async def test_the_scenarios_use_every_method_on_files_and_processes() -> None:
    await both_installed()
    types = (npm_script.PLACE / "node_modules/sandbox-agent/dist/index.d.ts").read_text()
    client = re.split(r"^declare class SandboxAgent \{$(.*?)^\}$", types, maxsplit=1, flags=re.DOTALL | re.MULTILINE)[1]
    methods = re.findall(r"^    (\w*(?:Fs|Process)\w*)\(", client, flags=re.MULTILINE)
    assert len(methods) == 24
    told = "".join((npm_script.SCRIPTS / f"{scenario}.mjs").read_text() for scenario in DIFFERENCES)
    assert [method for method in methods if f"client.{method}(" not in told] == []


def test_the_documentation_has_a_row_for_each_difference() -> None:
    lines = COMPATIBILITY.read_text().splitlines()
    rows = {row.row for rows in DIFFERENCES.values() for row in rows}
    assert {row for row in rows if not any(line.startswith(f"| {row}") for line in lines)} == set()


def test_the_documentation_names_each_member_that_only_this_server_has() -> None:
    (row,) = [line for line in COMPATIBILITY.read_text().splitlines() if line.startswith(f"| {ADDED}")]
    assert {member for member in ADDITIONS if f"`{member}`" not in row} == set()


def test_the_members_of_processes_are_the_public_servers_and_the_additions() -> None:
    public = "maxConcurrentProcesses defaultRunTimeoutMs maxRunTimeoutMs maxOutputBytes maxLogBytesPerProcess"
    assert set(config_members(ProcessConfig())) - ADDITIONS == {*public.split(), "maxInputBytesPerRequest"}


def test_a_difference_is_one() -> None:
    assert [row.step for rows in DIFFERENCES.values() for row in rows if row.public == row.here] == []
