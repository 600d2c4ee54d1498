"""A place to install in: a catalog, a data directory and an environment of the test's own."""

from __future__ import annotations

import os
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import trio

from sandbox_actors.catalog import Agent, Catalog
from sandbox_actors.errors import InstallFailed
from sandbox_actors.installer import open_installer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from sandbox_actors.installer import Installer
    from support.registries import Registries

__all__ = ["OWNER", "Agents", "Definition", "Yard", "failing", "programs"]

Definition: TypeAlias = "dict[str, Any]"
Agents: TypeAlias = "dict[str, Definition]"
OWNER = f"owner-{uuid.uuid4().hex}"


@dataclass(slots=True)
class Yard:
    """See the module.

    Attributes:
      home: the folder of the test.
      environment: the daemon's.
    """

    home: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, home: Path, registries: Registries | None = None) -> Yard:
        """A yard whose tools ask these registries, and keep their caches in it."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home / "home"),
            "npm_config_cache": str(home / "npm-cache"),
            "npm_config_globalconfig": str(home / "no-npmrc"),
            "UV_CACHE_DIR": str(home / "uv-cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "PIP_CACHE_DIR": str(home / "pip-cache"),
            **(registries.environment if registries is not None else {}),
        }
        return cls(home, environment)

    @property
    def launchers(self) -> Path:
        return self.home / "data" / "bin" / "agent_processes"

    def generations(self, id: str) -> list[str]:
        """The names of all that is there of an agent."""
        home = self.launchers / id
        return sorted(entry.name for entry in home.iterdir() if entry.name != ".lock") if home.exists() else []

    def catalog(self, **agents: Definition) -> Catalog:
        """A catalog of these definitions."""
        made = {id: msgspec.convert({"id": id, "name": id, **agent}, Agent) for id, agent in agents.items()}
        return Catalog(made, self.launchers, self.environment)

    @asynccontextmanager
    async def installer(self, agents: Mapping[str, Definition], **options: Any) -> AsyncGenerator[Installer]:
        """An installer of these agents."""
        catalog = self.catalog(**agents)
        run = f"run-{self.home.name}"
        with trio.fail_after(120):
            async with open_installer(catalog, self.launchers, owner=OWNER, run=run, **options) as installer:
                yield installer

    async def answer(self, id: str, **agents: Definition) -> dict[str, Any]:
        """What an installed agent answers to `initialize`, started as a daemon would."""
        launch = self.catalog(**agents).launch(id)
        done = await trio.run_process(
            list(launch.argv),
            stdin=b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n',
            capture_stdout=True,
            env=launch.env,
        )
        return dict(msgspec.json.decode(done.stdout)["result"]["agentInfo"])


async def failing(installer: Installer, id: str, **wish: Any) -> InstallFailed:
    """The refusal of an install that has to fail."""
    try:
        outcome = await installer.install(id, **wish)
    except InstallFailed as failure:
        return failure
    raise AssertionError(f"it did not fail: {outcome}")


def programs(folder: Path, **sources: str) -> Path:
    """Programs in a folder for PATH, by their source."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        file = folder / name
        file.write_text(source)
        file.chmod(0o755)
    return folder
