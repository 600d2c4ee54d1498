"""Discovery: which credentials a user has, from the environment and from the login files of known programs.

    environment before files · in the environment an API key before a token · then the order of the table

A variable that is empty is none. A token whose time is over counts where its owner can renew it, and else does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .credential import Credential, Credentials, Kind, Secret
from .login_files import Odd, Table, members, moment, parse, place, read_login, token_end
from .providers import LOGINS, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .providers import Login

__all__ = ["discover", "home_of"]


def home_of(environment: Mapping[str, str]) -> Path:
    """A user's home directory; `/` where nobody knows one, as of the user ids that container platforms make up."""
    try:
        return Path(environment.get("HOME") or Path.home())
    except RuntimeError:
        return Path("/")


def discover(
    home: Path, environment: Mapping[str, str], *, oauth: bool = True, now: datetime | None = None
) -> Credentials:
    """All credentials of a user. It reads files, so the daemon calls it in a thread.

    Args:
      home: where login files are, unless a variable such as CODEX_HOME says otherwise.
      oauth: whether tokens of logins count.
      now: the time by which a token must not have ended; at present if None.
    """
    now = now or datetime.now(UTC)
    found: list[Credential] = list(_in_environment(environment))
    problems: list[str] = []
    for path, logins in _files(home, environment).items():
        try:
            text = read_login(path)
            for login in logins if text is not None else ():
                # One file may hold an API key and a token.
                found += _in_file(login, path, parse(text or "", login.format))
        except Odd as odd:
            problems.append(f"{path}: {odd}")
    counting: list[Credential] = []
    for credential in found:
        if credential.kind == "oauth" and not oauth:
            continue
        if credential.expired(now) and not credential.refreshable:
            problems.append(f"{credential.where}: the login has ended; log in again with {credential.source}")
        else:
            counting.append(credential)
    return Credentials(tuple(counting), tuple(problems))


def _in_environment(environment: Mapping[str, str]) -> Iterator[Credential]:
    for name, provider in PROVIDERS.items():
        for variable in provider.secrets:
            if value := environment.get(variable, "").strip():
                kind: Kind = "api_key" if variable in provider.keys else "oauth"
                yield Credential(name, kind, "environment", variable, Secret(value))


def _files(home: Path, environment: Mapping[str, str]) -> dict[Path, list[Login]]:
    files: dict[Path, list[Login]] = {}
    for login in LOGINS:
        files.setdefault(place(login, home, environment), []).append(login)
    return files


def _in_file(login: Login, path: Path, table: Table) -> Iterator[Credential]:
    if login.format == "opencode":
        yield from _in_opencode(login, path, table)
        return
    for candidate in login.secret:
        for holder, value in members(table, candidate):
            if (secret := _secret(value)) is None or not secret.startswith(login.prefix):
                continue
            if any(holder.get(name) != said for name, said in login.only.items()):
                continue
            yield _credential(
                login, login.provider, login.kind, path, secret, _one(table, login.expires), _one(table, login.refresh)
            )
            return


def _in_opencode(login: Login, path: Path, table: Table) -> Iterator[Credential]:
    for provider, entry in table.items():
        if not isinstance(entry, Mapping):
            continue
        login_of = cast("Table", entry)
        match login_of.get("type"):
            case "api" if (secret := _secret(login_of.get("key"))) is not None:
                yield _credential(login, provider, "api_key", path, secret, None, None)
            case "oauth" if (secret := _secret(login_of.get("access"))) is not None:
                expires, refresh = login_of.get("expires"), login_of.get("refresh")
                yield _credential(login, provider, "oauth", path, secret, expires, refresh)
            case _:  # a kind of its own, for a service that is no provider of models
                continue


def _credential(
    login: Login, provider: str, kind: Kind, path: Path, secret: str, expires: object, refresh: object
) -> Credential:
    end = moment(expires)
    if end is None and kind == "oauth":
        end = token_end(secret)
    return Credential(
        provider, kind, login.source, str(path), Secret(secret), end, refreshable=_secret(refresh) is not None
    )


def _one(table: Table, path: tuple[str, ...]) -> object:
    return next((value for _, value in members(table, path)), None) if path else None


def _secret(value: object) -> str | None:
    """A text that can be a secret: there is something of it, and nothing that would break a line or a variable."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text and text.isprintable() else None
