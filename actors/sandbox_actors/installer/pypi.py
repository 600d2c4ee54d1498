"""PyPI packages, each agent in a virtual environment of its own: by uv where there is one, else by venv and pip."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .site import PYPI
from .tools import find_python
from .trouble import Trouble, trouble_of_tool

if TYPE_CHECKING:
    from pathlib import Path

    from .site import Finished, Site

__all__ = ["distribution_version", "install_requirement"]

# So that a network that is not there is told of in some seconds.
_UV_PATIENCE = {"UV_HTTP_RETRIES": "2", "UV_HTTP_CONNECT_TIMEOUT": "10"}
_UV_WORDS = ("--no-progress", "--color", "never")
_PIP_WORDS = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2")


async def install_requirement(site: Site, venv: Path, requirement: str, python: str | None, uv: str | None) -> None:
    """Make a virtual environment and install a package into it.

    Args:
      python: which Pythons will do, as a version specifier.
      uv: the path of uv, where there is one.

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
    site.step("installing", requirement)
    folder = venv.parent
    if uv is not None:
        env = {**_UV_PATIENCE, **site.tool_environment(PYPI)}
        # Without an interpreter of this machine uv may fetch one.
        wanted = interpreter or python or "3"
        made = await site.tool([uv, "venv", *_UV_WORDS, "--no-project", "--python", wanted, str(venv)], env=env)
        if made.code != 0:
            raise _no_venv(python, made)
        target = str(venv / "bin" / "python")
        done = await site.tool(
            [uv, "pip", "install", *_UV_WORDS, "--python", target, "--", requirement], env=env, cwd=folder, grows=folder
        )
        if done.code != 0:
            raise trouble_of_tool("uv", requirement, done.lines)
        return
    assert interpreter is not None
    env = site.tool_environment(PYPI)
    made = await site.tool([interpreter, "-m", "venv", str(venv)], env=env, grows=folder)
    if made.code != 0:
        raise _no_venv(python, made)
    done = await site.tool(
        [str(venv / "bin" / "python"), "-m", "pip", "install", *_PIP_WORDS, "--", requirement],
        env=env,
        cwd=folder,
        grows=folder,
    )
    if done.code != 0:
        raise trouble_of_tool("pip", requirement, done.lines)


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
