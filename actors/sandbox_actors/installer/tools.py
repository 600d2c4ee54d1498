"""The tools of this machine that installs need: Node.js with npm, uv, and a Python that will do.

A program that is found is not yet one that runs: a shim of a version manager stands for versions that are not there.
So what is chosen by its version has been run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from packaging.specifiers import SpecifierSet

from .trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .site import Site

__all__ = ["find_node", "find_npm", "find_python", "find_uv"]

GET_NODE = "install Node.js 22 or later with npm (your system's package manager has it), and try again"

TOLD_WITHIN = 15.0
"""Seconds for a program to tell its version."""

_NODE_VERSION = re.compile(r"v(\d+)\.\d+\.\d+")
_PYTHON_NAME = re.compile(r"python3\.(\d+)")


def find_npm(site: Site) -> str:
    """The path of npm. Raises `Trouble` where npm or Node.js is missing."""
    for program, name in (("node", "Node.js"), ("npm", "npm")):
        if shutil.which(program, path=site.environment.get("PATH", "")) is None:
            raise Trouble("missing_tool", f"it needs {name}, and there is no {program!r} on PATH; {GET_NODE}")
    return str(shutil.which("npm", path=site.environment.get("PATH", "")))


async def find_node(site: Site) -> int:
    """The major version of the Node.js on PATH. Raises `Trouble` where it does not run."""
    lines = await _told(site, "node", "--version")
    found = _NODE_VERSION.match(lines[-1]) if lines else None
    if found is None:
        raise Trouble("missing_tool", f"the 'node' on PATH does not tell its version; {GET_NODE}", lines or ())
    return int(found[1])


async def find_uv(site: Site) -> str | None:
    """The path of a uv that runs: on PATH, or installed beside us."""
    for folders in (site.environment.get("PATH", ""), str(Path(sys.executable).parent)):
        if (uv := shutil.which("uv", path=folders)) is not None and await _told(site, uv, "--version") is not None:
            return uv
    return None


async def find_python(site: Site, specifier: str | None) -> str | None:
    """The path of a Python that a specifier (PEP 440) allows; None where none was found.

    Our own comes first, then the lowest that will do: a package that asks for "at least" was tried with that.
    """
    wanted = SpecifierSet(specifier or "")
    own = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    if wanted.contains(".".join(map(str, sys.version_info[:3]))) and await trio.Path(own).is_file():
        return str(own)
    for candidate in await trio.to_thread.run_sync(_candidates, site.environment):
        lines = await _told(site, str(candidate), "-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')")
        if lines and re.fullmatch(r"\d+\.\d+\.\d+", lines[-1]) and wanted.contains(lines[-1]):
            return str(candidate)
    return None


def _candidates(environment: Mapping[str, str]) -> list[Path]:
    """Programs that may be a Python 3, the lowest version first: on PATH, of pyenv, of uv."""
    folders = [Path(folder) for folder in environment.get("PATH", "").split(os.pathsep) if folder]
    if home := environment.get("HOME"):
        folders += sorted(Path(home).glob(".pyenv/versions/*/bin"))
        folders += sorted(Path(home).glob(".local/share/uv/python/*/bin"))
    found: list[tuple[int, Path]] = []
    for folder in folders:
        found += [
            (int(name[1]), program)
            for program in folder.glob("python3.*")
            if (name := _PYTHON_NAME.fullmatch(program.name)) and program.is_file()
        ]
    # Sorting is stable: of one version the first on PATH is taken.
    return [program for _, program in sorted(found, key=lambda each: each[0])]


async def _told(site: Site, *argv: str) -> tuple[str, ...] | None:
    """What a program says when it is run; None where it does not run, or fails."""
    with trio.move_on_after(TOLD_WITHIN):
        try:
            finished = await site.tool(argv, env=site.tool_environment())
        except Trouble:
            return None
        return finished.lines if finished.code == 0 else None
    return None
