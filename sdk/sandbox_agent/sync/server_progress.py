# Written by scripts/make-sync from ../server_progress.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.server_progress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ..server_progress import ServerProgress as AsyncServerProgress
    from ._line import Line


__all__ = ["ServerProgress"]

Outcome = TypeVar("Outcome")

Step = TypeVar("Step")


class ServerProgress(Generic[Step, Outcome]):
    """An iterator over steps, until it is done. Whoever reads slowly misses some."""

    def __init__(self, actual: AsyncServerProgress[Step, Outcome], line: Line) -> None:
        self._actual = actual
        self._line = line

    def __iter__(self) -> ServerProgress[Step, Outcome]:
        return self

    def __next__(self) -> Step:
        """The next step.

        Raises:
          ApiError: it has failed.
          ConnectionFailed.
        """
        return self._line.next(self._actual)

    @property
    def outcome(self) -> Outcome:
        """What came of it, once the iteration has ended.

        Raises:
          SandboxAgentError: it is not done.
        """
        return self._actual.outcome
