"""How an agent's id becomes a command.

In this order: the command that its definition names, a launcher script in the data directory (ours after an install, or
the user's own), a known program on PATH, and `mock`, which is built in. An id is never part of a path before it has the
shape of one.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import AgentNotInstalled, UnsupportedAgent
from ..redaction import Redactor, secrets_in
from .entry import AGENT_ID, Agent
from .environment import agent_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["MOCK", "Catalog", "Launch"]

MOCK = "mock"


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


@dataclass(frozen=True, slots=True)
class Catalog:
    """All agents that can be launched.

    Attributes:
      agents: by id.
      launchers: the directory of launcher scripts, `<id>-acp`.
      environment: the daemon's own, of which an agent inherits what it may.
      inherited: patterns of further variables that every agent inherits.
      program: the path of the `sandbox-agent` command, where there is one.
    """

    agents: Mapping[str, Agent]
    launchers: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    inherited: Sequence[str] = ()
    program: str | None = None

    def known(self) -> list[str]:
        """The ids of all agents, installed or not: in the catalog's order, then those that only have a launcher."""
        scripts = {path.name.removesuffix("-acp") for path in self.launchers.glob("*-acp") if path.is_file()}
        return [*self.agents, *sorted(filter(AGENT_ID.fullmatch, scripts - self.agents.keys()))]

    def resolve(self, id: str) -> str:
        """The id under which the catalog has an agent that goes by this id or alias.

        Raises:
          UnsupportedAgent: there is no such agent at all.
        """
        if id in self.agents or self.launcher(id) is not None:
            return id
        for agent in self.agents.values():
            if id in agent.aliases:
                return agent.id
        raise UnsupportedAgent(id, self.known())

    def agent(self, id: str) -> Agent:
        """The definition of an agent, by id or alias; one that only has a launcher goes by its id alone.

        Raises:
          UnsupportedAgent: as `resolve`.
        """
        id = self.resolve(id)
        return self.agents.get(id) or Agent(id, id)

    def command(self, id: str) -> tuple[str, ...] | None:
        """The program and arguments of an agent, or None where it is not installed.

        Raises:
          UnsupportedAgent: as `resolve`.
        """
        agent = self.agent(id)
        if agent.command is not None:
            return tuple(agent.command)
        if (launcher := self.launcher(agent.id)) is not None and os.access(launcher, os.X_OK):
            return (str(launcher),)
        if agent.id == MOCK:
            return (sys.executable, "-m", "sandbox_actors.mock")
        if agent.on_path is not None:
            program, *arguments = agent.on_path
            if (found := shutil.which(program, path=self.environment.get("PATH"))) is not None:
                return (found, *arguments)
        return None

    def launch(self, id: str, more: Mapping[str, str] | None = None) -> Launch:
        """The command of an agent with its environment.

        Args:
          more: variables beside those that the agent gets anyway, or in their place.

        Raises:
          UnsupportedAgent: there is no such agent.
          AgentNotInstalled: it is known, but nothing on this machine runs it.
        """
        agent = self.agent(id)
        if (argv := self.command(id)) is None:
            how = f"run 'sandbox-agent install-agent {agent.id}'"
            if agent.on_path is not None:
                how += f", or put a program {agent.on_path[0]!r} on PATH"
            if (launcher := self.launcher(agent.id)) is not None:
                how = f"its launcher {launcher} is not executable; {how}"
            raise AgentNotInstalled(agent.id, how)
        env = agent_environment(agent, self.environment, self.inherited)
        if self.program is not None:
            env["SANDBOX_AGENT_BIN"] = self.program  # launcher scripts of the public wire run us by it
        return Launch(argv, {**env, **agent.env, **(more or {})}, agent.cwd)

    def redactor(self, *more: str) -> Redactor:
        """It knows the secrets of the environment, of the definitions of agents, and some more."""
        return Redactor(
            secrets_in(self.environment).union(more, *(secrets_in(own.env) for own in self.agents.values()))
        )

    def launcher(self, id: str) -> Path | None:
        """The launcher script of an agent, where there is one."""
        path = self.launchers / f"{id}-acp"
        return path if AGENT_ID.fullmatch(id) and path.is_file() else None
