"""What a stream of a connection shows."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

__all__ = ["ALL", "Scope"]


class _All(Enum):
    ALL = "all"


ALL: Final = _All.ALL
"""Everything that the connection is told, as on a WebSocket."""

Scope: TypeAlias = str | Literal[_All.ALL] | None
"""One ACP session, what belongs to none, or all."""
