"""One install, from its start to its end: plan, lock, build, verify, settle.

Whatever ends it early leaves what was installed before as it was, and nothing of itself.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..errors import InstallFailed
from .build import build
from .npm import obtain_node
from .place import Installed, Place, locked
from .plan import plan_install
from .progress import Artifact, Outcome
from .trouble import Trouble, trouble_of_os
from .verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from ..catalog import Agent, Catalog
    from .plan import Plan, Wish
    from .site import Site

__all__ = ["INSTALL_WITHIN", "Job", "is_installed"]

INSTALL_WITHIN = 15 * 60.0
"""Seconds for one install: the largest agents take one minute on a common line."""


def is_installed(catalog: Catalog, id: str) -> bool:
    """Whether an agent can be started: more than that there is a launcher, since its program may have gone."""
    if (argv := catalog.command(id)) is None:
        return False
    place = Place(catalog.launchers, id)
    if argv != (str(place.launcher),):
        return True
    return os.access(place.launcher, os.X_OK) if place.is_users_own else place.installed() is not None


@dataclass(slots=True, eq=False)
class Job:
    """See the module. `run` it once.

    Attributes:
      agent, wish: by `wished`.
      tools: the directory of what all agents share.
      verify_within: seconds for what was installed to answer.
    """

    catalog: Catalog
    agent: Agent
    wish: Wish
    site: Site
    tools: Path
    verify_within: float

    @property
    def place(self) -> Place:
        return Place(self.catalog.launchers, self.agent.id)

    def satisfied(self) -> bool:
        """Whether there is nothing to do."""
        if self.wish.reinstall or not is_installed(self.catalog, self.agent.id):
            return False
        if self.wish.is_plain:
            return True
        installed = self.place.installed()
        return (
            installed is not None
            and self.wish.process_version in (None, installed.process_version)
            and self.wish.agent_version in (None, installed.version)
        )

    async def run(self) -> Outcome:
        """Install.

        Raises:
          InstallFailed: it did not work.
        """
        try:
            self.site.step("checking", "what it needs")
            plan = self._plan()
            async with locked(self.place.home / ".lock", self._wait):
                if self.satisfied():  # by now: another process was quicker
                    return Outcome(already_installed=True)
                with trio.move_on_after(INSTALL_WITHIN):
                    return await self._install(plan)
            raise Trouble("failed", f"it took longer than {INSTALL_WITHIN / 60:g} minutes, and was given up")
        except Trouble as trouble:
            redactor = self.catalog.redactor()
            stderr = [redactor.redact(line, cut=True) for line in trouble.stderr]
            raise InstallFailed(self.agent.id, trouble.reason, redactor.redact(str(trouble)), stderr) from None
        except OSError as error:
            refused = trouble_of_os(error)
            raise InstallFailed(self.agent.id, refused.reason, str(refused)) from error

    def _wait(self) -> None:
        self.site.step("waiting", "another process installs it")

    def _plan(self) -> Plan:
        if self.agent.command is not None:
            program = self.agent.command[0]
            raise Trouble("nothing_to_install", f"its definition names a command to run, {program!r}: install that")
        plan = plan_install(self.agent)
        if self.place.is_users_own:
            message = f"{self.place.launcher} was not written by an install; remove it, or make it executable to use it"
            raise Trouble("failed", message)
        for program, where in self.agent.needs.items():
            if shutil.which(program, path=self.catalog.environment.get("PATH", "")) is None:
                raise Trouble("missing_tool", f"it needs a program {program!r}, and there is none on PATH: {where}")
        return plan

    async def _install(self, plan: Plan) -> Outcome:
        needs_node = bool(plan.npm) or self.agent.node is not None
        node = await obtain_node(self.site, self.agent.node, self.tools) if needs_node else None
        generation = await trio.to_thread.run_sync(self.place.begin)
        try:
            installed = await self._fill(plan, generation, node)
            await trio.to_thread.run_sync(self.place.settle, installed)
        finally:
            # What the launcher names counts, even if something failed after that.
            if self.place.current() != generation.name:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self.place.discard, generation)
        return Outcome(already_installed=False, artifacts=tuple(self._artifacts(installed)))

    async def _fill(self, plan: Plan, generation: Path, node: Path | None) -> Installed:
        built = await build(self.site, self.agent, plan, generation, node)
        # What the definition itself gives comes with every start, and is not to be hidden by what was once installed.
        environment = {name: value for name, value in plan.environment.items() if name not in self.agent.env}
        launcher = self.place.write_launcher(
            generation, [str(built.program), *plan.arguments], environment, built.path, built.path_end
        )
        greeting = await verify(self.site, self.catalog, self.agent, launcher, self.verify_within)
        return Installed(
            agent=self.agent.id,
            version=built.native_version or built.version,
            process_version=built.version,
            source="registry" if self.agent.origin == "registry" else "fallback",
            packages=plan.packages,
            program=str(built.program),
            native=None if built.native is None else str(built.native),
            native_version=built.native_version,
            relies_on=list(map(str, built.relies_on)),
            generation=str(generation),
            previous=self.place.current(),
            installed_at_ms=time.time_ns() // 1_000_000,
            greeting=greeting,
        )

    def _artifacts(self, installed: Installed) -> list[Artifact]:
        found: list[Artifact] = []
        if installed.native is not None:
            found.append(Artifact("native_agent", installed.native, installed.source, installed.native_version))
        launcher = str(self.place.launcher)
        return [*found, Artifact("agent_process", launcher, installed.source, installed.process_version)]
