"""Which credentials a user has: from a real home directory, and an environment that is given."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandbox_actors.catalog.sources import read_agents
from sandbox_actors.credentials import PROVIDERS, Credential, Kind, Secret, discover
from sandbox_actors.credentials.providers import LOGINS

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
SECRET = "canary-4f1d-of-a-login"


def write(path: Path, text: str | object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def in_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def token_until(moment: datetime) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(moment.timestamp())}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


def winner(home: Path, provider: str, **environment: str) -> tuple[str, str, str] | None:
    found = discover(home, environment, now=NOW).find(provider)
    return None if found is None else (found.kind, found.source, found.secret.reveal())


# the environment


def test_every_variable_of_every_provider_is_found(tmp_path: Path) -> None:
    for name, provider in PROVIDERS.items():
        for variable in provider.secrets:
            found = discover(tmp_path, {variable: SECRET}).find(name)
            kind: Kind = "api_key" if variable in provider.keys else "oauth"
            assert found == Credential(name, kind, "environment", variable, Secret(SECRET))


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_an_empty_variable_is_no_credential(tmp_path: Path, value: str) -> None:
    found = discover(tmp_path, {"ANTHROPIC_API_KEY": value, "ANTHROPIC_AUTH_TOKEN": SECRET})
    assert [credential.where for credential in found.all] == ["ANTHROPIC_AUTH_TOKEN"]
    assert not discover(tmp_path, {"OPENAI_API_KEY": value}).available(["openai"])


def test_the_environment_comes_before_files_a_key_before_a_token_and_the_first_variable_before_the_next(
    tmp_path: Path,
) -> None:
    write(tmp_path / ".claude.json", {"primaryApiKey": "sk-ant-file"})
    environment = {
        "ANTHROPIC_AUTH_TOKEN": "token 2",
        "CLAUDE_CODE_OAUTH_TOKEN": "token 1",
        "CLAUDE_API_KEY": "key 2",
        "ANTHROPIC_API_KEY": "key 1",
    }
    found = discover(tmp_path, environment)
    assert [one.secret.reveal() for one in found.all] == ["key 1", "key 2", "token 1", "token 2", "sk-ant-file"]
    assert found.find("anthropic") == found.all[0]
    assert found.providers == ["anthropic"]


def test_without_logins_only_keys_count(tmp_path: Path) -> None:
    write(tmp_path / ".codex/auth.json", {"OPENAI_API_KEY": "key", "tokens": {"access_token": "token"}})
    found = discover(tmp_path, {"CLAUDE_CODE_OAUTH_TOKEN": "token"}, oauth=False)
    assert [(one.provider, one.secret.reveal()) for one in found.all] == [("openai", "key")]
    assert len(discover(tmp_path, {"CLAUDE_CODE_OAUTH_TOKEN": "token"}).all) == 3


def test_one_provider_of_an_agents_is_enough_and_none_is_needed_by_one_that_names_none(tmp_path: Path) -> None:
    found = discover(tmp_path, {"MISTRAL_API_KEY": SECRET})
    assert found.available([])
    assert found.available(["mistral"])
    assert found.available(["anthropic", "mistral"])
    assert not found.available(["anthropic", "openai"])
    assert not found.available(["nobody"])


def test_every_provider_that_a_shipped_agent_names_is_known() -> None:
    named = {provider for agent in read_agents(None).values() for provider in agent.credentials}
    assert named <= PROVIDERS.keys()


def test_no_variable_belongs_to_two_providers_and_every_login_to_a_known_one() -> None:
    variables = [variable for provider in PROVIDERS.values() for variable in provider.secrets]
    assert len(variables) == len(set(variables))
    for provider in PROVIDERS.values():
        assert set(provider.exported) <= set(provider.keys)
        assert provider.token_exported is None or provider.token_exported in provider.tokens
    assert all(login.provider in PROVIDERS or login.format == "opencode" for login in LOGINS)


def test_the_documentation_names_every_variable_and_every_program() -> None:
    page = (Path(__file__).parents[2] / "docs" / "credentials.md").read_text()
    for name, provider in PROVIDERS.items():
        assert f"`{name}`" in page
        for variable in provider.secrets:
            assert f"`{variable}`" in page or variable == f"{name.upper()}_API_KEY", variable
    for login in LOGINS:
        assert f"| {login.source} | " in page
        assert login.path.rpartition("/")[2] in page


# login files


@pytest.mark.parametrize(
    ("provider", "source", "kind", "path", "text"),
    [
        ("anthropic", "amp", "api_key", ".amp/config.json", {"anthropicApiKey": "sk-ant-1"}),
        ("amp", "amp", "api_key", ".local/share/amp/secrets.json", {"apiKey@https://amp.example/": "sk-ant-1"}),
        ("anthropic", "claude-code", "api_key", ".claude.json.api", {"apiKey": "no", "customApiKey": "sk-ant-1"}),
        ("anthropic", "claude-code", "api_key", ".claude.json", {"primaryApiKey": "sk-ant-1", "projects": {}}),
        (
            "anthropic",
            "claude-code",
            "oauth",
            ".claude/.credentials.json",
            {"claudeAiOauth": {"accessToken": "sk-ant-1", "expiresAt": in_ms(AFTER)}},
        ),
        (
            "anthropic",
            "claude-code",
            "oauth",
            ".claude-oauth-credentials.json",
            {"claudeAiOauth": {"accessToken": "sk-ant-1", "expiresAt": AFTER.isoformat()}},
        ),
        ("openai", "codex", "api_key", ".codex/auth.json", {"OPENAI_API_KEY": "sk-ant-1", "tokens": None}),
        (
            "openai",
            "codex",
            "oauth",
            ".codex/auth.json",
            {"OPENAI_API_KEY": None, "tokens": {"access_token": "sk-ant-1"}},
        ),
        ("google", "gemini", "api_key", ".gemini/.env", "# mine\nOTHER=1\nexport GEMINI_API_KEY = 'sk-ant-1' # x\n"),
        ("google", "gemini", "oauth", ".gemini/oauth_creds.json", {"access_token": "sk-ant-1", "expiry_date": 0}),
        (
            "alibaba",
            "qwen",
            "oauth",
            ".qwen/oauth_creds.json",
            {"access_token": "sk-ant-1", "expiry_date": in_ms(AFTER), "refresh_token": "r"},
        ),
        ("mistral", "vibe", "api_key", ".vibe/.env", "MISTRAL_API_KEY=sk-ant-1 # comment"),
        (
            "moonshot",
            "kimi",
            "api_key",
            ".kimi/config.toml",
            '[providers.a]\ntype = "openai"\napi_key = "no"\n[providers.b]\ntype = "kimi"\napi_key = "sk-ant-1"',
        ),
        (
            "moonshot",
            "kimi",
            "oauth",
            ".kimi/credentials/kimi-code.json",
            {"access_token": "sk-ant-1", "expires_at": AFTER.timestamp()},
        ),
        ("cursor", "cursor", "oauth", ".config/cursor/auth.json", {"accessToken": "sk-ant-1", "refreshToken": "r"}),
        ("factory", "droid", "oauth", ".factory/auth.json", {"access_token": "sk-ant-1"}),
        ("augment", "auggie", "oauth", ".augment/session.json", {"accessToken": "sk-ant-1", "tenantURL": "x"}),
        (
            "groq",
            "opencode",
            "api_key",
            ".local/share/opencode/auth.json",
            {"groq": {"type": "api", "key": "sk-ant-1"}},
        ),
        (
            "a-house-model",
            "opencode",
            "oauth",
            ".local/share/opencode/auth.json",
            {"a-house-model": {"type": "oauth", "access": "sk-ant-1", "expires": in_ms(AFTER)}, "b": 1},
        ),
    ],
)
def test_the_login_of_a_known_program_is_found(
    tmp_path: Path, provider: str, source: str, kind: str, path: str, text: str | object
) -> None:
    write(tmp_path / path, text)
    found = discover(tmp_path, {}, now=NOW)
    assert found.problems == ()
    (credential,) = found.all
    assert (credential.provider, credential.source, credential.kind) == (provider, source, kind)
    assert credential.where == str(tmp_path / path)
    assert credential.secret == Secret("sk-ant-1")


@pytest.mark.parametrize(
    ("variable", "folder", "path", "provider", "text"),
    [
        ("CLAUDE_CONFIG_DIR", "c", ".credentials.json", "anthropic", {"claudeAiOauth": {"accessToken": SECRET}}),
        ("CLAUDE_CONFIG_DIR", "c", ".claude.json", "anthropic", {"primaryApiKey": f"sk-ant-{SECRET}"}),
        ("CODEX_HOME", "x", "auth.json", "openai", {"OPENAI_API_KEY": SECRET}),
        ("XDG_DATA_HOME", "d", "opencode/auth.json", "groq", {"groq": {"type": "api", "key": SECRET}}),
        ("XDG_CONFIG_HOME", "d", "cursor/auth.json", "cursor", {"accessToken": SECRET}),
        ("VIBE_HOME", "v", ".env", "mistral", f'MISTRAL_API_KEY="{SECRET}"'),
        ("KIMI_SHARE_DIR", "k", "credentials/kimi-code.json", "moonshot", {"access_token": SECRET}),
    ],
)
def test_programs_may_keep_their_logins_elsewhere(
    tmp_path: Path, variable: str, folder: str, path: str, provider: str, text: str | object
) -> None:
    write(tmp_path / folder / path, text)
    home = tmp_path / "home"
    assert not discover(home, {}).available([provider])
    assert discover(home, {variable: str(tmp_path / folder)}).available([provider])
    assert not discover(home, {variable: ""}).available([provider])  # as shells and the programs have it


def test_files_count_in_the_order_of_the_table(tmp_path: Path) -> None:
    write(tmp_path / ".local/share/opencode/auth.json", {"anthropic": {"type": "api", "key": "opencode's"}})
    assert winner(tmp_path, "anthropic") == ("api_key", "opencode", "opencode's")
    write(tmp_path / ".claude/.credentials.json", {"claudeAiOauth": {"accessToken": "login"}})
    assert winner(tmp_path, "anthropic") == ("oauth", "claude-code", "login")
    write(tmp_path / ".claude.json", {"primaryApiKey": "sk-ant-key"})
    assert winner(tmp_path, "anthropic") == ("api_key", "claude-code", "sk-ant-key")
    assert winner(tmp_path, "anthropic", CLAUDE_CODE_OAUTH_TOKEN="mine") == ("oauth", "environment", "mine")


# ends of tokens


@pytest.mark.parametrize("end", [in_ms(BEFORE), BEFORE.timestamp(), BEFORE.isoformat(), "2026-01-01T00:00:00Z"])
def test_a_login_that_has_ended_does_not_count_unless_its_owner_can_renew_it(tmp_path: Path, end: float | str) -> None:
    login: dict[str, object] = {"accessToken": SECRET, "expiresAt": end}
    write(tmp_path / ".claude/.credentials.json", {"claudeAiOauth": login})
    found = discover(tmp_path, {}, now=NOW)
    assert found.all == ()
    (problem,) = found.problems
    assert problem == f"{tmp_path}/.claude/.credentials.json: the login has ended; log in again with claude-code"
    write(tmp_path / ".claude/.credentials.json", {"claudeAiOauth": {**login, "refreshToken": "renew"}})
    found = discover(tmp_path, {}, now=NOW)
    assert found.problems == ()
    assert found.all[0].refreshable
    assert found.all[0].expired(NOW)
    assert found.all[0].expires is not None


@pytest.mark.parametrize("end", [None, 0, "", "tomorrow", True, -5, 1e300, [1], "9" * 400])
def test_an_end_that_makes_no_sense_is_none(tmp_path: Path, end: object) -> None:
    write(tmp_path / ".claude/.credentials.json", {"claudeAiOauth": {"accessToken": SECRET, "expiresAt": end}})
    (credential,) = discover(tmp_path, {}, now=NOW).all
    assert credential.expires is None


def test_a_token_that_says_itself_when_it_ends_is_believed(tmp_path: Path) -> None:
    file = tmp_path / ".codex/auth.json"
    for moment, counts in ((AFTER, True), (BEFORE, False)):
        write(file, {"tokens": {"access_token": token_until(moment)}})
        assert discover(tmp_path, {}, now=NOW).available(["openai"]) == counts
    for odd in ("a.b.c", "..", "e30.bnVsbA.x", f"e30.{'W' * 90_000}.x"):
        write(file, {"tokens": {"access_token": odd}})
        assert discover(tmp_path, {}, now=NOW).available(["openai"])


# files that are odd


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is no valid JSON"),
        ("", "it is no valid JSON"),
        ("[" * 200_000, "it is no valid JSON"),
        ("[1]", "it is no table"),
        (b"\xff\xfe{}", "it is not UTF-8"),
        (b" " * ((16 << 20) + 1), "it is larger than 16 MiB"),
    ],
)
def test_a_file_that_cannot_be_understood_is_told_and_passed_over(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    file = tmp_path / ".codex/auth.json"
    write(file, "")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = discover(tmp_path, {"GROQ_API_KEY": SECRET})
    assert found.problems == (f"{file}: {reason}",)
    assert found.providers == ["groq"]


def test_what_is_no_regular_file_is_not_even_read(tmp_path: Path) -> None:
    for folder in (".codex", ".gemini", ".qwen", ".factory"):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / ".codex/auth.json")  # reading it would wait for ever
    (tmp_path / ".gemini/oauth_creds.json").mkdir()
    (tmp_path / ".qwen/oauth_creds.json").symlink_to("/dev/zero")
    (tmp_path / ".factory/auth.json").symlink_to("auth.json")
    (tmp_path / ".claude").write_text("a file where a folder is expected")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / ".claude.json"))
        found = discover(tmp_path, {"CODEX_HOME": str(tmp_path / ".codex"), "VIBE_HOME": "/dev/null"})
    assert found.all == ()
    assert {problem.rpartition(": ")[2] for problem in found.problems} == {
        "it is no regular file",
        "Too many levels of symbolic links",
        "No such device or address",
    }
    assert len(found.problems) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / ".claude.json"
    file.touch(mode=0o000)
    assert discover(tmp_path, {}).problems == (f"{file}: Permission denied",)


@pytest.mark.parametrize("value", [None, 7, "", " ", "two\nlines", "nul\0", ["a"], {"a": "b"}])
def test_what_can_be_no_secret_is_none(tmp_path: Path, value: object) -> None:
    write(tmp_path / ".codex/auth.json", {"OPENAI_API_KEY": value, "tokens": {"access_token": value}})
    write(tmp_path / ".local/share/opencode/auth.json", {"x": {"type": "api", "key": value}, "y": value})
    found = discover(tmp_path, {})
    assert (found.all, found.problems) == ((), ())


def test_links_to_login_files_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "dotfiles/auth.json", {"OPENAI_API_KEY": SECRET})
    (tmp_path / ".codex").symlink_to("dotfiles")
    assert winner(tmp_path, "openai") == ("api_key", "codex", SECRET)


# secrets


def test_a_secret_shows_itself_only_to_who_asks_for_it_by_name(tmp_path: Path) -> None:
    found = discover(tmp_path, {"OPENAI_API_KEY": SECRET})
    secret = found.all[0].secret
    assert secret.reveal() == SECRET
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", repr(found)):
        assert re.search("canary|4f1d|login", shown) is None
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert len({secret, Secret(SECRET), Secret("other")}) == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("abcdefghijklmnopqrst", "abcd...qrst"),
        ("abcdefghijklmnopqrs", "****"),
        ("", "****"),
        ("a\nb\x1bcdefghijklmnopq\n\u202e", "a?b?...pq??"),
    ],
)
def test_only_a_long_secret_shows_its_ends_and_only_on_one_line(value: str, shown: str) -> None:
    assert Secret(value).redacted == shown
