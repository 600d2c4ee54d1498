"""How an agent's id becomes a command.

In this order: the user's own agents (a TOML or JSON file), a launcher script in the data directory, a known program on
PATH, and `mock`, which is built in. An id is never part of a path before it has the shape of one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from .errors import AgentNotInstalled, UnsupportedAgent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["BadAgentsFile", "Catalog", "CustomAgent", "Launch", "read_agents_file"]

ON_PATH: Mapping[str, tuple[str, ...]] = {
    "claude": ("claude-agent-acp",),
    "codex": ("codex-acp",),
    "opencode": ("opencode", "acp"),
    "amp": ("amp-acp",),
    "pi": ("pi-acp",),
    "cursor": ("cursor-agent-acp",),
    "gemini": ("gemini", "--acp"),
}
"""The agents every catalog knows, with the command that is tried where nothing else defines them."""

AGENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

PRIVATE = re.compile(r"SANDBOX_AGENT_.*|npm_.*")
"""Variables of the daemon's that no agent gets: its token and settings, and what npm leaves when it started us."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command to run.

    Attributes:
      argv: the program and its arguments.
      env: the whole environment.
      cwd: the working directory; None is the daemon's own.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None


class CustomAgent(msgspec.Struct, forbid_unknown_fields=True):
    """One agent of the user's file.

    Attributes:
      command: the program and its arguments; the program is looked up on PATH.
      env: variables beside the inherited ones.
      cwd: the working directory.
    """

    command: list[str]
    env: dict[str, str] = {}
    cwd: str | None = None

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError("command must name a program")


class _AgentsFile(msgspec.Struct, forbid_unknown_fields=True):
    agents: dict[str, CustomAgent]


class BadAgentsFile(Exception):
    """The user's agents file cannot be read. The message says what to mend."""


def read_agents_file(path: Path) -> dict[str, CustomAgent]:
    """Read a file of the shape `{"agents": {ID: {"command": [...], "env": {...}, "cwd": "..."}}}`, TOML or JSON.

    Raises:
      BadAgentsFile: it cannot be read, or is not of that shape.
    """
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        agents = msgspec.convert(data, _AgentsFile).agents
    except OSError as error:
        raise BadAgentsFile(f"cannot read the agents file {path}: {error.strerror}") from None
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise BadAgentsFile(f"the agents file {path} is not valid: {error}") from None
    for id in agents:
        if not AGENT_ID.fullmatch(id):
            raise BadAgentsFile(
                f"the agents file {path} has the id {id!r}: use lower case letters, digits, '.', '_', '-'"
            )
    return agents


@dataclass(frozen=True, slots=True)
class Catalog:
    """All agents that can be launched.

    Attributes:
      launchers: the directory of launcher scripts, `<id>-acp`.
      custom: the user's own agents, by id.
      environment: what agents inherit, before `PRIVATE` is taken out.
      program: the path of the `sandbox-agent` command, where there is one.
    """

    launchers: Path
    custom: Mapping[str, CustomAgent] = field(default_factory=dict[str, CustomAgent])
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    program: str | None = None

    def known(self) -> list[str]:
        """The ids of all agents, installed or not."""
        scripts = {path.name.removesuffix("-acp") for path in self.launchers.glob("*-acp") if path.is_file()}
        return sorted({*ON_PATH, "mock", *self.custom, *filter(AGENT_ID.fullmatch, scripts)})

    def check(self, id: str) -> None:
        """Raises `UnsupportedAgent` if there is no such agent at all."""
        if not (id in ON_PATH or id == "mock" or id in self.custom or self._launcher(id)):
            raise UnsupportedAgent(id, self.known())

    def launch(self, id: str) -> Launch:
        """The command of an agent.

        Raises:
          UnsupportedAgent: there is no such agent.
          AgentNotInstalled: it is known, but nothing on this machine runs it.
        """
        self.check(id)
        env = {name: value for name, value in self.environment.items() if not PRIVATE.fullmatch(name)}
        if self.program is not None:
            env["SANDBOX_AGENT_BIN"] = self.program  # launcher scripts of the public wire run us by it
        if (custom := self.custom.get(id)) is not None:
            return Launch(tuple(custom.command), {**env, **custom.env}, custom.cwd)
        if (launcher := self._launcher(id)) is not None:
            return Launch((str(launcher),), env)
        if id == "mock":
            return Launch((sys.executable, "-m", "sandbox_actors.mock"), env)
        program, *arguments = ON_PATH[id]
        if (found := shutil.which(program, path=env.get("PATH"))) is None:
            launcher = self.launchers / f"{id}-acp"
            raise AgentNotInstalled(
                id, f"install a program that provides '{program}', or write the launcher {launcher}"
            )
        return Launch((found, *arguments), env)

    def _launcher(self, id: str) -> Path | None:
        path = self.launchers / f"{id}-acp"
        return path if AGENT_ID.fullmatch(id) and path.is_file() else None
