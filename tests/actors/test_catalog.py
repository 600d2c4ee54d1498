from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from sandbox_actors.launch import ON_PATH, BadAgentsFile, Catalog, CustomAgent, Launch, read_agents_file

from sandbox_actors.errors import AgentNotInstalled, UnsupportedAgent

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
[agents.my-agent]
command = ["my-agent", "--acp"]
cwd = "/work"
env = { KEY = "value" }
"""
JSON = '{"agents": {"my-agent": {"command": ["my-agent", "--acp"], "cwd": "/work", "env": {"KEY": "value"}}}}'


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
    return Catalog(launchers, environment={"PATH": str(path)})


def program(file: Path) -> Path:
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def with_custom(catalog: Catalog, **custom: CustomAgent) -> Catalog:
    return Catalog(catalog.launchers, custom, catalog.environment)


@pytest.mark.parametrize(("name", "text"), [("agents.toml", TOML), ("agents", TOML), ("agents.json", JSON)])
def test_an_agents_file_is_toml_or_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_agents_file(tmp_path / name) == {
        "my-agent": CustomAgent(["my-agent", "--acp"], {"KEY": "value"}, "/work")
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", b"[agents", "is not valid: Expected ']'"),
        ("a.json", b'{"agents": {', "is not valid: .*line 1"),
        ("a.toml", b"agents = 7", r"is not valid: Expected `object`, got `int` - at `\$.agents`"),
        ("a.toml", b"", "is not valid: Object missing required field `agents`"),
        ("a.toml", b"[agent.x]", "is not valid: Object contains unknown field `agent`"),
        ("a.toml", b"[agents.x]", "missing required field `command`"),
        ("a.toml", b"[agents.x]\ncommand = []", "command must name a program"),
        ("a.toml", b'[agents.x]\ncommand = [""]', "command must name a program"),
        ("a.toml", b'[agents.x]\ncommand = "run me"', "Expected `array`, got `str`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nenviron = {}', "unknown field `environ`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nenv = { N = 1 }', "Expected `str`, got `int`"),
        ("a.toml", b'[agents."../x"]\ncommand = ["x"]', r"has the id '\.\./x': use lower case letters"),
        ("a.toml", b'[agents.X]\ncommand = ["x"]', "has the id 'X'"),
        ("a.toml", b"\xff\xfe", "is not valid"),
        ("a.json", b"\xff\xfe", "is not valid"),
        ("a.json", b"[" * 100_000, "is not valid"),
    ],
)
def test_a_bad_agents_file_is_refused_and_the_message_says_what_to_mend(
    tmp_path: Path, name: str, text: bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(text)
    with pytest.raises(BadAgentsFile, match=message) as refused:
        read_agents_file(file)
    assert str(file) in str(refused.value)


def test_an_agents_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadAgentsFile, match=r"cannot read the agents file .*: No such file or directory"):
        read_agents_file(tmp_path / "none.toml")
    with pytest.raises(BadAgentsFile, match=r"cannot read the agents file .*: Is a directory"):
        read_agents_file(tmp_path)


def test_a_program_on_the_path_is_found_there_and_nowhere_else(catalog: Catalog, path: Path) -> None:
    found = program(path / "gemini")
    assert catalog.launch("gemini").argv == (str(found), "--acp")


@pytest.mark.parametrize("id", sorted(ON_PATH))
def test_a_known_agent_that_is_not_there_is_refused_with_what_to_do(catalog: Catalog, id: str) -> None:
    catalog.check(id)
    with pytest.raises(AgentNotInstalled) as refused:
        catalog.launch(id)
    assert f"provides '{ON_PATH[id][0]}'" in str(refused.value)
    assert str(catalog.launchers / f"{id}-acp") in str(refused.value)


def test_a_launcher_script_comes_before_the_path(catalog: Catalog, path: Path) -> None:
    program(path / "gemini")
    script = program(catalog.launchers / "gemini-acp")
    assert catalog.launch("gemini").argv == (str(script),)


def test_a_launcher_script_makes_an_agent_known(catalog: Catalog) -> None:
    script = program(catalog.launchers / "house-made-acp")
    assert catalog.launch("house-made").argv == (str(script),)
    assert "house-made" in catalog.known()


def test_the_users_own_agent_comes_before_all(catalog: Catalog, path: Path) -> None:
    program(path / "gemini")
    program(catalog.launchers / "gemini-acp")
    own = with_custom(catalog, gemini=CustomAgent(["own", "--flag"], {"PATH": "/own", "KEY": "value"}, "/work"))
    assert own.launch("gemini") == Launch(("own", "--flag"), {"PATH": "/own", "KEY": "value"}, "/work")


def test_mock_is_built_in_and_can_be_replaced(catalog: Catalog) -> None:
    assert catalog.launch("mock").argv == (sys.executable, "-m", "sandbox_actors.mock")
    assert with_custom(catalog, mock=CustomAgent(["other"])).launch("mock").argv == ("other",)


def test_an_unknown_agent_is_refused_with_the_ids_that_are_known(catalog: Catalog) -> None:
    program(catalog.launchers / "scripted-acp")
    own = with_custom(catalog, zebra=CustomAgent(["zebra"]))
    with pytest.raises(UnsupportedAgent) as refused:
        own.launch("nobody")
    known = ["amp", "claude", "codex", "cursor", "gemini", "mock", "opencode", "pi", "scripted", "zebra"]
    assert str(refused.value) == f"unsupported agent: nobody; known agents: {', '.join(known)}"
    assert own.known() == known


@pytest.mark.parametrize(
    "id", ["../evil", "launchers/../evil", "..", "/bin/sh", "", ".", "a/b", "A", "a\0b", "a\n", "a" * 65, "é", "-x"]
)
def test_an_id_never_becomes_a_path_before_it_has_the_shape_of_an_id(tmp_path: Path, catalog: Catalog, id: str) -> None:
    program(tmp_path / "evil-acp")
    (catalog.launchers / "launchers").mkdir()
    for name in ("a\n-acp", "A-acp", "-acp", "é-acp", "-x-acp"):
        program(catalog.launchers / name)
    with pytest.raises(UnsupportedAgent):
        catalog.check(id)
    with pytest.raises(UnsupportedAgent):
        catalog.launch(id)
    assert id not in catalog.known()


def test_a_directory_is_no_launcher(catalog: Catalog) -> None:
    (catalog.launchers / "folder-acp").mkdir()
    with pytest.raises(UnsupportedAgent):
        catalog.launch("folder")
    assert "folder" not in catalog.known()


def test_a_missing_directory_of_launchers_is_an_empty_one(tmp_path: Path) -> None:
    assert Catalog(tmp_path / "none").known() == sorted([*ON_PATH, "mock"])


def test_agents_inherit_the_environment_but_not_what_is_ours(catalog: Catalog) -> None:
    environment = {
        **catalog.environment,
        "HOME": "/root",
        "ANTHROPIC_API_KEY": "theirs",
        "SANDBOX_AGENT_TOKEN": "ours",
        "SANDBOX_AGENT_LOG_LEVEL": "ours",
        "npm_config_registry": "npm's",
        "npm_package_name": "npm's",
        "MY_npm_x": "theirs",
    }
    launch = Catalog(catalog.launchers, environment=environment).launch("mock")
    assert set(environment) - set(launch.env) == {
        "SANDBOX_AGENT_TOKEN",
        "SANDBOX_AGENT_LOG_LEVEL",
        "npm_config_registry",
        "npm_package_name",
    }
    assert launch.env["ANTHROPIC_API_KEY"] == "theirs"


def test_launcher_scripts_are_told_where_our_command_is(catalog: Catalog) -> None:
    own = Catalog(catalog.launchers, environment=catalog.environment, program="/opt/sandbox-agent")
    assert own.launch("mock").env["SANDBOX_AGENT_BIN"] == "/opt/sandbox-agent"
    assert "SANDBOX_AGENT_BIN" not in catalog.launch("mock").env
