"""PyPI packages, each agent in a virtual environment of its own: by uv where there is one, else by venv and pip.

Wheels only, as npm's install scripts are off: to build a package is to run code of its own. What has no wheel is built
where the definition names it, and so is what the definition gives by its URL or path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..catalog.pins import pypi_pin
from .site import PYPI
from .tools import find_python
from .trouble import Trouble, trouble_of_tool, without_users

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .site import Finished, Site

__all__ = ["distribution_version", "install_requirement"]

# So that a network that is not there is told of in some seconds.
_UV_PATIENCE = {"UV_HTTP_RETRIES": "2", "UV_HTTP_CONNECT_TIMEOUT": "10"}
_UV_WORDS = ("--no-progress", "--color", "never")
_PIP_WORDS = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2")


async def install_requirement(
    site: Site, venv: Path, requirement: str, python: str | None, uv: str | None, builds: Sequence[str] = ()
) -> None:
    """Make a virtual environment and install a package into it.

    Args:
      python: which Pythons will do, as a version specifier.
      uv: the path of uv, where there is one.
      builds: the packages that may be built.

    Raises:
      Trouble: there is no such Python, or the install failed.
    """
    site.step("checking", "Python")
    interpreter = await find_python(site, python)
    if interpreter is None and uv is None:
        raise Trouble(
            "missing_tool",
            f"it needs Python {python or '3'}, and none was found; install one, or install uv, which brings its own",
        )
    what, folder = without_users(requirement), venv.parent
    site.step("installing", what)
    sources = (
        [] if pypi_pin(requirement) is None else ["--only-binary=:all:", *(f"--no-binary={name}" for name in builds)]
    )
    if uv is not None:
        env = {**_UV_PATIENCE, **site.tool_environment(PYPI)}
        # Without an interpreter of this machine uv may fetch one.
        wanted = interpreter or python or "3"
        made = await site.tool(
            [uv, "venv", *_UV_WORDS, "--no-project", "--python", wanted, str(venv)], env=env, cwd=folder
        )
        if made.code != 0:
            raise _no_venv(python, made)
        target = str(venv / "bin" / "python")
        done = await site.tool(
            [uv, "pip", "install", *_UV_WORDS, *sources, "--python", target, "--", requirement],
            env=env,
            cwd=folder,
            grows=folder,
        )
        if done.code != 0:
            raise _no_package("uv", what, done)
        return
    assert interpreter is not None
    env = site.tool_environment(PYPI)
    # In a folder of ours, and isolated from it: Python takes modules from where it is started.
    made = await site.tool([interpreter, "-I", "-m", "venv", str(venv)], env=env, cwd=folder, grows=folder)
    if made.code != 0:
        raise _no_venv(python, made)
    done = await site.tool(
        [str(venv / "bin" / "python"), "-m", "pip", "install", *_PIP_WORDS, *sources, "--", requirement],
        env=env,
        cwd=folder,
        grows=folder,
    )
    if done.code != 0:
        raise _no_package("pip", what, done)


def _no_package(tool: str, what: str, done: Finished) -> Trouble:
    if "has no usable wheels" in "\n".join(done.lines):
        message = (
            f"{tool} could not install {what}: a package that it needs has no wheel for this machine, and is built"
        )
        return Trouble("not_found", f"{message} here only if the definition names it in 'builds'", done.lines)
    return trouble_of_tool(tool, what, done.lines)


def _no_venv(python: str | None, made: Finished) -> Trouble:
    said = "\n".join(made.lines)
    if "ensurepip" in said:
        message = "this Python makes no virtual environments; install its venv module (python3-venv), or uv"
        return Trouble("missing_tool", message, made.lines)
    if re.search(r"No interpreter found|no download", said):
        message = f"it needs Python {python or '3'}, and none was found; install one, and try again"
        return Trouble("missing_tool", message, made.lines)
    return trouble_of_tool("Python", "a virtual environment", made.lines)


def distribution_version(venv: Path, name: str) -> str | None:
    """The version of an installed package; None where it is not there."""
    wanted = _normal(name)
    for folder in venv.glob("lib/python*/site-packages/*.dist-info"):
        found, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if _normal(found) == wanted:
            return version
    return None


def _normal(name: str) -> str:
    """PEP 503: names that differ in these are one."""
    return re.sub(r"[-_.]+", "-", name).lower()
