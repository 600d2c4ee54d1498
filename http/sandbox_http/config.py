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

    from .tokens import Token

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
      address_file: gets the URL where we listen, while we do.
      exit_with_stdin: whether the end of stdin is the end of the daemon, see `orders`.
      program: the path of the `sandbox-agent` command, for launcher scripts.
      environment: what agents get beside what they inherit of the daemon's own environment.
      inherited: patterns of further variables of the daemon's that agents inherit, see `catalog.environment`.
      trust_directory_config: whether sessions get the MCP servers of a directory also where nobody stored them here.
      fs_root: the directory that clients' paths never lead out of; None: the whole file system.
      max_upload: bytes of the largest body that is streamed to the disk; 0: no limit.
      queue_limit, turn_deadline, transcript_limit: of sessions, see `Setting`.
      idle_limit: seconds without anything to do after which an agent is ended until there is, where its session does
        not say otherwise; 0: never.
      max_agents: how many agents of sessions run at a time; 0: no limit.
      default_agent: the one that clients of `/acp` get who name none; None: they must name one.
      tokens_file: further tokens, see `token_file`.
      await_init: whether all this is completed by `POST /v1/init` before anything begins, see `init`.
      init_secret: what that request has to bring along, where there is such a secret.
      initialized: whether it was completed so.
      tokens, variables, secrets: what came with it: further tokens, what is to be as if it were in the daemon's own
        environment, and texts that must not be told.
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
    address_file: Path | None = None
    exit_with_stdin: bool = False
    program: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    inherited: tuple[str, ...] = ()
    trust_directory_config: bool = False
    fs_root: Path | None = None
    max_upload: int = 0
    queue_limit: int = 8
    turn_deadline: float | None = None
    transcript_limit: int = 48 << 10
    idle_limit: float = 0.0
    max_agents: int = 0
    default_agent: str | None = None
    tokens_file: Path | None = None
    await_init: bool = False
    init_secret: str | None = None
    initialized: bool = False
    tokens: tuple[Token, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises `BadConfig` if this is not safe or makes no sense."""
        if self.token is not None and not self.token.strip():
            raise BadConfig("the token is empty: give a token, or none at all on a loopback address")
        if self.token is not None and not (self.token.isprintable() and self.token == self.token.strip()):
            raise BadConfig("the token cannot be sent in a header: it has a control character, or a blank at an end")
        if self.await_init and self.token is not None:
            raise BadConfig("with --await-init the token comes with POST /v1/init: give none at the start")
        if self.init_secret is not None and not self.init_secret.strip():
            raise BadConfig("the secret of --await-init is empty: give one, or none at all")
        if self.await_init and self.init_secret is None and "*" in self.cors.origins:
            raise BadConfig("--await-init with --cors-allow-origin '*' needs an init secret: any page could initialize")
        # One that waits is closed to everybody, and what it is then told is checked again.
        if not self.guarded and not self.loopback and not self.await_init:
            raise BadConfig(
                f"refusing to listen on {self.host} without a token: everybody who reaches it could run commands here."
                " Set SANDBOX_AGENT_TOKEN (or --token), or listen on 127.0.0.1"
            )
        open_to_pages = not self.guarded and not self.await_init
        if "*" in self.cors.origins and (self.cors.credentials or open_to_pages):
            raise BadConfig("--cors-allow-origin '*' needs a token and goes without --cors-allow-credentials")
        if not (self.idle_limit >= 0 and self.max_agents >= 0):  # NaN is neither more nor less
            raise BadConfig("--idle-limit and --max-agents must be 0 or more")
        for kind, values in (("method", self.cors.methods), ("header", self.cors.headers)):
            for value in values:
                if not HTTP_TOKEN.fullmatch(value):
                    raise BadConfig(f"invalid cors {kind}: {value}")

    @property
    def guarded(self) -> bool:
        """Whether only those come in who have a token."""
        return self.token is not None or self.tokens_file is not None or bool(self.tokens)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach us."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
