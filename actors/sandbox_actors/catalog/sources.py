"""Where definitions of agents come from, each layer over the one before.

agents.toml of this package  →  registry document  →  the user's file  →  SANDBOX_AGENT_AGENT_<ID> variables
"""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .entry import AGENT_ID, Agent, BadCatalog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["read_agents"]

Definitions: TypeAlias = "dict[str, dict[str, object]]"


class _AgentsFile(msgspec.Struct, forbid_unknown_fields=True):
    agents: dict[str, dict[str, object]]


def read_agents(
    agents_file: Path | None, registry: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Agent]:
    """All agents by id, in the order of the layers.

    Args:
      agents_file: the user's own agents, TOML or JSON.
      registry: a cached registry document; one that is not there is no error.
      environment: where `SANDBOX_AGENT_AGENT_<ID>` variables are looked for, each a command line.

    Raises:
      BadCatalog: a layer cannot be read, or is not of its shape.
    """
    layers = [_parse(resources.files(__package__).joinpath("agents.toml").read_text(), "agents.toml")]
    if agents_file is not None:
        try:
            layers.append(_parse(agents_file.read_text(), str(agents_file)))
        except OSError as error:
            raise BadCatalog(f"cannot read the agents file {agents_file}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BadCatalog(f"the agents file {agents_file} is not valid: {error}") from None
    agents: dict[str, Agent] = {}
    merged: Definitions = {}
    for layer in layers:
        for id, definition in layer.items():
            merged[id] = {**merged.get(id, {}), **definition}
    for id, definition in merged.items():
        try:
            agents[id] = msgspec.convert({"name": id, **definition, "id": id}, Agent)
        except msgspec.ValidationError as error:
            raise BadCatalog(f"the agent {id!r} is not valid: {error}") from None
    return agents


def _parse(text: str, name: str) -> Definitions:
    try:
        data = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
        agents = msgspec.convert(data, _AgentsFile).agents
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise BadCatalog(f"the agents file {name} is not valid: {error}") from None
    for id in agents:
        if not AGENT_ID.fullmatch(id):
            raise BadCatalog(f"the agents file {name} has the id {id!r}: use lower case letters, digits, '.', '_', '-'")
    return agents
