"""How a server that fails is brought back, and what the application hears of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from .errors import SandboxAgentError

__all__ = ["OnRecovery", "Recovery", "RecoveryEvent"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """When a server counts as failed, and how often it is brought back. Times are seconds.

    Attributes:
      interval: between two health checks while all is well.
      timeout: of one check.
      failures: so many in a row make a recovery; they follow each other faster, from 0.5 s on, each time later.
      within: what the provider may take for one recovery.
      attempts: recoveries without a healthy check in between, after which the server is given up.
    """

    interval: float = 5.0
    timeout: float = 5.0
    failures: int = 3
    within: float = 120.0
    attempts: int = 5


@dataclass(frozen=True, slots=True)
class RecoveryEvent:
    """Something about the server's health.

    Attributes:
      kind: `failing`: a check has failed. `recovering`: the provider is asked to bring the server back. `recovered`: it
        answers again. `failed`, `destroyed`: it was given up, so that every request and stream raises `error`.
      failures: checks that have failed in a row.
      attempt: recoveries since the last healthy check.
      error: of the newest check or recovery; None where it has recovered.
    """

    kind: Literal["failing", "recovering", "recovered", "failed", "destroyed"]
    failures: int
    attempt: int
    error: SandboxAgentError | None
    at: datetime


OnRecovery: TypeAlias = "Callable[[RecoveryEvent], Awaitable[None] | None]"
"""Hears of it, in order. The monitor waits for it, for 10 s at most; what it raises goes to the log."""
