"""Redaction: the secrets that this daemon was given, taken out of what it tells.

It knows secrets by where they came from, not by their looks: the variables of known providers, variables that are named
like a secret, passwords within a URL, and the daemon's own token. Each is also known as a URL, JSON and Python write
it. What an agent says on stdout is the conversation, and is passed on as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, quote_plus, unquote

from .credentials import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["REDACTED", "Redactor", "looks_secret", "secrets_in", "telling"]

REDACTED = "[redacted]"

SHORTEST = 8
"""Characters of the shortest secret that is looked for: a shorter one may be a part of anything."""

PART_FROM = 4
"""Characters of the beginning of a secret that must not be left where a text was cut in the middle of it."""

SECRET_NAME = re.compile(
    r"(?i)TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|KEY($|_|S$)|(^|_)(AUTH|PAT|PW|PASS)($|_)|AUTHORIZATION"
)
PLACE_NAME = re.compile(r"(?i).*(_(FILE|PATH|DIR|SOCK|HOME)S?|APPLICATION_CREDENTIALS)|GIT_CONFIG_KEY_\d+")
"""Named like a secret, but it only says where one is, or which setting comes next."""

PROVIDER_VARIABLES = frozenset(variable for provider in PROVIDERS.values() for variable in provider.secrets)

COMMON = frozenset({"anonymous", "changeme", "disabled", "internal", "localhost", "password", "required", "undefined"})
"""Values that stand for something else wherever they turn up."""

FEW_LETTERS = 4
"""Different characters that a secret has at least: `********` is none."""

URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@", re.IGNORECASE)
AUTHORIZATION = re.compile(r"\b(?:authorization|(?:x-)?api-key)\s*:\s*(?:\w+\s+)?(\S+)", re.IGNORECASE)
LINE_MARK = re.compile(r"-{4,}.*-{4,}")
"""The first and last line of a key in PEM (RFC 7468), which are the same in every one."""


def looks_secret(name: str) -> bool:
    """Whether a variable's name says that its value is nobody's business."""
    return SECRET_NAME.search(name) is not None and PLACE_NAME.fullmatch(name) is None


def secrets_in(environment: Mapping[str, str]) -> set[str]:
    """The texts in an environment that must not be told."""
    found: set[str] = set()
    for name, value in environment.items():
        if name in PROVIDER_VARIABLES or looks_secret(name):
            found.update(_parts(value))
        for pattern in (URL_PASSWORD, AUTHORIZATION):
            found.update(pattern.findall(value))
    return {secret for secret in found | {unquote(secret) for secret in found} if _telling(secret)}


def telling(values: Iterable[str]) -> set[str]:
    """Those of some values, none of which must be told, that can be looked for."""
    return {value.strip() for value in values if _telling(value.strip())}


class Redactor:
    """Takes secrets out of texts.

    Args:
      secrets: what to look for; those of less than eight characters are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: list[str] = []
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Look for these, too, from now on."""
        forms = {form for secret in secrets for form in _forms(secret.strip()) if len(form) >= SHORTEST}
        # The longest first: one secret may be the beginning of another.
        self._forms = sorted(forms.union(self._forms), key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None

    def redact(self, text: str, *, cut: bool = False) -> str:
        """The text without secrets.

        Args:
          cut: its end was cut off, so that it may end in the beginning of a secret.
        """
        if self._pattern is None:
            return text
        text = self._pattern.sub(REDACTED, text)
        return self._whole(text) if cut else text

    def _whole(self, text: str) -> str:
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # what is left of a character that was cut
        part = 0
        for form in self._forms:
            length = min(len(form) - 1, len(text))
            while length >= max(PART_FROM, part + 1) and not text.endswith(form[:length]):
                length -= 1
            if length >= max(PART_FROM, part + 1):
                part = length
        return text[: len(text) - part] + REDACTED if part else text


def _parts(value: str) -> Iterator[str]:
    """A value, its lines, and the texts in it where it is JSON: each may turn up alone."""
    value = value.strip()
    yield value
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if not LINE_MARK.fullmatch(line.strip()))
    if value.startswith("{"):
        try:
            parsed: object = json.loads(value)
        except (ValueError, RecursionError):
            return
        yield from _named_secret(parsed)


def _named_secret(value: object, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, member in cast("Mapping[str, object]", value).items():
            yield from _named_secret(member, key)
    elif isinstance(value, str) and looks_secret(name):
        yield value


def _telling(secret: str) -> bool:
    """Whether it can be told from ordinary words and numbers."""
    return (
        len(secret) >= SHORTEST
        and len(set(secret)) >= FEW_LETTERS
        and not (secret.isdecimal() and len(secret) < 2 * SHORTEST)
        and secret.casefold() not in COMMON
    )


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be written."""
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]):
        yield form
        yield form.replace("/", "\\/")  # as some writers of JSON do
    try:
        encoded = (quote(secret, safe=""), quote(secret), quote_plus(secret))
    except UnicodeEncodeError:  # half a surrogate: bytes that were no UTF-8
        return
    for form in encoded:
        yield form
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), form)
