"""What users say of agents, in a file and by variables: it stands in the place of what we and a registry say."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec.structs import replace

from .entry import AGENT_ID, Agent, BadCatalog, Native
from .pins import main_pin, pinned, repinned

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "with_definitions", "with_variables"]

PREFIX = "SANDBOX_AGENT_AGENT_"
"""What the names of variables begin with that each give an agent's command line."""

SUFFIX = re.compile(r"[A-Z0-9][A-Z0-9_]*")

Agents: TypeAlias = "dict[str, Agent]"

TABLES = ("env", "verify_env", "needs")
"""Members of a known agent that the user's file adds to, name by name. `LISTS` grow; all others are replaced."""

LISTS = ("aliases", "environment")

OF_A_DISTRIBUTION = ("version", "program", "packages", "builds", "after_install", "on_path", "needs")
"""Members that say something of one distribution alone, and go with it."""

NO_MEMBERS = frozenset({"id", "origin"})
"""What no file can say: the id is the name of the agent's table."""


# -- the user's file


def with_definitions(agents: Mapping[str, Agent], definitions: Mapping[str, dict[str, object]], told: str) -> Agents:
    """These agents under the user's definitions.

    Args:
      told: what the file is called in messages.

    Raises:
      BadCatalog: a definition cannot be used.
    """
    over = dict(agents)
    for id, definition in definitions.items():
        if not AGENT_ID.fullmatch(id):
            raise BadCatalog(f"{told} has the id {id!r}: use lower case letters, digits, '.', '_', '-'")
        try:
            over[id] = _defined(over, id, definition)
        except (ValueError, msgspec.ValidationError) as error:
            raise BadCatalog(f"{told} has an agent {id!r} that is not valid: {error}") from None
        _make_room(over, id)
    _check_aliases(over, definitions, told)
    return over


def _defined(agents: Mapping[str, Agent], id: str, definition: dict[str, object]) -> Agent:
    if forbidden := sorted(NO_MEMBERS & definition.keys()):
        raise ValueError(f"Object contains unknown field `{forbidden[0]}`")
    given = msgspec.convert({"name": id, **definition, "id": id}, Agent)
    known = agents.get(id)
    if known is None:
        if given.command is None and given.distribution is None:
            raise ValueError(_unfinished(agents, id))
        known = Agent(id, id)
    if given.distribution is not None:
        known = _without_distribution(known)
    members: dict[str, object] = {name: getattr(given, name) for name in definition}
    for name in TABLES:
        if name in members:
            members[name] = getattr(known, name) | getattr(given, name)
    for name in LISTS:
        if name in members:
            members[name] = list(dict.fromkeys([*getattr(known, name), *getattr(given, name)]))
    if members.keys() & {"command", "distribution", "version"}:
        members["origin"] = "file"
    agent: Agent = replace(known, **members)
    if given.version is not None and given.distribution is None and given.command is None:
        return repinned(agent, given.version)
    pin = main_pin(given.distribution)
    if given.version is not None and pin is not None and pin.version not in (None, given.version):
        raise ValueError(f"its version is {given.version!r}, but its package asks for {pin.version!r}")
    return agent if given.distribution is None else pinned(agent)


def _unfinished(agents: Mapping[str, Agent], id: str) -> str:
    sentence = "it is no agent that we know, so it needs `command` or `distribution`"
    for agent in agents.values():
        if id in agent.aliases:
            sentence += f"; to change {agent.id!r}, which goes by this name too, define [agents.{agent.id}]"
    return sentence


def _without_distribution(agent: Agent) -> Agent:
    """An agent without what is true of its distribution alone."""
    plain = Agent(agent.id, agent.name)
    native = None if agent.native is None else Native(agent.native.program)
    return replace(agent, native=native, **{name: getattr(plain, name) for name in OF_A_DISTRIBUTION})


def _make_room(agents: Agents, id: str) -> None:
    """An agent that the user names so is no longer another one's alias."""
    for agent in list(agents.values()):
        if agent.id != id and id in agent.aliases:
            agents[agent.id] = replace(agent, aliases=[alias for alias in agent.aliases if alias != id])


def _check_aliases(agents: Mapping[str, Agent], definitions: Mapping[str, object], told: str) -> None:
    for id in definitions:
        for alias in agents[id].aliases:
            others = [agent.id for agent in agents.values() if agent.id != id and alias in (agent.id, *agent.aliases)]
            if others or alias == id:
                raise BadCatalog(
                    f"{told} gives the agent {id!r} the alias {alias!r}, which is {(others or [id])[0]!r} already"
                )


# -- the user's variables


def with_variables(agents: Mapping[str, Agent], environment: Mapping[str, str]) -> Agents:
    """These agents under `SANDBOX_AGENT_AGENT_<ID>` variables, each a command line.

    `SANDBOX_AGENT_AGENT_MY_BOT` is the agent `my-bot`, or a known one such as `my_bot` whose id reads the same.

    Raises:
      BadCatalog: a variable cannot be used. The message names it, and never says what is in it.
    """
    over = dict(agents)
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        id = _id_of_variable(agents, variable)
        try:
            command = shlex.split(environment[variable])
        except ValueError as error:
            raise BadCatalog(f"the variable {variable} is no command line: {str(error).lower()}") from None
        if not command:
            raise BadCatalog(f"the variable {variable} is empty: give it a command line, or unset it")
        try:
            over[id] = replace(over.get(id) or Agent(id, id), command=command, origin="environment")
        except ValueError as error:
            raise BadCatalog(f"the variable {variable} is no command line: {error}") from None
        _make_room(over, id)
    return over


def _id_of_variable(agents: Mapping[str, Agent], variable: str) -> str:
    suffix = variable.removeprefix(PREFIX)
    id = suffix.lower().replace("_", "-")
    if not SUFFIX.fullmatch(suffix) or not AGENT_ID.fullmatch(id):
        raise BadCatalog(
            f"the variable {variable} names no agent: behind {PREFIX} go upper case letters, digits and '_' for the id"
        )
    known = [each for each in agents if re.sub("[._-]", "_", each).upper() == suffix]
    if len(known) > 1:
        raise BadCatalog(f"the variable {variable} is ambiguous: it may mean {' or '.join(map(repr, known))}")
    return known[0] if known else id
