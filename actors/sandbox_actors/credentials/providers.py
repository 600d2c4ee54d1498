"""The providers of models that are known, as data: their variables, and the login files of programs that use them."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Literal

import msgspec

from .credential import Kind

__all__ = ["LOGINS", "PROVIDERS", "Login", "Provider"]


class Provider(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One provider.

    Attributes:
      keys: variables that hold an API key; the first counts before the others.
      tokens: variables that hold the token of a login (OAuth).
      settings: variables that belong to the credentials, above all where they are to be sent.
      exported: the variables by which an API key is handed on; empty: the first of `keys`.
      token_exported: the variable by which the token of a login is handed on; None: no program takes one.
    """

    keys: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()
    token_exported: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The variables that hold a credential, in the order in which they count."""
        return self.keys + self.tokens


class Login(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One credential that a program keeps in a file.

    Attributes:
      source: the program.
      path: as a shell would read it: `~` and `${NAME:-default}` at its beginning.
      format: `opencode` is a file of its own, with many providers.
      secret: where it may be, each by the names of the members on the way; `*` stands for any text.
      prefix: what such a secret begins with; anything else at that place is something else.
      only: what the table that holds the secret must say.
      refresh: where the token is by which the program renews it.
      expires: where the time of its end is: RFC 3339, or seconds or milliseconds since 1970.
    """

    source: str
    path: str
    provider: str = ""
    kind: Kind = "api_key"
    format: Literal["json", "toml", "dotenv", "opencode"] = "json"
    secret: tuple[tuple[str, ...], ...] = ()
    prefix: str = ""
    only: dict[str, str] = {}
    refresh: tuple[str, ...] = ()
    expires: tuple[str, ...] = ()


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    providers: dict[str, Provider]
    logins: tuple[Login, ...]


_text = resources.files("sandbox_actors.credentials").joinpath("providers.toml").read_text(encoding="utf-8")
_table = msgspec.convert(tomllib.loads(_text), _Table)
PROVIDERS = _table.providers
LOGINS = _table.logins
