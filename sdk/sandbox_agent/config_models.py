"""What can be stored for a directory of the sandbox: MCP servers, and sets of skills."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["LocalServer", "McpServer", "OAuth", "RemoteServer", "SkillSource", "Skills"]


class LocalServer(
    msgspec.Struct, frozen=True, tag_field="type", tag="local", rename="camel", omit_defaults=True, kw_only=True
):
    """An MCP server that the agent starts, and talks to on its stdin and stdout.

    Attributes:
      command: the program, or the program with its first arguments.
      cwd: where it is started, relative to the directory.
      enabled: None is the same as true.
    """

    command: str | list[str]
    args: list[str] = []
    env: dict[str, str] | None = None
    cwd: str | None = None
    enabled: bool | None = None
    timeout_ms: int | None = None


class OAuth(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """How the agent is to log in."""

    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None


class RemoteServer(
    msgspec.Struct, frozen=True, tag_field="type", tag="remote", rename="camel", omit_defaults=True, kw_only=True
):
    """An MCP server behind a URL.

    Attributes:
      bearer_token_env_var: the variable, of the server's environment, that holds a bearer token.
      env_headers: for each header the variable that holds its value.
      enabled: None is the same as true.
      transport: None is the same as `http`.
    """

    url: str
    headers: dict[str, str] | None = None
    bearer_token_env_var: str | None = None
    env_headers: dict[str, str] | None = None
    oauth: OAuth | bool | None = None
    enabled: bool | None = None
    timeout_ms: int | None = None
    transport: Literal["http", "sse"] | None = None


McpServer: TypeAlias = LocalServer | RemoteServer


class SkillSource(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where skills come from.

    Attributes:
      type: any text; `github`, `git` and `local` are usual.
      skills: their names; all unless given.
    """

    type: str
    source: str
    skills: list[str] | None = None
    ref: str | None = None
    subpath: str | None = None


class Skills(msgspec.Struct, frozen=True):
    """A set of skills."""

    sources: list[SkillSource]
