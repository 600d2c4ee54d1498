"""One entry of a directory's configuration, as clients send it and as it is stored and returned.

The public wire takes several names for one thing and drops what it does not know; stored is one form only. `null` is
the same as nothing where a member is optional. Hand-written files are read by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeAlias, TypeVar

import msgspec

from .errors import InvalidEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..envelope import Json

__all__ = ["MCP", "SKILLS", "Kind", "LocalServer", "McpServer", "OAuth", "RemoteServer", "SkillSource", "Skills"]

E = TypeVar("E")

Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class LocalServer(msgspec.Struct, tag_field="type", tag="local", rename="camel", omit_defaults=True):
    """An MCP server that the agent starts and talks to on its stdin and stdout.

    Attributes:
      command: the program, or the program with its first arguments.
      args: always there once stored.
      enabled: None is the same as true.
      cwd: where it is started, if not where the agent starts it.
    """

    command: str | list[str]
    args: list[str]
    env: dict[str, str] | None = None
    enabled: bool | None = None
    timeout_ms: Milliseconds | None = None
    cwd: str | None = None


class OAuth(msgspec.Struct, rename="camel", omit_defaults=True):
    """How the agent is to log in. It does so itself."""

    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None


class RemoteServer(msgspec.Struct, tag_field="type", tag="remote", rename="camel", omit_defaults=True):
    """An MCP server behind a URL.

    Attributes:
      bearer_token_env_var: the variable of the daemon's environment that holds a bearer token.
      env_headers: for each header the variable that holds its value.
      enabled: None is the same as true.
      transport: None is the same as http.
    """

    url: str
    headers: dict[str, str] | None = None
    bearer_token_env_var: str | None = None
    env_headers: dict[str, str] | None = None
    oauth: OAuth | bool | None = None
    enabled: bool | None = None
    timeout_ms: Milliseconds | None = None
    transport: Literal["http", "sse"] | None = None


McpServer: TypeAlias = LocalServer | RemoteServer


class SkillSource(msgspec.Struct, omit_defaults=True):
    """Where skills come from. `type` is free text; `github`, `local` and `git` are usual."""

    type: str
    source: str
    skills: list[str] | None = None
    ref: str | None = None
    subpath: str | None = None


class Skills(msgspec.Struct):
    """One set of skills."""

    sources: list[SkillSource]


@dataclass(frozen=True, slots=True)
class Kind(Generic[E]):
    """One of the two files of a directory.

    Attributes:
      shape: the type of its entries.
      canonical: gives what a client sent the names that are stored.
      sealed: whether it matters who stored an entry, since what it says is carried out; see `trust`.
    """

    name: Literal["mcp", "skills"]
    shape: object
    canonical: Callable[[Json], Json]
    sealed: bool

    @property
    def file(self) -> str:
        return f"{self.name}.json"

    def parse(self, data: Json) -> E:
        """An entry out of JSON. Raises `InvalidEntry`."""
        try:
            entry: E = msgspec.convert(self.canonical(data), self.shape)
        except msgspec.ValidationError as error:
            raise InvalidEntry(str(error)) from None
        return entry


TYPES = {"stdio": "local", "http": "remote"}

ALIASES: Mapping[str, Mapping[str, str]] = {
    "local": {"timeout": "timeoutMs"},
    "remote": {
        "timeout": "timeoutMs",
        "bearer_token_env_var": "bearerTokenEnvVar",
        "env_http_headers": "envHeaders",
        "envHttpHeaders": "envHeaders",
    },
}
"""Names that are taken on the public wire, by type, with the one that is stored."""


def _renamed(data: Json) -> Json:
    if not isinstance(data, dict):
        return _as_it_is(data)
    members: dict[str, Json] = {**data}
    if not isinstance(given := members.get("type"), str):
        return members
    type = members["type"] = TYPES.get(given, given)
    if type == "local":
        members.setdefault("args", [])
    for alias, name in ALIASES.get(type, {}).items():
        if alias in members:
            if name in members:
                raise InvalidEntry(f"`{name}` is given twice, also as `{alias}`")
            members[name] = members.pop(alias)
    return members


def _as_it_is(data: Json) -> Json:
    return data


MCP: Kind[McpServer] = Kind("mcp", McpServer, _renamed, sealed=True)
SKILLS: Kind[Skills] = Kind("skills", Skills, _as_it_is, sealed=False)
