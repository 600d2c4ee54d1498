"""Secrets are taken out of texts, whole and in every way of writing; ordinary words stay."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox_actors.redaction import REDACTED, Redactor, looks_secret, secrets_in

SECRET = 'canary/7b+"\\ü x'
printable = st.text(st.characters(codec="utf-8"), min_size=8, max_size=40).filter(lambda text: len(text.strip()) >= 8)


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(SECRET).replace("/", "\\/"),
        quote(SECRET),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        repr({"key": SECRET}),
    ],
)
def test_a_secret_is_found_as_programs_write_it(written: str) -> None:
    told = Redactor([SECRET]).redact(f"before {written} after {written}{written}")
    assert "canary" not in told
    assert told.count(REDACTED) == 3
    assert told.startswith("before ")


@given(printable, st.text(max_size=20), st.text(max_size=20))
@example("aaaaaaaa", "a", "a")
def test_no_secret_is_left_whatever_stands_round_it(secret: str, before: str, after: str) -> None:
    told = Redactor([secret]).redact(before + secret + after)
    assert secret.strip() not in told.replace(REDACTED, "\0")


@given(printable, st.integers(0, 60))
def test_no_beginning_of_a_secret_is_left_where_a_text_was_cut(secret: str, length: int) -> None:
    secret = secret.strip()
    text = f"it says {secret} twice: {secret}"
    told = Redactor([secret]).redact(text[:length], cut=True).replace(REDACTED, "\0")
    longest = max((size for size in range(len(secret) + 1) if told.endswith(secret[:size])), default=0)
    assert secret not in told
    assert longest < 4


def test_a_cut_within_a_character_hides_nothing_of_the_cut() -> None:
    data = "token: geheimnisvoll-ü".encode()[:-1]
    assert Redactor(["geheimnisvoll-ü-1"]).redact(data.decode(errors="replace"), cut=True) == f"token: {REDACTED}"


def test_the_longest_secret_is_taken_first() -> None:
    redactor = Redactor(["password-1", "password-1-and-more", "and-more-of-it"])
    assert redactor.redact("password-1-and-more password-1") == f"{REDACTED} {REDACTED}"


def test_short_texts_are_left_alone_and_none_is_no_error() -> None:
    assert Redactor(["short", "", "1234567"]).redact("short 1234567") == "short 1234567"
    assert Redactor().redact("anything", cut=True) == "anything"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("MY_SERVICE_PASSWORD", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("openaiKey", True),
        ("GH_PAT", True),
        ("DB_PASS", True),
        ("SESSION_AUTH", True),
        ("GOOGLE_CREDENTIALS", True),
        ("npm_config__authToken", True),
        ("PATH", False),
        ("KEYBOARD", False),
        ("GIT_AUTHOR_NAME", False),
        ("SSH_AUTH_SOCK", False),
        ("PRIVATE_KEY_PATH", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", False),
        ("AWS_SHARED_CREDENTIALS_FILE", False),
        ("COMPASS", False),
        ("GIT_CONFIG_KEY_0", False),
    ],
)
def test_a_variable_is_secret_by_its_name(name: str, secret: bool) -> None:
    assert looks_secret(name) is secret


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("OPENAI_API_KEY", " key-of-openai\n", {"key-of-openai"}),
        ("HOME", "/home/somebody", set[str]()),
        ("MY_TOKEN", "1234567", set[str]()),
        ("MAX_TOKENS", "1234567890", set[str]()),
        ("MY_TOKEN", "****************", set[str]()),
        ("DB_PASSWORD", "Password", set[str]()),
        ("PIN_TOKEN", "1234567890123456", {"1234567890123456"}),
        ("DATABASE_URL", "postgres://me:p%40ssword1@host/db", {"p%40ssword1", "p@ssword1"}),
        ("https_proxy", "http://user:swordfish-7@proxy:3128", {"swordfish-7"}),
        ("GIT_CONFIG_VALUE_0", "AUTHORIZATION: basic c3dvcmRmaXNo", {"c3dvcmRmaXNo"}),
        ("ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: key-of-a-gateway", {"key-of-a-gateway"}),
        (
            "AUGMENT_SESSION_AUTH",
            '{"accessToken":"token-of-augment","tenantURL":"https://a.example"}',
            {"token-of-augment", '{"accessToken":"token-of-augment","tenantURL":"https://a.example"}'},
        ),
        (
            "SSH_KEY",
            "-----BEGIN KEY-----\nline-one-of-it\n-----END KEY-----",
            {"line-one-of-it", "-----BEGIN KEY-----\nline-one-of-it\n-----END KEY-----"},
        ),
        ("SERVICE_KEY", "{ no json, though", {"{ no json, though"}),
        ("SERVICE_KEY", "{" * 100_000 + "x y z", {"{" * 100_000 + "x y z"}),
    ],
)
def test_the_secrets_of_an_environment(name: str, value: str, secrets: set[str]) -> None:
    assert secrets_in({name: value}) == secrets


def test_bytes_that_are_no_text_are_no_error() -> None:
    odd = b"canary-\xff\xfe-1".decode(errors="surrogateescape")
    assert Redactor(secrets_in({"MY_TOKEN": odd})).redact(f"it is {odd}.") == f"it is {REDACTED}."
