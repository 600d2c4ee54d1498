"""A supervisor is a loop around a child, one loop per child, in one nursery.

There is no supervisor object: run one `supervise` per child in a nursery and the children are independent of each
other; nest context managers and they start in order and stop in reverse. A child is an async function that is called
anew for every incarnation. It ends by returning, it crashes by raising; cancellation passes through untouched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .errors import RestartLimitReached
from .policy import PERMANENT, TEMPORARY, CrashCount, RestartPolicy

if TYPE_CHECKING:
    from .tree import Node

__all__ = ["Child", "Crash", "supervise"]

Child = Callable[[int], Awaitable[None]]
"""What is supervised: called with the number of the incarnation."""


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash of a child.

    Attributes:
      incarnation: which run crashed.
      error: what it raised; an ExceptionGroup where the child has a nursery of its own.
      crashes: how many crashes are in the policy's window, this one included.
      delay: seconds until the next incarnation; None where there will be none.
    """

    incarnation: int
    error: Exception
    crashes: int
    delay: float | None


async def supervise(
    child: Child,
    policy: RestartPolicy,
    *,
    name: str = "child",
    first: int = 1,
    crashed: Callable[[Crash], Awaitable[None]] | None = None,
    node: Node | None = None,
) -> None:
    """Run a child, and run it again as its policy says.

    Args:
      child: called with the incarnation's number for every run.
      policy: when, how soon and how often it is started again.
      name: for the error message.
      first: the number of the first incarnation.
      crashed: awaited after every crash and before the delay; what it raises ends the supervision.
      node: the child's place in the visible tree, kept up to date.

    Returns when the child has ended and its policy does not start it again.

    Raises:
      RestartLimitReached: the child crashed more than `policy.intensity` times within `policy.period`.
    """
    count = CrashCount(policy)
    incarnation = first
    while True:
        delay = 0.0
        if node is not None:
            node.started(incarnation)
        try:
            await child(incarnation)
        except Exception as error:
            crashes = count.add(trio.current_time())
            given_up = count.exceeded or policy.restart == TEMPORARY
            delay = policy.delay(crashes)
            if node is not None:
                node.crashed("failed" if given_up else "restarting")
            if crashed is not None:
                await crashed(Crash(incarnation, error, crashes, None if given_up else delay))
            if given_up:
                raise RestartLimitReached(name, crashes, policy.period) from error
        else:
            if node is not None:
                node.state = "ended"
            if policy.restart != PERMANENT:
                return
        # A permanent child that returns at once must not starve the loop: sleep(0) is a checkpoint as well.
        await trio.sleep(delay)
        incarnation += 1
