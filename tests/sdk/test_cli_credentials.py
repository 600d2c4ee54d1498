"""`sandbox-agent credentials`: the installed command, in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from support.command import COMMAND, Finished

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-canary-1f2e-abcdefgh-wxyz"
LOGIN = "sk-ant-oat01-canary-77aa-end1"
HOSTILE = "canary-$(touch pwned)'; touch pwned #"
FAR = 4102444800000
"""Milliseconds: the year 2100."""


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the logins of three programs."""
    home = tmp_path / "home"
    write(home / ".claude/.credentials.json", {"claudeAiOauth": {"accessToken": LOGIN, "expiresAt": FAR}})
    write(home / ".codex/auth.json", {"tokens": {"access_token": "canary-of-a-codex-login", "refresh_token": "r"}})
    house = {"type": "api", "key": HOSTILE}
    write(home / ".local/share/opencode/auth.json", {"groq": {"type": "api", "key": KEY}, "My house-1": house})
    return home


async def credentials(home: Path, *arguments: str, **environment: str) -> Finished:
    with trio.fail_after(30):
        done = await trio.run_process(
            [COMMAND, "credentials", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def entry(provider: str, source: str, kind: str, shown: str, *, redacted: bool = True) -> dict[str, str | bool]:
    return {"provider": provider, "source": source, "auth_type": kind, "api_key": shown, "redacted": redacted}


async def test_extract_tells_all_that_is_found_and_hides_it(home: Path) -> None:
    done = await credentials(home, "extract", OPENAI_API_KEY="short-key")
    assert (done.code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "anthropic": entry("anthropic", "claude-code", "oauth", "sk-a...end1"),
        "openai": entry("openai", "environment", "api_key", "****"),
        "other": {
            "My house-1": entry("My house-1", "opencode", "api_key", "cana...ed #"),
            "groq": entry("groq", "opencode", "api_key", "sk-c...wxyz"),
        },
    }
    assert await credentials(home, "extract", "--json", OPENAI_API_KEY="short-key") == done


async def test_nothing_found_is_an_empty_answer(tmp_path: Path) -> None:
    done = await credentials(tmp_path, "extract")
    assert (done.code, json.loads(done.stdout)) == (0, {"anthropic": None, "openai": None, "other": {}})
    assert await credentials(tmp_path, "extract-env") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("-p", "anthropic"), "sk-a...end1"),
        (("-p", "anthropic", "--reveal"), LOGIN),
        (("-a", "claude", "-r"), LOGIN),
        (("--agent", "claude-code"), "sk-a...end1"),
        (("-a", "codex", "--reveal"), "canary-of-a-codex-login"),
        (("-p", "groq"), "sk-c...wxyz"),
        (("-p", "My house-1", "--reveal"), HOSTILE),
    ],
)
async def test_one_secret_is_one_line_hidden_unless_it_is_asked_to_be_shown(
    home: Path, arguments: tuple[str, ...], shown: str
) -> None:
    assert await credentials(home, "extract", *arguments) == (0, f"{shown}\n", "")


async def test_one_credential_as_json(home: Path) -> None:
    done = await credentials(home, "extract", "-p", "groq", "--json")
    assert json.loads(done.stdout) == entry("groq", "opencode", "api_key", "sk-c...wxyz")
    done = await credentials(home, "extract", "-p", "groq", "--json", "--reveal")
    assert json.loads(done.stdout) == entry("groq", "opencode", "api_key", KEY, redacted=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-p", "mistral"), "no credentials found for provider mistral"),
        (("-p", "openai", "--no-oauth"), "no credentials found for provider openai"),
        (("-a", "claude", "--no-oauth"), "no credentials found for agent claude"),
        (("-a", "vibe"), "no credentials found for agent vibe"),
        (("-a", "mock"), "the agent mock names no provider whose credentials it needs"),
        (("-a", "nobody"), "unsupported agent: nobody; known agents: "),
    ],
)
async def test_what_is_not_found_is_one_sentence_and_code_1(
    home: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    done = await credentials(home, "extract", *arguments)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sandbox-agent: {sentence}")
    assert done.stderr.count("\n") == 1


async def test_agent_and_provider_together_are_a_usage_error(home: Path) -> None:
    done = await credentials(home, "extract", "-a", "claude", "-p", "openai")
    assert (done.code, done.stdout) == (2, "")
    assert "not both" in done.stderr
    assert (await credentials(home, "extract", "-d", str(home / "nowhere"))).code == 2


async def test_an_agent_of_the_users_own_is_known_by_the_agents_file(home: Path, tmp_path: Path) -> None:
    agents = tmp_path / "agents.toml"
    agents.write_text('[agents.mine]\ncommand = ["mine"]\ncredentials = ["xai", "groq"]\n')
    done = await credentials(home, "extract", "-a", "mine", "--agents", str(agents))
    assert (done.code, done.stdout) == (0, "sk-c...wxyz\n")
    agents.write_text("[agents")
    done = await credentials(home, "extract", "-a", "mine", SANDBOX_AGENT_AGENTS=str(agents))
    assert done.code == 1
    assert done.stderr.startswith(f"sandbox-agent: the agents file {agents} is not valid")


async def test_another_home_has_its_own_logins(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "auth.json", {"OPENAI_API_KEY": "canary-elsewhere-1234"})
    found = await credentials(tmp_path, "extract", "-p", "openai", "-r", CODEX_HOME=str(elsewhere))
    assert found.stdout == "canary-elsewhere-1234\n"
    found = await credentials(tmp_path, "extract", "-p", "openai", "-r", "-d", str(home), CODEX_HOME=str(elsewhere))
    assert found.stdout == "canary-of-a-codex-login\n"


async def test_a_file_that_is_odd_is_told_and_passed_over(home: Path) -> None:
    (home / ".codex/auth.json").write_text("{")
    done = await credentials(home, "extract", "-p", "groq")
    assert (done.code, done.stdout) == (0, "sk-c...wxyz\n")
    assert done.stderr == f"sandbox-agent: passed over {home}/.codex/auth.json: it is no valid JSON\n"


# variables


async def test_without_reveal_a_shell_that_reads_the_variables_sets_none(home: Path) -> None:
    done = await credentials(home, "extract-env", "--export")
    assert done.code == 0
    assert done.stdout.splitlines() == [
        "# export CLAUDE_CODE_OAUTH_TOKEN=sk-a...end1",
        "# export GROQ_API_KEY=sk-c...wxyz",
        "# export MY_HOUSE_1_API_KEY=cana...ed #",
    ]
    assert done.stderr.splitlines() == [
        "# openai: no variable takes the login of codex",
        "# secrets are hidden; --reveal shows them",
    ]
    assert await shell(home, done.stdout, "CLAUDE_CODE_OAUTH_TOKEN") == ""


async def test_revealed_variables_are_quoted_for_a_shell(home: Path) -> None:
    done = await credentials(home, "extract-env", "--export", "--reveal", OPENAI_API_KEY=KEY)
    assert done.stderr == ""
    for name, value in {
        "MY_HOUSE_1_API_KEY": HOSTILE,
        "CLAUDE_CODE_OAUTH_TOKEN": LOGIN,
        "OPENAI_API_KEY": KEY,
        "CODEX_API_KEY": KEY,
        "ANTHROPIC_API_KEY": "",  # a login is no API key
    }.items():
        assert await shell(home, done.stdout, name) == value
    assert not (home / "pwned").exists()
    plain = await credentials(home, "extract-env", "-r")
    assert "export" not in plain.stdout
    assert f"GROQ_API_KEY={KEY}\n" in plain.stdout


async def test_a_key_that_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
    key = os.fsdecode(b"sk-ant-canary-\xff\xfe-1234567890")
    done = await credentials(tmp_path, "extract", "--reveal", ANTHROPIC_API_KEY=key)
    assert (done.code, json.loads(done.stdout)["anthropic"]["api_key"]) == (0, key)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a user whom nobody knows needs a namespace")
@pytest.mark.parametrize(
    ("arguments", "option"), [(["extract"], "--data-dir"), (["extract", "--data-dir", "/x"], "--home-dir")]
)
async def test_a_user_without_a_home_is_told_what_to_give(arguments: list[str], option: str) -> None:
    done = await trio.run_process(
        ["unshare", "--user", "--map-user=54321", COMMAND, "credentials", *arguments],
        env={"PATH": os.environ["PATH"]},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if b"unshare" in done.stderr:
        pytest.skip("this sandbox has no user namespaces")
    sentence = f"sandbox-agent: there is no home directory: set HOME, or give {option}\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", sentence)


async def test_a_token_of_the_environment_keeps_its_own_variable(tmp_path: Path) -> None:
    done = await credentials(tmp_path, "extract-env", "-r", ANTHROPIC_AUTH_TOKEN=LOGIN, GOOGLE_API_KEY=KEY)
    assert done.stdout == f"ANTHROPIC_AUTH_TOKEN={LOGIN}\nGOOGLE_API_KEY={KEY}\n"
    assert await credentials(tmp_path, "extract-env", "-r", "--no-oauth", ANTHROPIC_AUTH_TOKEN=LOGIN) == (0, "", "")


async def test_a_token_that_must_be_renewed_first_is_not_handed_on(tmp_path: Path) -> None:
    login = {"accessToken": LOGIN, "refreshToken": "r", "expiresAt": 1}
    write(tmp_path / ".claude/.credentials.json", {"claudeAiOauth": login})
    done = await credentials(tmp_path, "extract-env", "-r")
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr == "# anthropic: the token of claude-code has to be renewed by it first\n"


async def shell(home: Path, script: str, variable: str) -> str:
    """What a variable is for the children of a shell that has read a script."""
    done = await trio.run_process(
        ["sh", "-euc", 'eval "$SCRIPT"; printenv "$1" || true', "sh", variable],
        env={"PATH": os.environ["PATH"], "SCRIPT": script},
        cwd=home,
        capture_stdout=True,
        capture_stderr=True,
    )
    assert done.stderr == b""
    return done.stdout.decode().removesuffix("\n")


# help


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("extract", "extract-env", "--reveal")),
        (
            ("extract",),
            ("--agent", "--provider", "--home-dir", "--no-oauth", "--reveal", "--json", "Examples:", "code 1"),
        ),
        (("extract-env",), ("--export", "--home-dir", "--no-oauth", "--reveal", "Examples:", "comment")),
    ],
)
async def test_the_help_pages_say_how(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = await credentials(tmp_path, *arguments, "--help")
    assert (done.code, done.stderr) == (0, "")
    assert not [word for word in words if word not in done.stdout]
