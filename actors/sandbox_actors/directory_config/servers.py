"""Stored MCP servers as an agent is told of them (ACP protocol version 1, Session Setup).

What an entry says and ACP cannot is made to fit, where that is possible: a working directory becomes a shell that goes
there, a variable that holds a token becomes a header. Values of variables are in here and nowhere else: they go to the
agent's stdin, never into an event or a log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

from .entries import MCP, LocalServer, RemoteServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..envelope import Json
    from ..memory import McpCapabilities
    from .entries import McpServer

__all__ = ["SkipReason", "Skipped", "StoredServer", "StoredServers", "as_acp", "not_trusted"]

SkipReason: TypeAlias = Literal[
    "config_unreadable", "missing_variable", "no_command", "not_trusted", "transport_unsupported"
]

Transport: TypeAlias = Literal["stdio", "http", "sse"]

OURS = "SANDBOX_AGENT_"
"""What variables of the daemon's own begin with. A file in somebody's repository must not have its token sent away."""

FOREIGN_TOLD = 16
"""Servers that are told one by one if they are not trusted; a file from elsewhere may hold any number."""

NOT_TRUSTED = (
    "not stored through this server, so not used: look at {file}, then store what is to be used with"
    " PUT /v1/config/mcp, or start the server with --trust-directory-config"
)

IN_DIRECTORY = 'cd "$1" && shift && exec "$@"'


@dataclass(frozen=True, slots=True)
class Skipped:
    """A server that an ACP session does not get.

    Attributes:
      server: its name; None where it is about all of a directory, or about many that came with it.
      message: why, for a person; it quotes no value.
    """

    server: str | None
    reason: SkipReason
    message: str


@dataclass(frozen=True, slots=True)
class StoredServer:
    """One server, ready for the agent."""

    name: str
    transport: Transport
    acp: Mapping[str, Json] = field(repr=False)  # may hold secrets


@dataclass(frozen=True, slots=True)
class StoredServers:
    """The servers that are stored for a directory, and those that cannot be had."""

    servers: tuple[StoredServer, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def for_agent(self, capabilities: McpCapabilities) -> tuple[list[Mapping[str, Json]], list[Skipped]]:
        """What an agent with these capabilities gets, and what it does not get."""
        possible = {"stdio": True, "http": capabilities.http, "sse": capabilities.sse}
        able = [server.acp for server in self.servers if possible[server.transport]]
        unable = [
            Skipped(server.name, "transport_unsupported", f"the agent cannot talk to servers over {server.transport}")
            for server in self.servers
            if not possible[server.transport]
        ]
        return able, [*self.skipped, *unable]


class _Unusable(Exception):
    """Why a server is left out."""

    def __init__(self, reason: SkipReason, message: str) -> None:
        super().__init__(message)
        self.reason: SkipReason = reason


def as_acp(entries: Mapping[str, McpServer], directory: str, environment: Mapping[str, str]) -> StoredServers:
    """The servers of a directory that are not switched off.

    Args:
      environment: where the variables are looked up that entries name.
    """
    servers: list[StoredServer] = []
    skipped: list[Skipped] = []
    for name, entry in entries.items():
        if entry.enabled is False:
            continue
        try:
            match entry:
                case LocalServer():
                    servers.append(_local(name, entry, directory))
                case RemoteServer():
                    servers.append(_remote(name, entry, environment))
                case _:
                    assert_never(entry)
        except _Unusable as unusable:
            skipped.append(Skipped(name, unusable.reason, str(unusable)))
    return StoredServers(tuple(servers), tuple(skipped))


def not_trusted(entries: Mapping[str, McpServer], directory: str) -> tuple[Skipped, ...]:
    """The servers that came into the file of a directory otherwise than through us, but for those switched off."""
    message = NOT_TRUSTED.format(file=os.path.join(directory, ".sandbox-agent", "config", MCP.file))
    names = [name for name, entry in entries.items() if entry.enabled is not False]
    told = [Skipped(name, "not_trusted", message) for name in names[:FOREIGN_TOLD]]
    if more := len(names) - len(told):
        told.append(Skipped(None, "not_trusted", f"{more} more: {message}"))
    return tuple(told)


def _local(name: str, entry: LocalServer, directory: str) -> StoredServer:
    command = [entry.command] if isinstance(entry.command, str) else entry.command
    if not command or not command[0].strip():
        raise _Unusable("no_command", "its command is empty")
    argv = [*command, *entry.args]
    if entry.cwd is not None:
        argv = ["/bin/sh", "-c", IN_DIRECTORY, "sh", os.path.join(directory, entry.cwd), *argv]
    env = [{"name": variable, "value": value} for variable, value in (entry.env or {}).items()]
    return StoredServer(name, "stdio", {"name": name, "command": argv[0], "args": argv[1:], "env": env})


def _remote(name: str, entry: RemoteServer, environment: Mapping[str, str]) -> StoredServer:
    headers = {header.lower(): (header, value) for header, value in (entry.headers or {}).items()}
    # A value out of the environment is the fresher one.
    if entry.bearer_token_env_var is not None:
        token = _variable(entry.bearer_token_env_var, environment)
        headers["authorization"] = ("Authorization", f"Bearer {token}")
    for header, variable in (entry.env_headers or {}).items():
        headers[header.lower()] = (header, _variable(variable, environment))
    transport = entry.transport or "http"
    told = [{"name": header, "value": value} for header, value in headers.values()]
    return StoredServer(name, transport, {"type": transport, "name": name, "url": entry.url, "headers": told})


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name.startswith(OURS):
        raise _Unusable("missing_variable", f"the environment variable {name} is the daemon's own")
    value = environment.get(name, "").strip()
    if not value:
        raise _Unusable("missing_variable", f"the environment variable {name} is not set")
    if not value.isprintable():  # control characters, and bytes that are no UTF-8
        raise _Unusable("missing_variable", f"the environment variable {name} holds what no header can")
    return value
