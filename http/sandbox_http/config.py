"""What a daemon is told at its start. Every value has a flag and an environment variable, see `sandbox_agent.cli`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sandbox_actors.journal import Retention
from sandbox_supervisor import RestartPolicy

from .problems import HttpError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["BadConfig", "Config", "Cors"]


HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2."""


class BadConfig(HttpError):
    """The daemon would not be safe, or not work, as it is told to run. The message says what to change."""


@dataclass(frozen=True, slots=True)
class Cors:
    """Which web pages of other origins may call us from a browser. None may by default.

    Attributes:
      origins: exact origins, or `*` for all.
      methods, headers: what a preflight is told is allowed; empty means `*`.
      credentials: whether browsers may send cookies and the like along.
    """

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    credentials: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """See the module.

    Attributes:
      data_dir: where agents are installed.
      state_dir: where this daemon's journal is; one daemon at a time. None: below `data_dir`, by host and port.
      agents_file: the user's own agents.
      offline: whether installs are refused.
      preinstalled_only: whether agents are not installed on first use.
      max_body: bytes of the largest request body and, up to 16 MiB, of the largest WebSocket message.
      request_timeout: seconds after which a request to an agent is answered with an error; None: never.
      grace: seconds for agents and streams to end at shutdown.
      program: the path of the `sandbox-agent` command, for launcher scripts.
      environment: what agents get beside what they inherit of the daemon's own environment.
      inherited: patterns of further variables of the daemon's that agents inherit, see `catalog.environment`.
      trust_directory_config: whether sessions get the MCP servers of a directory also where nobody stored them here.
      fs_root: the directory that clients' paths never lead out of; None: the whole file system.
      max_upload: bytes of the largest body that is streamed to the disk; 0: no limit.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 2468
    token: str | None = None
    cors: Cors = field(default_factory=Cors)
    state_dir: Path | None = None
    agents_file: Path | None = None
    offline: bool = False
    preinstalled_only: bool = False
    max_body: int = 64 << 20
    request_timeout: float | None = None
    retention: Retention = field(default_factory=Retention)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    grace: float = 8.0
    program: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    inherited: tuple[str, ...] = ()
    trust_directory_config: bool = False
    fs_root: Path | None = None
    max_upload: int = 0

    def check(self) -> None:
        """Raises `BadConfig` if this is not safe or makes no sense."""
        if self.token is not None and not self.token.strip():
            raise BadConfig("the token is empty: give a token, or none at all on a loopback address")
        if self.token is not None and not (self.token.isprintable() and self.token == self.token.strip()):
            raise BadConfig("the token cannot be sent in a header: it has a control character, or a blank at an end")
        if self.token is None and not self.loopback:
            raise BadConfig(
                f"refusing to listen on {self.host} without a token: everybody who reaches it could run commands here."
                " Set SANDBOX_AGENT_TOKEN (or --token), or listen on 127.0.0.1"
            )
        if "*" in self.cors.origins and (self.cors.credentials or self.token is None):
            raise BadConfig("--cors-allow-origin '*' needs a token and goes without --cors-allow-credentials")
        for kind, values in (("method", self.cors.methods), ("header", self.cors.headers)):
            for value in values:
                if not HTTP_TOKEN.fullmatch(value):
                    raise BadConfig(f"invalid cors {kind}: {value}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach us."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
