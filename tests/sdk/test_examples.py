"""The examples run as they are, by themselves, and say what they promise; nothing of theirs stays."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.processes import eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import Mapping

import trio

EXAMPLES = Path(__file__).parents[2] / "examples"
README = EXAMPLES.parent / "README.md"

TEN_LINES = 10
"""What the README promises, without blank ones."""

WITHIN = 60.0
"""Seconds: each takes two to five on an idle machine."""

GONE_WITHIN = 5.0
"""Seconds: the sentinel of a killed server is still about its work."""

MARK = "MOCK_AGENT_HOME"
"""A variable that reaches agents, too."""

SAYS: Mapping[str, tuple[str, ...]] = {
    "quickstart": ("completed: Hello there", "the turn has ended: end_turn", "the sandbox is destroyed"),
    "quickstart_trio": ("bob: completed: I am Bob's agent", "Ann's second turn: cancelled"),
    "permissions": (
        "asked: Delete the database (execute) -> reject_once",
        "by the policy: permission: reject_once",
        "by a person: permission: allow_once",
    ),
    "files_and_processes": (
        "run: exit 0, 4 app/hello.txt",
        "through the sandbox's server: Hello from a sandbox",
        "terminal: Hello, Ann, exit 3",
    ),
    "recovery": (
        "recovery: recovered, 3 failures, attempt 1",
        "the turn has failed: urn:sandbox-agent:error:daemon_died",
        "turns: ['completed', 'failed', 'completed']",
    ),
    "reconnect": ("missed meanwhile: 1 turn", "the agent remembers: True"),
    "fleet": ("/crash: failed", "completed: 4 of 5"),
    "persistence": (
        "backend-2 has to wait: backend-1 has it",
        "backend-2 goes on, as generation 2: Thanks",
    ),
}
"""Lines of what each prints."""


def test_each_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)


def readme_programs() -> Mapping[str, str]:
    """What the README shows: under asyncio, the same under Trio, and without async."""
    under_asyncio, without = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    under_trio = under_asyncio.replace("import asyncio", "import trio").replace("asyncio.run(main())", "trio.run(main)")
    return {"asyncio": under_asyncio, "trio": under_trio, "sync": without}


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
async def test_the_programs_of_the_readme_do_what_it_says(kind: str, tmp_path: Path) -> None:
    program = readme_programs()[kind]
    if kind != "sync":
        assert len([line for line in program.splitlines() if line.strip()]) == TEN_LINES
    path = tmp_path / "hello.py"
    path.write_text(program)
    assert (await run_alone(path, tmp_path)).endswith("Hello, sandbox!" + "\n" * (kind == "sync"))


@pytest.mark.parametrize("name", SAYS)
async def test_an_example_runs_by_itself_and_leaves_no_process(name: str, tmp_path: Path) -> None:
    said = await run_alone(EXAMPLES / f"{name}.py", tmp_path)
    assert [line for line in SAYS[name] if line not in said.splitlines()] == [], said


async def run_alone(program: Path, tmp_path: Path) -> str:
    """What it prints. Nothing that it has started may run afterwards, and no sandbox of its be there."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("SANDBOX_AGENT_", "XDG_"))}
    command = [sys.executable, "-W", "error", str(program)]
    with trio.fail_after(WITHIN):
        done = await trio.run_process(
            command,
            env={**variables, "HOME": str(tmp_path), MARK: str(tmp_path / "agent")},
            cwd=tmp_path,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    with trio.move_on_after(GONE_WITHIN):
        await eventually(lambda: not processes_with(f"{MARK}={tmp_path}/"))
    assert processes_with(f"{MARK}={tmp_path}/") == []
    sandboxes = tmp_path / ".local" / "share" / "sandbox-agent" / "local"
    assert not sandboxes.exists() or list(sandboxes.iterdir()) == []
    return said
