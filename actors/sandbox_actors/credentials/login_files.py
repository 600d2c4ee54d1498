"""Login files: read with bounds, parsed with suspicion, and never a reason to fail.

They belong to other programs, which change them when they like and keep in them what they like. So a file that is odd
is told of and passed over; one that is no regular file is not even read.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .providers import Login

__all__ = ["Odd", "Table", "members", "moment", "parse", "place", "read_login", "token_end"]

SIZE_LIMIT = 16 << 20
"""Bytes: some of these files hold a history, too, and grow to megabytes."""

MILLISECONDS_FROM = 1e11
"""As seconds this is the year 5138, as milliseconds 1973."""

ROOT = re.compile(r"\$\{(?P<variable>\w+):-(?P<default>[^}]*)\}")
ASSIGNMENT = re.compile(r"(?:export\s+)?(?P<name>\w+)\s*=\s*(?P<value>.*)")

Table: TypeAlias = "Mapping[str, object]"


class Odd(Exception):
    """A file that cannot be used. The message says why, and nothing of what is in it."""


def place(login: Login, home: Path, environment: Mapping[str, str]) -> Path:
    """Where the file of a login is for a user."""

    def root(match: re.Match[str]) -> str:
        return environment.get(match["variable"]) or match["default"]

    path = ROOT.sub(root, login.path)
    return home / path[1:].lstrip("/") if path == "~" or path.startswith("~/") else home / path


def read_login(path: Path) -> str | None:
    """The text of a file, None where there is none.

    Raises:
      Odd: it cannot be read, or should not be.
    """
    try:
        # Opening a FIFO would wait for its writer, and opening a device may do anything.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Odd((isinstance(error, OSError) and error.strerror) or "it cannot be opened") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Odd("it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise Odd(error.strerror or "it cannot be read") from None
    finally:
        os.close(descriptor)
    if len(data) > SIZE_LIMIT:
        raise Odd(f"it is larger than {SIZE_LIMIT >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Odd("it is not UTF-8") from None


def parse(text: str, format: str) -> Table:
    """What the text says, as a table.

    Raises:
      Odd: it is not of that format.
    """
    if format == "dotenv":
        return _dotenv(text)
    try:
        parsed: object = tomllib.loads(text) if format == "toml" else json.loads(text)
    except (ValueError, RecursionError):
        raise Odd(f"it is no valid {format.upper() if format == 'toml' else 'JSON'}") from None
    if not isinstance(parsed, dict):
        raise Odd("it is no table")
    return cast("Table", parsed)


def members(table: Table, path: Sequence[str]) -> Iterator[tuple[Table, object]]:
    """What stands at a path, each with the table that holds it; `*` in a name stands for any text."""
    name, *rest = path
    for key, value in table.items():
        if not fnmatchcase(key, name):
            continue
        if not rest:
            yield table, value
        elif isinstance(value, Mapping):
            yield from members(cast("Table", value), rest)


def moment(value: object) -> datetime | None:
    """A time as such files write it; None for none, and for one that makes no sense."""
    try:
        match value:
            case str() if value.strip():
                parsed = datetime.fromisoformat(value.strip())
                return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
            case int() | float() if not isinstance(value, bool) and value > 0:
                return datetime.fromtimestamp(value / 1000 if value >= MILLISECONDS_FROM else value, UTC)
            case _:
                return None
    except (ValueError, OverflowError, OSError):
        return None


def token_end(token: str) -> datetime | None:
    """When a token ends that says so itself (JSON Web Token, RFC 7519, 4.1.4)."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: object = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return moment(cast("Table", claims).get("exp")) if isinstance(claims, dict) else None


def _dotenv(text: str) -> Table:
    found: dict[str, object] = {}
    for line in text.splitlines():
        if (assignment := ASSIGNMENT.fullmatch(line.strip())) is None:
            continue
        value = assignment["value"].strip()
        quote = value[:1]
        if quote in ("'", '"') and (end := value.find(quote, 1)) > 0:
            value = value[1:end]
        else:
            value = re.sub(r"\s+#.*", "", value)
        found[assignment["name"]] = value
    return found
