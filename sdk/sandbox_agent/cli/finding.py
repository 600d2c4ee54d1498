"""What a check has found: how it stands with one thing, in a sentence, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Finding", "Status"]

Status: TypeAlias = Literal["ok", "warning", "failed"]
"""warning: some things will not work, or not well. failed: what most people need does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """See the module.

    Attributes:
      name: of what was looked at.
      hint: how to mend it; None where nothing is wrong.
    """

    name: str
    status: Status
    message: str
    hint: str | None = None
