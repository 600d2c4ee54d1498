"""What an agent inherits of the daemon's environment: what programs need to run, and what is this agent's own.

Never the daemon's own settings and token (`SANDBOX_AGENT_*`), and never what npm leaves when it started us (`npm_*`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .entry import Agent

__all__ = ["agent_environment"]

PRIVATE = re.compile(r"SANDBOX_AGENT_.*|npm_.*")
"""Variables of the daemon's that no agent gets, whatever is asked for."""


def agent_environment(agent: Agent, environment: Mapping[str, str], inherited: Sequence[str]) -> dict[str, str]:
    """What an agent gets of the daemon's environment.

    Args:
      inherited: patterns (`*` at the end) of further variables that every agent gets.
    """
    return {name: value for name, value in environment.items() if not PRIVATE.fullmatch(name)}
