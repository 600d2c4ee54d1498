"""What a registry means for the agents that we ship: some move to other versions, and others come along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from .entry import Agent, Distribution
from .pins import main_pin, moved, npm_pin, pinned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .registry import Entry, Registry

__all__ = ["Change", "with_registry"]


@dataclass(frozen=True, slots=True)
class Change:
    """What an entry of a registry means for the catalog.

    Attributes:
      agent: the id in the catalog.
      entry: the id in the registry.
      before, after: what is installed, as a package spec or a version.
      reason: why it is passed over.
    """

    kind: Literal["repinned", "same", "added", "passed over"]
    agent: str
    entry: str
    before: str | None = None
    after: str | None = None
    reason: str | None = None


def with_registry(agents: Mapping[str, Agent], registry: Registry) -> tuple[dict[str, Agent], list[Change]]:
    """These agents under a registry, and what it has changed."""
    over = dict(agents)
    names = {alias: agent.id for agent in agents.values() for alias in agent.aliases} | {id: id for id in agents}
    changes: list[Change] = []
    taken: dict[str, str] = {}
    for entry in registry.entries:
        id = names.get(entry.id)
        if id is None:
            over[entry.id] = _added(entry)
            changes.append(Change("added", entry.id, entry.id, after=_had(entry.distribution, entry.version)))
        elif id in taken:
            reason = f"its entry {taken[id]!r} comes before"
            changes.append(Change("passed over", id, entry.id, reason=reason))
        else:
            taken[id] = entry.id
            over[id], change = _moved(over[id], entry)
            changes.append(change)
    return over, changes


def _added(entry: Entry) -> Agent:
    agent = Agent(
        entry.id,
        entry.name,
        version=entry.version,
        description=entry.description,
        distribution=entry.distribution,
        origin="registry",
    )
    return pinned(agent)


def _moved(agent: Agent, entry: Entry) -> tuple[Agent, Change]:
    """An agent of ours, had in our way, and in the registry's version of that way."""
    ours, theirs = agent.distribution, entry.distribution
    if ours is None:
        return agent, Change("passed over", agent.id, entry.id, reason="nothing is installed for it")
    way: Distribution | None = None
    if ours.npx is not None:
        way = None if theirs.npx is None else replace(ours, npx=theirs.npx)
    elif ours.uvx is not None:
        way = None if theirs.uvx is None else replace(ours, uvx=theirs.uvx)
    elif theirs.binary:
        way = replace(ours, binary={**ours.binary, **theirs.binary})
    if way is None:
        reason = f"it is installed by {_ways(ours)}, and the registry has {_ways(theirs)} only"
        return agent, Change("passed over", agent.id, entry.id, reason=reason)
    was, now = _had(ours, agent.version), _had(way, entry.version)
    if way == ours:
        return agent, Change("same", agent.id, entry.id, was, now)
    before, after = main_pin(ours), main_pin(way)
    if after is not None and after.version is None:
        return agent, Change("passed over", agent.id, entry.id, was, reason="the registry names no version of it")
    packages, program, builds, after_install = agent.packages, agent.program, agent.builds, agent.after_install
    if before is not None and after is not None and after.version is not None:
        if before.name == after.name:
            packages = moved(packages, before.name, before.version, after.version)
        else:
            # Another package: what we know of the inside of ours is not true of it.
            packages = [spec for spec in packages if not _is_part(spec, before.name)]
            program, builds, after_install = None, [], None
    over = replace(
        agent,
        version=entry.version,
        description=agent.description or entry.description,
        distribution=way,
        program=program,
        packages=packages,
        builds=builds,
        after_install=after_install,
        origin="registry",
    )
    return pinned(over), Change("repinned", agent.id, entry.id, was, now)


def _is_part(spec: str, name: str) -> bool:
    pin = npm_pin(spec)
    return pin is not None and pin.name.startswith(f"{name}-")


def _had(distribution: Distribution, version: str | None) -> str | None:
    if distribution.npx is not None:
        return distribution.npx.package
    return version if distribution.uvx is None else distribution.uvx.package


def _ways(distribution: Distribution) -> str:
    ways = (("npx", distribution.npx), ("uvx", distribution.uvx), ("binary", distribution.binary or None))
    return " and ".join(name for name, way in ways if way is not None)
