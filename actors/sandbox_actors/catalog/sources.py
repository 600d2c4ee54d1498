"""Where definitions of agents come from, each layer over the one before.

agents.toml of this package  →  registry document  →  the user's file  →  SANDBOX_AGENT_AGENT_<ID> variables
"""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .changes import with_registry
from .entry import Agent, BadCatalog
from .overrides import with_definitions, with_variables
from .pins import pinned
from .platforms import node_platform
from .registry import MAX_DOCUMENT, parse_registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["read_agents", "registry_cache", "shipped_agents"]

Definitions: TypeAlias = "dict[str, dict[str, object]]"


class _AgentsFile(msgspec.Struct, forbid_unknown_fields=True):
    agents: Definitions


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
    agents = shipped_agents()
    if registry is not None and (document := _cached(registry)) is not None:
        told = f"the registry document {registry}"
        try:
            agents, _ = with_registry(agents, parse_registry(document, told))
        except BadCatalog as error:
            raise BadCatalog(f"{error}; fetch it again, or run 'sandbox-agent agents refresh --clear'") from None
    if agents_file is not None:
        agents = with_definitions(agents, _read_file(agents_file), f"the agents file {agents_file}")
    return with_variables(agents, environment or {})


def registry_cache(data_dir: Path) -> Path:
    """Where the registry document is that was fetched last."""
    return data_dir / "registry.json"


def shipped_agents() -> dict[str, Agent]:
    """The agents that this release knows, by id."""
    text = resources.files("sandbox_actors.catalog").joinpath("agents.toml").read_text(encoding="utf-8")
    definitions = _parse(text.replace("{platform}", node_platform()), "agents.toml", as_json=False)
    return {id: pinned(msgspec.convert({**each, "id": id}, Agent)) for id, each in definitions.items()}


def _cached(registry: Path) -> bytes | None:
    try:
        with registry.open("rb") as file:
            return file.read(MAX_DOCUMENT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadCatalog(f"cannot read the registry document {registry}: {error.strerror}") from None


def _read_file(file: Path) -> Definitions:
    try:
        return _parse(file.read_text(encoding="utf-8"), str(file), as_json=file.name.endswith(".json"))
    except OSError as error:
        raise BadCatalog(f"cannot read the agents file {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadCatalog(f"the agents file {file} is not valid: {error}") from None


def _parse(text: str, name: str, *, as_json: bool) -> Definitions:
    try:
        data = json.loads(text) if as_json else tomllib.loads(text)
        return msgspec.convert(data, _AgentsFile).agents
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise BadCatalog(f"the agents file {name} is not valid: {error}") from None
