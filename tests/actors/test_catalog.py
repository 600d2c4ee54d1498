"""How an agent's id becomes a command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sandbox_actors.catalog import Agent, Catalog, Launch
from sandbox_actors.catalog.sources import shipped_agents
from sandbox_actors.errors import AgentNotInstalled, UnsupportedAgent

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = shipped_agents()
ON_PATH = {agent.id: agent.on_path for agent in SHIPPED.values() if agent.on_path is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory for PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    return path


@pytest.fixture
def catalog(tmp_path: Path, path: Path) -> Catalog:
    """A catalog with nothing installed."""
    launchers = tmp_path / "launchers"
    launchers.mkdir()
    return Catalog(SHIPPED, launchers, environment={"PATH": str(path)})


def program(file: Path) -> Path:
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def with_own(catalog: Catalog, *own: Agent) -> Catalog:
    return Catalog({**catalog.agents, **{agent.id: agent for agent in own}}, catalog.launchers, catalog.environment)


@pytest.mark.parametrize("id", sorted(ON_PATH))
def test_a_program_on_the_path_is_found_there_and_nowhere_else(catalog: Catalog, path: Path, id: str) -> None:
    name, *arguments = ON_PATH[id]
    assert catalog.command(id) is None
    found = program(path / name)
    assert catalog.launch(id).argv == (str(found), *arguments)


@pytest.mark.parametrize("id", sorted(ON_PATH))
def test_a_known_agent_that_is_not_there_is_refused_with_what_to_do(catalog: Catalog, id: str) -> None:
    assert catalog.resolve(id) == id
    with pytest.raises(AgentNotInstalled) as refused:
        catalog.launch(id)
    assert f"run 'sandbox-agent install-agent {id}'" in str(refused.value)
    assert f"put a program {ON_PATH[id][0]!r} on PATH" in str(refused.value)


def test_a_launcher_script_comes_before_the_path(catalog: Catalog, path: Path) -> None:
    program(path / "gemini")
    script = program(catalog.launchers / "gemini-acp")
    assert catalog.launch("gemini").argv == (str(script),)


def test_a_launcher_script_that_cannot_be_run_is_no_install(catalog: Catalog, path: Path) -> None:
    script = program(catalog.launchers / "gemini-acp")
    script.chmod(0o644)
    assert catalog.command("gemini") is None
    with pytest.raises(AgentNotInstalled) as refused:
        catalog.launch("gemini")
    assert f"its launcher {script} is not executable" in str(refused.value)
    found = program(path / "gemini")
    assert catalog.launch("gemini").argv == (str(found), "--acp")


def test_a_launcher_script_makes_an_agent_known(catalog: Catalog) -> None:
    script = program(catalog.launchers / "house-made-acp")
    assert catalog.launch("house-made").argv == (str(script),)
    assert catalog.agent("house-made") == Agent("house-made", "house-made")
    assert "house-made" in catalog.known()


def test_the_users_own_agent_comes_before_all(catalog: Catalog, path: Path) -> None:
    program(path / "gemini")
    program(catalog.launchers / "gemini-acp")
    environment = {"PATH": "/own", "KEY": "value"}
    own = Agent("gemini", "Gemini", command=["own", "--flag"], env=environment, cwd="/work")
    assert with_own(catalog, own).launch("gemini") == Launch(("own", "--flag"), environment, "/work")


def test_mock_is_built_in_and_can_be_replaced(catalog: Catalog) -> None:
    assert catalog.launch("mock").argv == (sys.executable, "-m", "sandbox_actors.mock")
    own = with_own(catalog, replace(SHIPPED["mock"], command=["other"]))
    assert own.launch("mock").argv == ("other",)


def test_an_unknown_agent_is_refused_with_the_ids_that_are_known_in_the_catalogs_order(catalog: Catalog) -> None:
    program(catalog.launchers / "scripted-acp")
    program(catalog.launchers / "bot-acp")
    own = with_own(catalog, Agent("zebra", "Zebra", command=["zebra"]))
    with pytest.raises(UnsupportedAgent) as refused:
        own.launch("nobody")
    known = [*SHIPPED, "zebra", "bot", "scripted"]
    assert str(refused.value) == f"unsupported agent: nobody; known agents: {', '.join(known)}"
    assert own.known() == known


def test_an_alias_stands_for_its_agent(catalog: Catalog, path: Path) -> None:
    found = program(path / "claude-agent-acp")
    for alias in ("claude-acp", "claude-code-acp", "claude-code"):
        assert catalog.resolve(alias) == "claude"
        assert catalog.agent(alias) is SHIPPED["claude"]
        assert catalog.launch(alias).argv == (str(found),)
        assert alias not in catalog.known()


def test_an_id_and_a_launcher_come_before_an_alias(catalog: Catalog) -> None:
    script = program(catalog.launchers / "claude-code-acp")  # of an agent `claude-code`
    assert catalog.resolve("claude-code") == "claude-code"
    assert catalog.launch("claude-code").argv == (str(script),)
    own = with_own(catalog, Agent("codex-acp", "Mine", command=["mine"]))
    assert own.launch("codex-acp").argv == ("mine",)


@pytest.mark.parametrize(
    "id", ["../evil", "launchers/../evil", "..", "/bin/sh", "", ".", "a/b", "A", "a\0b", "a\n", "a" * 65, "é", "-x"]
)
def test_an_id_never_becomes_a_path_before_it_has_the_shape_of_an_id(tmp_path: Path, catalog: Catalog, id: str) -> None:
    program(tmp_path / "evil-acp")
    (catalog.launchers / "launchers").mkdir()
    for name in ("a\n-acp", "A-acp", "-acp", "é-acp", "-x-acp"):
        program(catalog.launchers / name)
    for look_up in (catalog.resolve, catalog.agent, catalog.command, catalog.launch):
        with pytest.raises(UnsupportedAgent):
            look_up(id)
    assert catalog.launcher(id) is None
    assert id not in catalog.known()


def test_a_directory_is_no_launcher(catalog: Catalog) -> None:
    (catalog.launchers / "folder-acp").mkdir()
    with pytest.raises(UnsupportedAgent):
        catalog.launch("folder")
    assert "folder" not in catalog.known()


def test_a_missing_directory_of_launchers_is_an_empty_one(tmp_path: Path) -> None:
    assert Catalog(SHIPPED, tmp_path / "none").known() == [*SHIPPED]


def test_agents_inherit_the_environment_but_not_what_is_ours(catalog: Catalog) -> None:
    environment = {
        **catalog.environment,
        "HOME": "/root",
        "ANTHROPIC_API_KEY": "theirs",
        "SANDBOX_AGENT_TOKEN": "ours",
        "SANDBOX_AGENT_LOG_LEVEL": "ours",
        "npm_config_registry": "npm's",
        "npm_package_name": "npm's",
    }
    own = replace(SHIPPED["claude"], command=["own"], env={"KEY": "value"})
    launch = with_own(Catalog(SHIPPED, catalog.launchers, environment), own).launch("claude")
    assert launch.env == {
        "PATH": environment["PATH"],
        "HOME": "/root",
        "ANTHROPIC_API_KEY": "theirs",
        "KEY": "value",
    }


def test_launcher_scripts_are_told_where_our_command_is(catalog: Catalog) -> None:
    own = Catalog(SHIPPED, catalog.launchers, environment=catalog.environment, program="/opt/sandbox-agent")
    assert own.launch("mock").env["SANDBOX_AGENT_BIN"] == "/opt/sandbox-agent"
    assert "SANDBOX_AGENT_BIN" not in catalog.launch("mock").env
