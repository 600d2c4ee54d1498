"""What stands in a generation, and how it comes there: npm, PyPI or an archive, and the agent's own last step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..catalog.pins import pypi_pin
from .archive import find_program, unpack
from .download import download
from .npm import install_packages, main_package, package_program, package_version
from .pypi import distribution_version, install_requirement
from .tools import find_uv
from .trouble import Trouble, trouble_of_tool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..catalog import Agent, Binary
    from .plan import Plan
    from .site import Site

__all__ = ["Built", "build"]


@dataclass(frozen=True, slots=True)
class Built:
    """What stands in a generation.

    Attributes:
      program: what the launcher runs.
      version: of the main package.
      native: the command line tool behind the adapter, where it is there.
      native_version: of its package, where it has one.
      path: directories that the agent has before those on PATH.
      path_end: directories that it has after them. The tools of a virtual environment come last: `python` on PATH is
        to be the user's.
      relies_on: programs without which it does not run.
    """

    program: Path
    version: str | None
    native: Path | None
    native_version: str | None
    path: tuple[Path, ...]
    path_end: tuple[Path, ...]
    relies_on: tuple[Path, ...]


async def build(site: Site, agent: Agent, plan: Plan, generation: Path, node: Path | None) -> Built:
    """Fill a generation.

    Args:
      node: the directory of a private Node.js, where the one on PATH will not do.

    Raises:
      Trouble: it did not work. What is there by then is left.
      OSError: it cannot be written.
    """
    modules, venv = generation / "node_modules" / ".bin", generation / "venv"
    path = [] if node is None else [node]
    relies_on = [] if node is None else [node / "node"]
    program, version = generation, None
    if plan.npm:
        await install_packages(site, generation, plan.npm, node)
        path.insert(0, modules)
    if plan.npm_main:
        name = main_package(generation, plan.npm)
        version = package_version(generation, name)
        program = _program(agent, generation, modules, lambda: package_program(generation, name))
    elif plan.pypi is not None:
        await install_requirement(site, venv, plan.pypi, agent.python, await find_uv(site), agent.builds)
        relies_on.append(venv / "bin" / "python")
        pin = pypi_pin(plan.pypi)
        package = pin.name.partition("[")[0] if pin is not None else ""
        version = distribution_version(venv, package)
        program = _program(agent, generation, venv / "bin", lambda: package)
    elif plan.binary is not None:
        version = plan.binary_version
        program = await _fetch(site, plan.binary, generation)
    await _finish(site, agent, generation, path)
    if not program.is_file() or not os.access(program, os.X_OK):
        raise Trouble("failed", f"what was installed has no program {program.name!r}; name it in the definition")
    native = agent.native
    return Built(
        program,
        version,
        None if native is None else _native(native.program, modules, venv / "bin"),
        None if native is None or native.package is None else package_version(generation, native.package),
        tuple(path),
        (venv / "bin",) if plan.pypi is not None else (),
        tuple(relies_on),
    )


def _program(agent: Agent, generation: Path, usual: Path, name: Callable[[], str]) -> Path:
    """The program as the definition has it, a name or a path within the install, or else as the package has it."""
    named = agent.program
    if named is not None and "/" in named:
        return generation / named
    return usual / (named if named is not None else name())


async def _fetch(site: Site, binary: Binary, generation: Path) -> Path:
    archive, directory = generation / "archive", generation / "program"
    site.step("downloading", binary.cmd)
    await download(binary.archive, archive, sha256=binary.sha256, told=site.grown)
    site.step("unpacking", binary.cmd)
    await trio.to_thread.run_sync(unpack, archive, binary.archive, binary.cmd, directory)
    await trio.Path(archive).unlink()
    return await trio.to_thread.run_sync(find_program, directory, binary.cmd)


async def _finish(site: Site, agent: Agent, generation: Path, path: list[Path]) -> None:
    """Install scripts are off; this is the one that the agent needs."""
    if agent.after_install is None:
        return
    site.step("finishing", " ".join(agent.after_install))
    env = site.tool_environment(path=path)
    finished = await site.tool(agent.after_install, env=env, cwd=generation, grows=generation)
    if finished.code != 0:
        raise trouble_of_tool(agent.after_install[0], "the rest of it", finished.lines)


def _native(program: str, *folders: Path) -> Path | None:
    return next((folder / program for folder in folders if os.access(folder / program, os.X_OK)), None)
