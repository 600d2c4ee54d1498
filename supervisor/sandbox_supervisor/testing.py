"""What structured-concurrency tests need: a child that follows a script, crashes on demand, and a record of it all.

Virtual time: put pytest-trio's `autojump_clock` (or a `trio.testing.MockClock(autojump_threshold=0)`) into the test
*as a direct parameter of the test function*; through another fixture it is silently ignored. Whenever every task is
blocked, time jumps to the next deadline, so a test of an hour of backoff takes no time. It does not mix with real
sockets or processes: waiting for those looks like idleness, and deadlines fire at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["InjectedCrash", "Run", "ScriptedChild", "Step"]


class InjectedCrash(Exception):
    """The crash a test asked for."""


@dataclass(frozen=True, slots=True)
class Run:
    """One incarnation of the script: run for so many seconds, then do as `then` says."""

    then: Literal["crash", "end", "block"]
    after: float = 0.0


Step: TypeAlias = Run | Literal["crash", "end", "block"]


@dataclass(slots=True)
class ScriptedChild:
    """A child for `supervise` whose every incarnation does what the script says; past its end it blocks.

    Attributes:
      script: one step an incarnation: a `Run`, or its word alone.
      started: when each incarnation started, in seconds of Trio's clock.
      incarnations: the numbers they were called with.
      cancelled: how many were cancelled.
    """

    script: Sequence[Step] = ()
    started: list[float] = field(default_factory=list[float])
    incarnations: list[int] = field(default_factory=list[int])
    cancelled: int = 0
    _crash: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, incarnation: int) -> None:
        step = self.script[len(self.started)] if len(self.started) < len(self.script) else "block"
        run = step if isinstance(step, Run) else Run(step)
        self.started.append(trio.current_time())
        self.incarnations.append(incarnation)
        self._crash = trio.Event()
        try:
            await trio.sleep(run.after)
            if run.then == "block":
                await self._crash.wait()
                raise InjectedCrash
            if run.then == "crash":
                raise InjectedCrash
        except trio.Cancelled:
            self.cancelled += 1
            raise

    def crash(self) -> None:
        """Make the incarnation that blocks crash now."""
        self._crash.set()
