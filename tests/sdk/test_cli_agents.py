"""`sandbox-agent agents`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from sandbox_actors.catalog.sources import shipped_agents
from sandbox_agent import cli
from support.command import run

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = shipped_agents()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where nothing is installed: neither in the data directory nor on PATH."""
    (tmp_path / "bin").mkdir()
    return tmp_path


def call(home: Path, *arguments: str, **env: str) -> Result:
    environment = {
        "SANDBOX_AGENT_DATA_DIR": str(home / "data"),
        "PATH": str(home / "bin"),
        "SANDBOX_AGENT_AGENTS": None,
        "SANDBOX_AGENT_ACP_REGISTRY_URL": None,
    }
    return CliRunner().invoke(cli.main, ["agents", *arguments], env={**environment, **env})


def program(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def registry(home: Path, *entries: object) -> Path:
    file = home / "given.json"
    file.write_text(json.dumps({"agents": entries}))
    return file


def npx(id: str, package: str) -> dict[str, object]:
    return {"id": id, "name": id.title(), "distribution": {"npx": {"package": package}}}


def failed(done: Result) -> str:
    """The one sentence of a command that could not do it."""
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("sandbox-agent: ")
    return line.removeprefix("sandbox-agent: ")


# -- list


def test_the_list_has_every_agent_and_says_which_are_installed(home: Path) -> None:
    program(home / "bin" / "gemini")
    program(home / "data" / "bin" / "agent_processes" / "house-made-acp")
    done = call(home, "list")
    assert (done.exit_code, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["ID", "NAME", "INSTALLED", "VERSION", "FROM", "CREDENTIALS"]
    rows = {line.split()[0]: line for line in lines}
    assert list(rows) == [*SHIPPED, "house-made"]
    assert [id for id, row in rows.items() if "yes" in row.split()] == ["mock", "gemini", "house-made"]
    assert rows["claude"].split()[-3:] == ["0.101.0", "npm", "anthropic"]
    assert " PyPI and npm " in rows["amp"]
    assert rows["mock"].endswith(" builtin  built in")
    assert rows["house-made"].endswith(" launcher")


def test_the_list_is_one_json_document_for_programs(home: Path) -> None:
    done = call(home, "list", "--json", SANDBOX_AGENT_AGENT_MY_BOT="my-bot --acp")
    assert (done.exit_code, done.stderr) == (0, "")
    agents = {agent["id"]: agent for agent in json.loads(done.stdout)["agents"]}
    assert list(agents) == [*SHIPPED, "my-bot"]
    assert agents["codex"] == {
        "id": "codex",
        "name": "Codex",
        "installed": False,
        "version": SHIPPED["codex"].version,
        "from": "npm",
        "credentials": ["openai"],
    }
    assert (agents["my-bot"]["from"], agents["my-bot"]["installed"]) == ("command", True)


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "claude"]])
def test_definitions_that_cannot_be_used_end_with_one_sentence(home: Path, command: list[str]) -> None:
    file = home / "agents.toml"
    file.write_text('[agents.claude]\nversoin = "1.0"')
    expected = (
        f"the agents file {file} has an agent 'claude' that is not valid: Object contains unknown field `versoin`"
    )
    assert failed(call(home, *command, "--agents", str(file))) == expected
    assert failed(call(home, *command, SANDBOX_AGENT_AGENTS=str(file))) == expected
    assert failed(call(home, *command, "--agents", "/nowhere")).startswith("cannot read the agents file /nowhere: ")
    assert failed(call(home, *command, SANDBOX_AGENT_AGENT_X="")).startswith("the variable SANDBOX_AGENT_AGENT_X is em")


# -- show


def test_one_agent_is_shown_by_its_id_or_another_name(home: Path) -> None:
    done = call(home, "show", "claude-code")
    assert (done.exit_code, done.stderr) == (0, "")
    members = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert members["id"] == "claude"
    assert members["installed"] == "no"
    assert members["credentials"] == "anthropic"
    assert "claude-acp" in members["aliases"]
    assert "command" not in members
    assert call(home, "show", "claude").stdout == done.stdout


def test_one_agent_is_one_json_document_for_programs(home: Path) -> None:
    found = program(home / "bin" / "gemini")
    done = call(home, "show", "gemini", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    agent = json.loads(done.stdout)
    assert (agent["installed"], agent["command"]) == (True, [str(found), "--acp"])
    package = {"package": "@google/gemini-cli@0.61.0", "args": ["--acp"], "env": []}
    assert agent["distribution"] == {"npx": package}
    assert agent["origin"] == "shipped"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_values_of_variables_are_not_shown(home: Path, form: list[str]) -> None:
    file = home / "agents.toml"
    file.write_text(
        """
        [agents.bot]
        env = { BOT_KEY = "s3cret" }
        distribution.npx = { package = "bot@1.0.0", env = { NPX_KEY = "s3cret" } }
        distribution.binary.linux-x86_64 = { archive = "file:///bot", cmd = "bot", env = { BINARY_KEY = "s3cret" } }
        """
    )
    done = call(home, "show", "bot", "--agents", str(file), *form)
    assert done.exit_code == 0
    for name in ("BOT_KEY", "NPX_KEY", "BINARY_KEY"):
        assert name in done.stdout
    assert "s3cret" not in done.stdout


def test_an_agent_that_there_is_not_is_told_with_those_that_there_are(home: Path) -> None:
    assert failed(call(home, "show", "nobody")) == f"unsupported agent: nobody; known agents: {', '.join(SHIPPED)}"


# -- refresh


def test_a_refresh_tells_what_it_means_and_is_used_from_then_on(home: Path) -> None:
    source = registry(
        home, npx("pi-acp", "pi-acp@0.0.40"), npx("bot", "bot@1.0.0"), npx("codex-acp", "codex"), {"id": "bad"}
    )
    done = call(home, "refresh", str(source))
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1:] == [
        ["pi", "re-pinned", "pi-acp@0.0.34", "→", "pi-acp@0.0.40"],
        ["bot", "added", "bot@1.0.0"],
        ["codex", "passed", "over", "the", "registry", "names", "no", "version", "of", "it"],
        ["bad", "cannot", "be", "used", "Object", "missing", "required", "field", "`distribution`"],
    ]
    agents = {agent["id"]: agent for agent in json.loads(call(home, "list", "--json").stdout)["agents"]}
    assert (agents["pi"]["version"], agents["bot"]["version"]) == ("0.0.40", "1.0.0")
    assert json.loads(call(home, "show", "pi", "--json").stdout)["origin"] == "registry"


def test_a_refresh_is_one_json_document_for_programs(home: Path) -> None:
    source = registry(home, npx("bot", "bot@1.0.0"), {"id": "bad"})
    done = call(home, "refresh", "--json", SANDBOX_AGENT_ACP_REGISTRY_URL=source.as_uri())
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "path": str(home / "data" / "registry.json"),
        "agents": [
            {"kind": "added", "agent": "bot", "entry": "bot", "before": None, "after": "bot@1.0.0", "reason": None}
        ],
        "skipped": [{"entry": "bad", "reason": "Object missing required field `distribution`"}],
    }


def test_a_document_without_agents_is_told(home: Path) -> None:
    assert call(home, "refresh", str(registry(home))).stdout == "the registry document has no agents\n"


def test_a_refresh_can_be_undone_also_where_the_document_is_damaged(home: Path) -> None:
    call(home, "refresh", str(registry(home, npx("bot", "bot@1.0.0"))))
    (home / "data" / "registry.json").write_text("{")
    assert "run 'sandbox-agent agents refresh --clear'" in failed(call(home, "list"))
    url = {"SANDBOX_AGENT_ACP_REGISTRY_URL": "https://mirror.example/r.json"}  # no one asks for it
    assert call(home, "refresh", "--clear", **url).stdout == "the registry document is forgotten\n"
    assert call(home, "refresh", "--clear").stdout == "there was no registry document\n"
    assert json.loads(call(home, "refresh", "--clear", "--json").stdout) == {"cleared": False}
    assert call(home, "list").exit_code == 0


def test_a_refresh_that_fails_ends_with_one_sentence(home: Path) -> None:
    expected = "no registry document is named: give its URL or a file, or set SANDBOX_AGENT_ACP_REGISTRY_URL"
    assert failed(call(home, "refresh")) == expected
    assert failed(call(home, "refresh", SANDBOX_AGENT_ACP_REGISTRY_URL="")) == expected
    assert failed(call(home, "refresh", "/nowhere.json")).startswith("cannot read the registry document /nowhere.json")
    assert "must come over https" in failed(call(home, "refresh", "http://mirror.example/r.json"))
    assert not (home / "data").exists()


def test_a_source_and_its_end_at_once_make_no_sense(home: Path) -> None:
    done = call(home, "refresh", "--clear", "registry.json")
    assert done.exit_code == 2
    assert "give either SOURCE or --clear" in done.stderr


# -- as it is installed


def test_every_command_has_a_help_page(home: Path) -> None:
    for arguments in ([], ["list"], ["show"], ["refresh"]):
        done = call(home, *arguments, "--help")
        assert done.exit_code == 0
        assert "--help" in done.stdout
    assert "SANDBOX_AGENT_ACP_REGISTRY_URL" in call(home, "refresh", "--help").stdout


async def test_the_command_lists_agents_without_a_server(tmp_path: Path) -> None:
    done = await run("agents", "list", "--data-dir", str(tmp_path), "--json")
    assert (done.code, done.stderr) == (0, "")
    assert [agent["id"] for agent in json.loads(done.stdout)["agents"]] == [*SHIPPED]
