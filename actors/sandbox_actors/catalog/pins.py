"""Which version of a package a spec asks for, and how an agent is moved to another version.

Some packages come in parts: a wrapper, and one package for each platform that must have the wrapper's version
(`@kilocode/cli` and `@kilocode/cli-linux-x64`). Where the one is moved, the others go along.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .entry import Agent, Distribution

__all__ = ["VERSION", "Pin", "main_pin", "moved", "npm_pin", "pinned", "pypi_pin", "repinned"]

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,127}")
"""A version or a tag, and never a URL, a path or an option."""

NPM_NAME = r"(?:@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*"
NPM = re.compile(rf"(?P<name>{NPM_NAME})(?:@(?P<version>{VERSION.pattern}))?")

# uvx takes `name@version` for `name==version`, and so do the entries of registries.
PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._, -]*\])?)"
    rf"(?:(?:==|@)(?P<version>{VERSION.pattern}))?"
)


class Pin(NamedTuple):
    """A package by name (on PyPI with its extras), and the version that is asked for, if one is."""

    name: str
    version: str | None


def npm_pin(spec: str) -> Pin | None:
    """What an npm spec asks for; None where it is no package of a registry: a URL, a folder, a range."""
    found = NPM.fullmatch(spec)
    return None if found is None else Pin(found["name"], found["version"])


def pypi_pin(spec: str) -> Pin | None:
    """What a requirement asks for; None where it is more than a name and a version."""
    found = PYPI.fullmatch(spec)
    return None if found is None else Pin(found["name"], found["version"])


def main_pin(distribution: Distribution | None) -> Pin | None:
    """The package that a distribution is installed from; None where it is no package of npm's or PyPI's registry."""
    if distribution is None:
        return None
    if distribution.npx is not None:
        return npm_pin(distribution.npx.package)
    return None if distribution.uvx is None else pypi_pin(distribution.uvx.package)


def moved(packages: Sequence[str], name: str, old: str | None, new: str) -> list[str]:
    """These npm packages, with `name` and its parts in another version.

    Args:
      name: a package, without version.
      old: the version that it had: what bears another one is no part of it.
    """
    specs: list[str] = []
    for spec in packages:
        pin = npm_pin(spec)
        goes_along = pin is not None and (
            pin.name == name or (pin.name.startswith(f"{name}-") and old is not None and pin.version == old)
        )
        specs.append(f"{pin.name}@{new}" if pin is not None and goes_along else spec)
    return specs


def repinned(agent: Agent, version: str) -> Agent:
    """An agent with another version of its main package and of that package's parts.

    Raises:
      ValueError: its main package is not from npm or PyPI, or this is no version.
    """
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version")
    pin, distribution = main_pin(agent.distribution), agent.distribution
    if pin is None or distribution is None:
        raise ValueError("a version means nothing to it, since it is not installed from npm or PyPI")
    if distribution.npx is not None:
        npx = replace(distribution.npx, package=f"{pin.name}@{version}")
        packages = moved(agent.packages, pin.name, pin.version, version)
        return replace(agent, version=version, distribution=replace(distribution, npx=npx), packages=packages)
    assert distribution.uvx is not None
    uvx = replace(distribution.uvx, package=f"{pin.name}=={version}")
    return replace(agent, version=version, distribution=replace(distribution, uvx=uvx))


def pinned(agent: Agent) -> Agent:
    """An agent whose version and package spec say the same, as far as one of them says anything."""
    pin = main_pin(agent.distribution)
    if pin is None:
        return agent
    if pin.version is not None:
        return replace(agent, version=pin.version)
    if agent.version is not None and VERSION.fullmatch(agent.version):
        return repinned(agent, agent.version)
    return agent
