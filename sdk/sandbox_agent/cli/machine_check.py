"""What this machine has of the tools that agents and their installs need, and what its kernel lets us do."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_actors.installer.tools import find_node, find_python, find_uv
from sandbox_actors.installer.trouble import Trouble

from .finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_actors.installer.site import Site
    from sandbox_supervisor import Reaper

__all__ = ["check_kernel", "check_tools"]

NODE = 22
"""The lowest major version of Node.js that runs most agents of npm."""

DESCRIPTORS = 1024
"""Open files that a server with a few dozen sessions and clients may need."""

GET_NODE = f"install Node.js {NODE} or later with npm: your system's package manager has it"


async def check_tools(site: Site) -> list[Finding]:
    """The tools, as an install would find them."""
    path = site.environment.get("PATH")
    return [
        Finding("Python", "ok", f"{sys.version.split()[0]} at {sys.executable}"),
        await _node(site, path),
        await _npm(site, path),
        await _python_packages(site),
        _git(path),
    ]


async def _node(site: Site, path: str | None) -> Finding:
    if (program := shutil.which("node", path=path)) is None:
        return Finding("Node.js", "failed", "there is no 'node' on PATH: agents of npm cannot be installed", GET_NODE)
    try:
        version = await find_node(site)
    except Trouble:
        return Finding("Node.js", "failed", f"{program} does not tell its version", GET_NODE)
    if version < NODE:
        message = f"version {version} at {program} is too old for some agents: each install gets them a newer one"
        return Finding("Node.js", "warning", message, GET_NODE)
    return Finding("Node.js", "ok", f"version {version} at {program}")


async def _npm(site: Site, path: str | None) -> Finding:
    if (program := shutil.which("npm", path=path)) is None:
        return Finding("npm", "failed", "there is no 'npm' on PATH: agents of npm cannot be installed", GET_NODE)
    try:
        finished = await site.tool([program, "--version"], env=site.tool_environment())
    except Trouble as trouble:
        return Finding("npm", "failed", str(trouble), GET_NODE)
    if finished.code != 0 or not finished.lines:
        return Finding("npm", "failed", f"{program} is there and does not run", GET_NODE)
    return Finding("npm", "ok", f"version {finished.lines[-1]} at {program}")


async def _python_packages(site: Site) -> Finding:
    name = "Python packages"
    if (uv := await find_uv(site)) is not None:
        return Finding(name, "ok", f"uv at {uv}")
    hint = "install uv, or your system's package for virtual environments (Debian: python3-venv)"
    if (python := await find_python(site, None)) is None:
        return Finding(name, "failed", "neither uv nor a Python for virtual environments was found", hint)
    try:
        finished = await site.tool([python, "-I", "-c", "import ensurepip, venv"], env=site.tool_environment())
    except Trouble as trouble:
        return Finding(name, "failed", str(trouble), hint)
    if finished.code != 0:
        return Finding(name, "failed", f"there is no uv, and {python} cannot make virtual environments", hint)
    return Finding(name, "ok", f"pip and virtual environments of {python}; uv would be quicker")


def _git(path: str | None) -> Finding:
    if (program := shutil.which("git", path=path)) is None:
        return Finding("git", "warning", "there is no 'git' on PATH, and most agents use it", "install git")
    return Finding("git", "ok", program)


def check_kernel(reaper: Reaper, environment: Mapping[str, str]) -> list[Finding]:
    """What process trees need of the kernel, and how many files may be open."""
    findings: list[Finding] = []
    if _shows_processes(environment):
        findings.append(Finding("/proc", "ok", "processes can be seen"))
    else:
        message = "/proc does not show our own processes: what agents leave behind cannot be ended"
        findings.append(Finding("/proc", "failed", message, "mount /proc in this sandbox"))
    if reaper.receives_orphans:
        findings.append(Finding("orphans", "ok", "come home to the server"))
    else:
        message = "the kernel refuses to give them to the server: they go to PID 1, which may not bury them"
        findings.append(Finding("orphans", "warning", message, "run the sandbox with an init process"))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY or limit >= DESCRIPTORS:
        shown = "without limit" if limit == resource.RLIM_INFINITY else f"up to {limit}"
        findings.append(Finding("open files", "ok", shown))
    else:
        hint = f"raise it before you start the server: ulimit -n {DESCRIPTORS}"
        findings.append(Finding("open files", "warning", f"at most {limit}: few sessions at once", hint))
    return findings


def _shows_processes(environment: Mapping[str, str]) -> bool:
    try:
        seen = Path(f"/proc/{os.getpid()}/environ").read_bytes()
        return Path(f"/proc/{os.getpid()}/stat").exists() and (bool(seen) or not environment)
    except OSError:
        return False
