"""What all sessions of a daemon share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox_supervisor import RestartPolicy, StopLadder

if TYPE_CHECKING:
    from sandbox_supervisor import Reaper

    from .journal import Journal

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """See the module.

    Attributes:
      owner, run: of the cookie that every process carries.
      policy: how a crashed agent is restarted.
      ladder: how an agent is stopped.
    """

    journal: Journal
    owner: str
    run: str
    reaper: Reaper | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    ladder: StopLadder = field(default_factory=StopLadder)
