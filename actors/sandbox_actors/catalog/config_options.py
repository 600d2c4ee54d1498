"""The options that the public wire tells of an agent which cannot be asked for its own: a table, and it ages."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["static_options"]


def static_options(id: str) -> Raw | None:
    """The JSON array of an agent's `configOptions` (wire of 0.4), or None where there is no table for it."""
    return _tables().get(id)


@cache
def _tables() -> Mapping[str, Raw]:
    document = resources.files("sandbox_actors.catalog").joinpath("config_options.json").read_bytes()
    return msgspec.json.decode(document, type=dict[str, Raw])
