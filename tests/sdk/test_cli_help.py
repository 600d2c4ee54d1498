"""Every command: its help page, its place in the documentation, and what it prints for programs."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
import trio
from click.testing import CliRunner

from sandbox_agent import cli
from support.command import COMMAND, clean_environment, invoke
from support.daemon import free_port
from support.processes import processes_with

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

OBVIOUS = {
    "--port",
    "--cors-allow-method",
    "--cors-allow-header",
    "--cors-allow-credentials",
    "--log-level",
    "--log-format",
}
"""Options whose name says it all."""


def commands(command: click.Command = cli.main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that is shown to people, groups included."""
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            if not below.hidden:
                yield from commands(below, (*path, name))


def command_at(path: tuple[str, ...]) -> click.Command:
    found: click.Command = cli.main
    for name in path:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


ALL = list(commands())
SHOWN = [" ".join(path) or "sandbox-agent" for path in ALL]
LEAVES = [path for path in ALL if not isinstance(command_at(path), click.Group)]


@pytest.mark.parametrize("path", ALL, ids=SHOWN)
def test_a_help_page_says_what_the_command_and_each_option_is_for(path: tuple[str, ...]) -> None:
    pages = [CliRunner().invoke(cli.main, [*path, flag]) for flag in ("--help", "-h")]
    for page in pages:
        assert (page.exit_code, page.stderr) == (0, "")
    assert pages[0].stdout == pages[1].stdout
    command = command_at(path)
    summary = (command.help or "").strip().splitlines()[:1]
    assert summary, "no help text"
    assert summary[0].endswith((".", ":")), summary[0]
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.opts[-1] in pages[0].stdout
            assert option.help or option.opts[0] in OBVIOUS or option.opts[-1] in OBVIOUS, option.opts
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            assert (f"  {name} " in pages[0].stdout) != below.hidden


@pytest.mark.parametrize("path", ALL[1:], ids=SHOWN[1:])
def test_an_option_that_is_not_there_is_a_usage_error(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.main, [*path, "--no-such-option"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such option" in done.stderr


def test_the_documentation_has_every_command_with_an_example() -> None:
    page = PAGE.read_text()
    assert [" ".join(path) for path in LEAVES if f"sandbox-agent {' '.join(path)}" not in page] == []


async def test_the_examples_of_the_documentation_run(tmp_path: Path) -> None:
    port = str(free_port())
    env = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}",
        "SANDBOX_AGENT_DATA_DIR": str(tmp_path / "data"),
        "SANDBOX_AGENT_PORT": port,
        "SANDBOX_AGENT_ENDPOINT": f"http://127.0.0.1:{port}",
        "MOCK_AGENT_HOME": str(tmp_path / "agent"),
    }
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    with trio.fail_after(120):
        done = await trio.run_process(
            ["/bin/sh", "-e", "-c", "\n".join(blocks)],
            env=clean_environment(env),
            cwd=tmp_path,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    said = (done.stdout + done.stderr).decode()
    try:
        assert done.returncode == 0, said
        for words in (
            "daemon started (PID ",
            "Daemon running (PID ",
            '"sessionId": ',
            "daemon stopped",
            "mock is already",
        ):
            assert words in said
    finally:
        for pid in processes_with(f"MOCK_AGENT_HOME={tmp_path}/"):
            os.kill(pid, signal.SIGKILL)


DOCUMENTS = [
    ("agents", "list", "--json"),
    ("agents", "show", "mock", "--json"),
    ("credentials", "extract"),
    ("credentials", "extract", "--agent", "mock", "--json"),
    ("daemon", "status", "--json"),
    ("doctor", "--json"),
    ("install-agent", "mock", "--json"),
]


@pytest.mark.parametrize("arguments", DOCUMENTS, ids=[" ".join(each) for each in DOCUMENTS])
def test_json_is_one_document_on_stdout_and_nothing_else(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    env = {"HOME": str(tmp_path), "SANDBOX_AGENT_DATA_DIR": str(tmp_path), "SANDBOX_AGENT_PORT": str(free_port())}
    done = invoke(*arguments, env=env)
    assert done.code in (0, 1)
    if done.code == 0 or done.stdout:
        assert json.loads(done.stdout) is not None
        assert done.stdout.endswith("\n")
        assert done.stdout.startswith(("{\n", "["))
        assert done.stderr == ""
    else:
        assert done.stderr.startswith("sandbox-agent: ")
