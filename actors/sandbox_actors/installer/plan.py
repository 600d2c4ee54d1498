"""What is to be installed: packages with their versions, as the definition has them and the request wants them.

A version that a client asks for becomes part of a package spec, so it must be nothing but a version: npm and pip take
URLs, paths and options in the same place. What is not a name with a version may stand in definitions only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..catalog.pins import VERSION, moved, npm_pin, pypi_pin, repinned
from ..catalog.platforms import registry_platform
from ..errors import InvalidRequest
from .trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..catalog import Agent, Binary

__all__ = ["Plan", "Wish", "plan_install", "wished"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What an install request asks for.

    Attributes:
      reinstall: also where it is installed.
      agent_version: of the agent itself.
      process_version: of the adapter, the distribution's main package.
    """

    reinstall: bool = False
    agent_version: str | None = None
    process_version: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether any install will do."""
        return self == Wish()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be installed, by way.

    Attributes:
      npm: package specs; where `npm_main`, the first one is what the launcher runs.
      pypi: a requirement; what the launcher runs.
      binary: what the launcher runs.
      binary_version: of `binary`, which does not tell its own.
      arguments, environment: of what the launcher runs.
    """

    npm: tuple[str, ...] = ()
    npm_main: bool = False
    pypi: str | None = None
    binary: Binary | None = None
    binary_version: str | None = None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def packages(self) -> list[str]:
        return [*self.npm, *filter(None, [self.pypi])]


def wished(agent: Agent, wish: Wish) -> tuple[Agent, Wish]:
    """An agent's definition in the versions of a wish, and the wish with its versions where they belong.

    Raises:
      InvalidRequest: a version is no version, or this agent has none of that kind to choose.
    """
    for name, version in (("agentVersion", wish.agent_version), ("agentProcessVersion", wish.process_version)):
        if version is not None and not VERSION.fullmatch(version):
            raise InvalidRequest(f"{name} must be a version such as '1.2.3' or a tag such as 'latest'")
    native = agent.native
    if native is None and wish.agent_version is not None:
        if wish.process_version not in (None, wish.agent_version):
            raise InvalidRequest(f"{agent.id} and its agent process are one: give one version, or the same one twice")
        wish = Wish(wish.reinstall, None, wish.agent_version)
    if wish.agent_version is not None and native is not None:
        if native.package is None:
            raise InvalidRequest(f"the version of {agent.id} cannot be chosen; give agentProcessVersion, its adapter's")
        pins = [pin for spec in agent.packages if (pin := npm_pin(spec)) is not None and pin.name == native.package]
        packages = moved(agent.packages, native.package, pins[0].version if pins else None, wish.agent_version)
        agent = replace(agent, packages=packages)
    if wish.process_version is not None:
        binary_only = agent.distribution is not None and not agent.distribution.npx and not agent.distribution.uvx
        if not (binary_only and wish.process_version == agent.version):
            try:
                agent = repinned(agent, wish.process_version)
            except ValueError as error:
                raise InvalidRequest(f"the version of {agent.id} cannot be chosen: {error}") from None
    return agent, wish


def plan_install(agent: Agent) -> Plan:
    """What is to be installed for a definition.

    Raises:
      Trouble: there is nothing to install, or not on this platform.
    """
    packages = tuple(agent.packages)
    distribution = agent.distribution
    if distribution is None:
        raise Trouble("nothing_to_install", _nothing(agent))
    if (npx := distribution.npx) is not None:
        return Plan((npx.package, *packages), True, arguments=tuple(npx.args), environment=npx.env)
    if (uvx := distribution.uvx) is not None:
        return Plan(packages, pypi=_requirement(uvx.package), arguments=tuple(uvx.args), environment=uvx.env)
    if (binary := distribution.binary.get(registry_platform())) is None:
        there = ", ".join(sorted(distribution.binary))
        raise Trouble("unsupported_platform", f"there is no build for {registry_platform()}, only for {there}")
    return Plan(
        packages,
        binary=binary,
        binary_version=agent.version,
        arguments=tuple(binary.args),
        environment=binary.env,
    )


def _nothing(agent: Agent) -> str:
    hints = [*agent.needs.values()]
    if agent.on_path is not None:
        hints.append(f"put a program {agent.on_path[0]!r} on PATH")
    hints.append(f"give {agent.id} a command in the agents file")
    return f"its definition does not say how to install it; {', or '.join(hints)}"


def _requirement(spec: str) -> str:
    """As pip knows it: `name@version` is how uvx writes it, and `latest` is a word of npm's."""
    pin = pypi_pin(spec)
    if pin is None:
        return spec
    return pin.name if pin.version in (None, "latest") else f"{pin.name}=={pin.version}"
