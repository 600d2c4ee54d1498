"""The user's own tokens, as TOML or JSON: `--tokens-file`, and the member `tokens` of `POST /v1/init`.

[[tokens]]
name = "dashboard"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
scopes = ["read"]
expires = 2027-01-01T00:00:00Z
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from .config import BadConfig
from .scopes import ScopeName
from .tokens import ALL_SCOPES, DEFAULT, NAME, BadToken, Token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .tokens import Source

__all__ = ["TokenEntry", "read_tokens", "tokens_of"]

LARGEST = 1 << 20
"""Bytes of such a file."""

LAST_SECOND = 253_402_300_799
"""Of the year 9999, in Unix time: what is later has no date, and may have no milliseconds."""

SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class TokenEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One token.

    Attributes:
      token, sha256: one of them.
      scopes: all of them where none is named.
      expires: a time, or seconds of Unix time.
    """

    name: str
    token: str | None = None
    sha256: str | None = None
    scopes: list[ScopeName] | None = None
    expires: datetime | float | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[TokenEntry]


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens in a file.

    Raises:
      BadConfig: it cannot be read, others can read or change it, or it is not of its shape.
    """
    told = f"the tokens file {path}"
    try:
        with open(path, "rb", opener=_open) as file:
            _check(os.fstat(file.fileno()), told)
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise BadConfig(f"cannot read {told}: {error.strerror}") from None
    if len(text) > LARGEST:
        raise BadConfig(f"{told} is larger than {LARGEST} bytes")
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text.decode())
        return tokens_of(msgspec.convert(data, _File).tokens, "file")
    except (msgspec.ValidationError, BadToken) as error:
        raise BadConfig(f"{told} is not of its shape: {error}") from None
    except (ValueError, RecursionError):  # the parsers' own words may quote a token
        raise BadConfig(f"{told} is no {'JSON' if path.suffix == '.json' else 'TOML'}") from None


def tokens_of(entries: Sequence[TokenEntry], source: Source) -> tuple[Token, ...]:
    """What entries mean.

    Raises:
      BadToken: an entry makes no sense. No message has a token in it.
    """
    tokens: list[Token] = []
    for entry in entries:
        if not NAME.fullmatch(entry.name):
            raise BadToken("a token's name has letters, digits, '.', '_' and '-', at most 64")
        if entry.name == DEFAULT:
            raise BadToken(f"{DEFAULT!r} is the name of the token that the server is started with")
        if any(token.name == entry.name for token in tokens):
            raise BadToken(f"there are two tokens {entry.name!r}")
        scopes = ALL_SCOPES if entry.scopes is None else frozenset(entry.scopes)
        if not scopes:
            raise BadToken(f"the token {entry.name!r} has no scope")
        tokens.append(Token(entry.name, _digest(entry), scopes, source, _seconds(entry)))
    return tuple(tokens)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for somebody to write


def _check(status: os.stat_result, told: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadConfig(f"{told} is no regular file")
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise BadConfig(f"others may read or change {told}: take that away with 'chmod 600'")
    if status.st_uid not in (0, os.geteuid()):
        raise BadConfig(f"{told} belongs to another user")


def _digest(entry: TokenEntry) -> bytes:
    if (entry.token is None) == (entry.sha256 is None):
        raise BadToken(f"the token {entry.name!r} needs either 'token' or 'sha256'")
    if entry.token is not None:
        if not entry.token.isprintable() or entry.token != entry.token.strip() or not entry.token:
            raise BadToken(f"the token {entry.name!r} is empty, or cannot be sent in a header")
        return sha256(entry.token.encode()).digest()
    if entry.sha256 is None or not SHA256.fullmatch(entry.sha256):
        raise BadToken(f"the 'sha256' of {entry.name!r} is no SHA-256 in hexadecimal")
    return bytes.fromhex(entry.sha256)


def _seconds(entry: TokenEntry) -> float | None:
    expires = entry.expires
    if isinstance(expires, datetime):
        # A time without a zone is taken for UTC: it must not depend on where the machine stands.
        expires = (expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)).timestamp()
    if expires is not None and not 0 <= expires <= LAST_SECOND:  # NaN is neither more nor less
        raise BadToken(f"the token {entry.name!r} expires at no time between the years 1970 and 9999")
    return expires
