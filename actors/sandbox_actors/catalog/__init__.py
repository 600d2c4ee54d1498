"""The catalog: every agent as data, and how its id becomes a command."""

from .catalog import MOCK, Catalog, Launch
from .config_options import static_options
from .entry import AGENT_ID, Agent, BadCatalog, Binary, Distribution, Native, Npx, Uvx

__all__ = [
    "AGENT_ID",
    "MOCK",
    "Agent",
    "BadCatalog",
    "Binary",
    "Catalog",
    "Distribution",
    "Launch",
    "Native",
    "Npx",
    "Uvx",
    "static_options",
]
