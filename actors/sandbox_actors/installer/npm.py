"""npm packages, in a prefix of their own, without running their install scripts.

npm picks versions by what their `engines` say of the Node.js that it runs on, and may so pick an old one without a
word. Where an agent needs a newer Node.js than there is, one is installed from npm for it, once for all agents, and npm
itself runs on that.
"""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

import msgspec
import trio

from ..catalog.pins import npm_pin
from ..catalog.platforms import node_platform
from .place import locked, to_disk
from .site import NPM
from .tools import find_node, find_npm
from .trouble import Trouble, trouble_of_tool, without_users

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .site import Site

__all__ = ["install_packages", "main_package", "obtain_node", "package_program", "package_version"]

NODE_VERSION = "24.21.0"
NODE_PLATFORMS = frozenset({"darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"})
"""For which there is a package `node-<platform>`: a program alone, which needs no install script."""

# Two more tries, so that a network that is not there is told of in some seconds.
_WORDS = (
    "install",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--no-progress",
    "--no-global",
    "--include=optional",  # where many agents have their programs by platform
    "--loglevel=http",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=4000",
    "--fetch-timeout=30000",
)

SILENCE = 90.0
"""Seconds without a word and without a byte after which npm is given up: it waits for connections for minutes."""


class _Manifest(msgspec.Struct):
    """What is read of a package.json."""

    version: str | None = None
    bin: str | dict[str, str] | None = None
    dependencies: dict[str, str] = {}


async def obtain_node(site: Site, at_least: int | None, tools: Path) -> Path | None:
    """The directory of a private Node.js, to be put first on PATH; None where the one on PATH will do.

    Args:
      tools: the directory of what all agents share.

    Raises:
      Trouble: there is no npm, or the private Node.js cannot be installed.
    """
    find_npm(site)
    have = await find_node(site)
    if at_least is None or have >= at_least:
        return None
    package = f"node-{node_platform()}"
    if node_platform() not in NODE_PLATFORMS:
        raise Trouble("missing_tool", f"it needs Node.js {at_least} or later, and PATH has {have}; install a newer one")
    place = tools / f"node-{NODE_VERSION}"
    folder = place / "node_modules" / package / "bin"
    async with locked(tools / f".node-{NODE_VERSION}.lock", lambda: site.step("waiting", "Node.js is being installed")):
        if not await trio.Path(folder / "node").is_file():
            building = tools / f".node-{NODE_VERSION}.{secrets.token_hex(4)}"
            await trio.to_thread.run_sync(_sweep, tools)
            await trio.Path(building).mkdir(mode=0o700)
            try:
                await install_packages(site, building, [f"{package}@{NODE_VERSION}"], None)
                if not await trio.Path(building / folder.relative_to(place) / "node").is_file():
                    raise Trouble("failed", f"the package {package} brings no program 'node'")
                await trio.to_thread.run_sync(to_disk, building)
                await trio.Path(building).rename(place)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(lambda: shutil.rmtree(building, ignore_errors=True))
    return folder


def _sweep(tools: Path) -> None:
    """Remove what installs that were killed have left. Hold the lock."""
    for leftover in tools.glob(f".node-{NODE_VERSION}.*[0-9a-f]"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


async def install_packages(site: Site, prefix: Path, specs: Sequence[str], node: Path | None) -> None:
    """Run npm.

    Args:
      node: the directory of the Node.js that it is to run on; None: the one on PATH.

    Raises:
      Trouble: it failed.
    """
    what = without_users(", ".join(specs))
    site.step("installing", what)
    finished = await site.tool(
        [find_npm(site), *_WORDS, "--prefix", str(prefix), "--", *specs],
        env=site.tool_environment(NPM, [] if node is None else [node]),
        cwd=prefix,
        grows=prefix,
        silence=SILENCE,
    )
    if finished.code != 0:
        raise trouble_of_tool("npm", what, finished.lines)


def main_package(prefix: Path, specs: Sequence[str]) -> str:
    """The name of the first package. That of a URL or path is told by npm alone, in its package.json."""
    if (pin := npm_pin(specs[0])) is not None:
        return pin.name
    others = {pin.name for spec in specs[1:] if (pin := npm_pin(spec)) is not None}
    names = [name for name in _read(prefix).dependencies if name not in others]
    if len(names) != 1:
        spec = without_users(specs[0])
        raise Trouble("failed", f"the name of the package {spec} is not known; add it to the definition")
    return names[0]


def package_version(prefix: Path, name: str) -> str | None:
    """The version of an installed package; None where it is not there."""
    try:
        return _read(prefix / "node_modules" / name).version
    except OSError:
        return None


def package_program(prefix: Path, name: str) -> str:
    """The name of the program that npx would run: the only one, or the one that is called like the package."""
    programs = _read(prefix / "node_modules" / name).bin
    last = name.rpartition("/")[2]
    if isinstance(programs, dict):
        if len(programs) == 1:
            return next(iter(programs))
        if last not in programs:
            raise Trouble(
                "failed", f"the package {name} has not one program called {last!r}; name it in the definition"
            )
    elif programs is None:
        raise Trouble("failed", f"the package {name} brings no program")
    return last


def _read(folder: Path) -> _Manifest:
    try:
        return msgspec.json.decode((folder / "package.json").read_bytes(), type=_Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Trouble("failed", f"{folder.name}/package.json is not valid: {error}") from None
