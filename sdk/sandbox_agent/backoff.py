"""How long to wait before the next try: longer each time, and never the same for two clients."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(slots=True)
class Backoff:
    """Delays that double up to a limit, each drawn from its upper half.

    Attributes:
      first, limit: seconds.
    """

    first: float = 0.1
    limit: float = 5.0
    _tries: int = 0

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait now; more than what the server asked for: it tells all the same."""
        delay = min(self.limit, self.first * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return (at_least or 0.0) + delay * random.uniform(0.5, 1)

    def reset(self) -> None:
        """Something went well: begin anew."""
        self._tries = 0
