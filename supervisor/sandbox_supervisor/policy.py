"""When a child that ended is started again, how soon, and how often before it is given up.

Crashes are counted per child in a sliding window: a quiet period forgets them, and the delay falls back with the
count. The delay is `backoff * 2**(crashes - 1)`, at most `backoff_limit`, jittered downwards by up to a half so that
children that fell together do not rise together.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["PERMANENT", "TEMPORARY", "TRANSIENT", "CrashCount", "Restart", "RestartPolicy"]

Restart = Literal["permanent", "transient", "temporary"]
PERMANENT: Restart = "permanent"
TRANSIENT: Restart = "transient"
TEMPORARY: Restart = "temporary"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a child is restarted.

    Attributes:
      restart: `permanent`: after every end; `transient`: after a crash only; `temporary`: never.
      intensity: how many crashes within `period` are survived; one more and the child is given up.
      period: the length of the window in seconds.
      backoff: the delay before the first restart in seconds; doubles with every crash in the window.
      backoff_limit: the longest delay in seconds.
    """

    restart: Restart = TRANSIENT
    intensity: int = 5
    period: float = 60.0
    backoff: float = 0.2
    backoff_limit: float = 10.0

    def delay(self, crashes: int) -> float:
        """Seconds to wait before the restart that follows the given number of crashes in the window."""
        if crashes < 1:
            return 0.0
        # 2**63 is already past any limit; the cap keeps the float finite for a policy with a huge intensity.
        full = min(self.backoff * 2.0 ** min(crashes - 1, 63), self.backoff_limit)
        return full * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class CrashCount:
    """The crashes of one child within its policy's window."""

    policy: RestartPolicy
    _times: deque[float] = field(default_factory=deque[float])

    def add(self, now: float) -> int:
        """Count a crash at a time in seconds; return how many are in the window, this one included."""
        self._times.append(now)
        while self._times and self._times[0] <= now - self.policy.period:
            self._times.popleft()
        return len(self._times)

    @property
    def exceeded(self) -> bool:
        return len(self._times) > self.policy.intensity
