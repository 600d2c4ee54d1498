"""The user's file and the user's variables, over the agents that we ship."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox_actors.catalog import Agent, BadCatalog, Distribution, Native, Npx, Uvx
from sandbox_actors.catalog.sources import read_agents, shipped_agents

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = shipped_agents()

TOML = """
[agents.my-agent]
command = ["my-agent", "--acp"]
cwd = "/work"
env = { KEY = "value" }
"""
JSON = '{"agents": {"my-agent": {"command": ["my-agent", "--acp"], "cwd": "/work", "env": {"KEY": "value"}}}}'


def read(tmp_path: Path, text: str, **variables: str) -> dict[str, Agent]:
    file = tmp_path / "agents.toml"
    file.write_text(text)
    return read_agents(file, tmp_path / "registry.json", variables)


def refusal(tmp_path: Path, text: str = "[agents]", **variables: str) -> str:
    with pytest.raises(BadCatalog) as refused:
        read(tmp_path, text, **variables)
    return str(refused.value)


def test_without_a_file_there_are_the_agents_that_we_ship() -> None:
    assert read_agents(None) == SHIPPED


# -- the user's file


@pytest.mark.parametrize(("name", "text"), [("agents.toml", TOML), ("agents", TOML), ("agents.json", JSON)])
def test_an_agents_file_is_toml_or_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    agents = read_agents(tmp_path / name)
    own = Agent("my-agent", "my-agent", command=["my-agent", "--acp"], env={"KEY": "value"}, cwd="/work", origin="file")
    assert agents == {**SHIPPED, "my-agent": own}
    assert list(agents) == [*SHIPPED, "my-agent"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", b"[agents", "is not valid: Expected ']'"),
        ("a.json", b'{"agents": {', "is not valid: .*line 1"),
        ("a.toml", b"agents = 7", r"is not valid: Expected `object`, got `int` - at `\$.agents`"),
        ("a.toml", b"", "is not valid: Object missing required field `agents`"),
        ("a.toml", b"[agent.x]", "is not valid: Object contains unknown field `agent`"),
        ("a.toml", b"[agents.x]", "'x' that is not valid: it is no agent that we know, so it needs `command` or `dist"),
        ("a.toml", b"[agents.x]\nversion = '1'", "needs `command` or `distribution`"),
        ("a.toml", b"[agents.x]\ncommand = []", "command must name a program"),
        ("a.toml", b'[agents.x]\ncommand = [""]', "command must name a program"),
        ("a.toml", b'[agents.x]\ncommand = ["a\\u0000b"]', "NUL"),
        ("a.toml", b'[agents.x]\ncommand = "run me"', r"Expected `array \| null`, got `str`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nenviron = {}', "unknown field `environ`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nid = "y"', "unknown field `id`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\norigin = "shipped"', "unknown field `origin`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nenv = { N = 1 }', "Expected `str`, got `int`"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nenv = { "A;id" = "1" }', "'A;id' is no name of a variable"),
        ("a.toml", b'[agents.x]\ncommand = ["x"]\nnode = 0', "node must be a major version"),
        ("a.toml", b'[agents."../x"]\ncommand = ["x"]', r"has the id '\.\./x': use lower case letters"),
        ("a.toml", b'[agents.X]\ncommand = ["x"]', "has the id 'X'"),
        ("a.toml", b"[agents.x.distribution]", "distribution needs npx, uvx or binary"),
        ("a.toml", b"[agents.x.distribution.npm]", "unknown field `npm`"),
        ("a.toml", b'[agents.x]\ndistribution.npx.package = "--global"', "'--global' is no package"),
        ("a.toml", b'[agents.x]\ndistribution.uvx.package = "a\\nb"', "is no package"),
        ("a.toml", b'[agents.claude]\npackages = ["-g"]', "'-g' is no package"),
        ("a.toml", b'[agents.claude]\nversion = "1.0 || 2.0"', "'1.0 || 2.0' is no version"),
        ("a.toml", b'[agents.claude]\nversion = "file:///tmp/x"', "is no version"),
        ("a.toml", b'[agents.mock]\nversion = "1.0"', "not installed from npm or PyPI"),
        ("a.toml", b'[agents.claude]\nversion = "1"\ndistribution.npx.package = "a@2"', "is '1', but its package asks"),
        ("a.toml", b'[agents.claude-code]\nversion = "1.0"', r"to change 'claude', .* define \[agents.claude\]"),
        ("a.toml", b'[agents.claude]\naliases = ["codex"]', "the alias 'codex', which is 'codex' already"),
        ("a.toml", b'[agents.claude]\naliases = ["codex-acp"]', "the alias 'codex-acp', which is 'codex' already"),
        ("a.toml", b'[agents.claude]\naliases = ["claude"]', "the alias 'claude', which is 'claude' already"),
        ("a.toml", b'[agents.claude]\naliases = ["Big"]', "the alias 'Big' is no id"),
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
    with pytest.raises(BadCatalog, match=message) as refused:
        read_agents(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ("http://mirror.example/a.tgz", "archive must be a URL: https, file, or http on loopback"),
        ("ftp://mirror.example/a.tgz", "archive must be a URL"),
        ("a.tgz", "archive must be a URL"),
        ("https:///a.tgz", "archive must be a URL"),
        ("https://[::1/a.tgz", "IPv6"),
        ("https://mirror.example:port/a.tgz", "Port could not be cast"),
        ("https://mirror.example/a.tgz", None),
        ("http://127.0.0.1:8000/a.tgz", None),
        ("http://[::1]:8000/a.tgz", None),
        ("file:///srv/mirror/a.tgz", None),
    ],
)
def test_an_archive_comes_over_https_or_from_this_machine(tmp_path: Path, archive: str, message: str | None) -> None:
    text = f'[agents.x.distribution.binary.linux-x86_64]\narchive = "{archive}"\ncmd = "./x"'
    if message is None:
        assert read(tmp_path, text)["x"].distribution is not None
    else:
        assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('cmd = "/bin/sh"', "cmd must be a path within the archive"),
        ('cmd = "a/../../b"', "cmd must be a path within the archive"),
        ("cmd = 'a\\..\\b'", "cmd must be a path within the archive"),
        ('cmd = "./"', "cmd must name a program"),
        ('cmd = "x"\nsha256 = "abc"', "sha256 must have 64 hexadecimal digits"),
        ('cmd = "x"\nplatform = "any"', "unknown field `platform`"),
    ],
)
def test_a_bad_archive_is_refused(tmp_path: Path, members: str, message: str) -> None:
    text = f'[agents.x.distribution.binary.linux-x86_64]\narchive = "https://mirror.example/a.tgz"\n{members}'
    assert message in refusal(tmp_path, text)


def test_a_platform_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    text = '[agents.x.distribution.binary.linux-amd64]\narchive = "https://mirror.example/a.tgz"\ncmd = "x"'
    assert "there is no platform 'linux-amd64': use one of darwin-aarch64, " in refusal(tmp_path, text)


def test_an_agents_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCatalog, match=r"cannot read the agents file .*: No such file or directory"):
        read_agents(tmp_path / "none.toml")
    with pytest.raises(BadCatalog, match=r"cannot read the agents file .*: Is a directory"):
        read_agents(tmp_path)


def test_a_version_alone_pins_the_main_package(tmp_path: Path) -> None:
    agents = read(tmp_path, '[agents.claude]\nversion = "0.99.0"\n[agents.hermes]\nversion = "0.18.1"')
    claude, hermes = agents["claude"], agents["hermes"]
    assert claude.distribution == Distribution(npx=Npx("@agentclientprotocol/claude-agent-acp@0.99.0"))
    assert (claude.version, claude.origin) == ("0.99.0", "file")
    assert (claude.packages, claude.after_install) == (SHIPPED["claude"].packages, SHIPPED["claude"].after_install)
    assert hermes.distribution == Distribution(uvx=Uvx("hermes-agent[acp]==0.18.1", ["acp"]))


def test_parts_of_the_main_package_go_along_to_another_version(tmp_path: Path) -> None:
    kilo = read(tmp_path, '[agents.kilo]\nversion = "7.5.5"')["kilo"]
    assert kilo.distribution == Distribution(npx=Npx("@kilocode/cli@7.5.5", ["acp"]))
    assert kilo.packages == [package.replace("@7.7.7", "@7.5.5") for package in SHIPPED["kilo"].packages]


def test_a_distribution_takes_the_place_of_ours_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    text = """
    [agents.claude]
    distribution.npx = { package = "@mine/claude-acp@1.2.3", args = ["--stdio"] }
    [agents.cursor.distribution.binary.linux-x86_64]
    archive = "https://mirror.example/cursor.tgz"
    cmd = "cursor-agent"
    """
    agents = read(tmp_path, text)
    claude, cursor = agents["claude"], agents["cursor"]
    assert claude.distribution == Distribution(npx=Npx("@mine/claude-acp@1.2.3", ["--stdio"]))
    assert (claude.version, claude.program, claude.packages) == ("1.2.3", None, [])
    assert (claude.after_install, claude.on_path, claude.native) == (None, None, Native("claude"))
    assert (claude.name, claude.credentials, claude.node) == ("Claude Code", ["anthropic"], 22)
    assert cursor.needs == {}
    assert cursor.version is None


def test_a_package_without_a_version_takes_the_one_beside_it(tmp_path: Path) -> None:
    text = '[agents.bot]\nversion = "3.1"\ndistribution.uvx.package = "my-bot[acp]"'
    bot = read(tmp_path, text)["bot"]
    assert bot.distribution == Distribution(uvx=Uvx("my-bot[acp]==3.1"))
    assert read(tmp_path, '[agents.bot]\ndistribution.npx.package = "bot"')["bot"].version is None


def test_a_package_of_the_users_may_be_a_folder_or_a_url(tmp_path: Path) -> None:
    text = '[agents.bot]\nversion = "1.0"\ndistribution.npx.package = "file:../bot"'
    bot = read(tmp_path, text)["bot"]
    assert bot.distribution == Distribution(npx=Npx("file:../bot"))
    assert bot.version == "1.0"


def test_a_command_is_run_as_it_is_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    gemini = read(tmp_path, '[agents.gemini]\ncommand = ["/opt/gemini", "--acp"]\nversion = "mine"')["gemini"]
    assert gemini.command == ["/opt/gemini", "--acp"]
    assert (gemini.distribution, gemini.lacks) == (SHIPPED["gemini"].distribution, SHIPPED["gemini"].lacks)
    assert (gemini.version, gemini.origin) == ("mine", "file")


def test_variables_aliases_and_patterns_are_added_and_lists_are_replaced(tmp_path: Path) -> None:
    text = """
    [agents.claude]
    env = { DISABLE_AUTOUPDATER = "0", MINE = "yes" }
    aliases = ["sonnet"]
    environment = ["MY_PROXY_*"]
    credentials = ["openrouter"]
    """
    claude = read(tmp_path, text)["claude"]
    assert claude.env == {**SHIPPED["claude"].env, "DISABLE_AUTOUPDATER": "0", "MINE": "yes"}
    assert claude.aliases == [*SHIPPED["claude"].aliases, "sonnet"]
    assert claude.environment == [*SHIPPED["claude"].environment, "MY_PROXY_*"]
    assert claude.credentials == ["openrouter"]
    assert claude.origin == "shipped"  # how it is had has not changed


def test_an_agent_that_the_user_names_so_is_no_longer_an_alias_of_another(tmp_path: Path) -> None:
    agents = read(tmp_path, '[agents.claude-code]\ncommand = ["mine"]')
    assert agents["claude-code"].command == ["mine"]
    assert "claude-code" not in agents["claude"].aliases
    assert "claude-acp" in agents["claude"].aliases


def test_known_agents_keep_their_place(tmp_path: Path) -> None:
    assert list(read(tmp_path, '[agents.zebra]\ncommand = ["z"]\n[agents.codex]\ncwd = "/"')) == [*SHIPPED, "zebra"]


# -- variables


def test_a_variable_is_a_command_line(tmp_path: Path) -> None:
    agents = read(tmp_path, "[agents]", SANDBOX_AGENT_AGENT_MY_BOT="my-bot --acp --name 'a b'", PATH="/bin")
    bot = Agent("my-bot", "my-bot", command=["my-bot", "--acp", "--name", "a b"], origin="environment")
    assert agents == {**SHIPPED, "my-bot": bot}


def test_a_variable_comes_over_the_file_and_changes_the_command_alone(tmp_path: Path) -> None:
    text = '[agents.my_bot]\ncommand = ["one"]\ncwd = "/work"\n[agents."v1.5"]\ncommand = ["one"]'
    agents = read(
        tmp_path,
        text,
        SANDBOX_AGENT_AGENT_MY_BOT="two",
        SANDBOX_AGENT_AGENT_V1_5="three",
        SANDBOX_AGENT_AGENT_CLAUDE="four",
    )
    assert (agents["my_bot"].command, agents["my_bot"].cwd) == (["two"], "/work")
    assert agents["v1.5"].command == ["three"]
    assert agents["claude"].command == ["four"]
    assert agents["claude"].credentials == ["anthropic"]
    assert "my-bot" not in agents


def test_a_variable_that_may_mean_two_agents_is_refused(tmp_path: Path) -> None:
    text = '[agents.my_bot]\ncommand = ["one"]\n[agents.my-bot]\ncommand = ["one"]'
    message = refusal(tmp_path, text, SANDBOX_AGENT_AGENT_MY_BOT="two")
    assert message == "the variable SANDBOX_AGENT_AGENT_MY_BOT is ambiguous: it may mean 'my_bot' or 'my-bot'"


@pytest.mark.parametrize("suffix", ["", "_", "_X", "my_bot", "É", "X-Y", "X" * 65])
def test_a_variable_that_names_no_agent_is_refused(tmp_path: Path, suffix: str) -> None:
    message = refusal(tmp_path, **{f"SANDBOX_AGENT_AGENT_{suffix}": "bot"})
    assert f"the variable SANDBOX_AGENT_AGENT_{suffix} names no agent" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty: give it a command line, or unset it"),
        ("  ", "is empty"),
        ("bot --key 's3cret", "is no command line: no closing quotation"),
        ("'' --key s3cret", "is no command line: command must name a program"),
    ],
)
def test_a_variable_that_is_no_command_line_is_refused_without_saying_what_is_in_it(
    tmp_path: Path, value: str, message: str
) -> None:
    told = refusal(tmp_path, SANDBOX_AGENT_AGENT_BOT=value)
    assert told.startswith(f"the variable SANDBOX_AGENT_AGENT_BOT {message}")
    assert "s3cret" not in told


def test_the_option_for_the_file_is_no_agent(tmp_path: Path) -> None:
    assert read(tmp_path, "[agents]", SANDBOX_AGENT_AGENTS="/etc/agents.toml") == SHIPPED
