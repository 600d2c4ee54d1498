"""Git on the directories of this sandbox: each command a child with a deadline, clones in a nursery of their own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from sandbox_supervisor import Reply

from ..errors import ShuttingDown
from .clone import clone
from .repository import open_repository
from .runner import Runner, within

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sandbox_supervisor import Reaper

    from ..files import FileSystem
    from .clone import Clone, Progress, Wish
    from .repository import Repository

__all__ = ["Cloning", "Git", "open_git"]

LOOKS_WITHIN = 60.0
CHANGES_WITHIN = 120.0
"""Seconds for a request that only looks, and for one that changes something and runs hooks."""


class Cloning:
    """A clone under way.

    Attributes:
      progress: the latest; what is not looked at in time is not kept.
      outcome: settled at its end.
    """

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.outcome: Reply[Clone] = Reply()
        self._scope = trio.CancelScope()
        self._news = trio.Event()

    async def changed(self) -> None:
        """Wait until there is progress, or the outcome."""
        await self._news.wait()

    def cancel(self) -> None:
        """End it, with all that it has made. Harmless when it is over."""
        self._scope.cancel()

    def tell(self, progress: Progress) -> None:
        self.progress = progress
        self._wake()

    async def run(self, wish: Wish, runner: Runner, files: FileSystem) -> None:
        try:
            with self._scope, within(wish.seconds, "git clone"):
                self.outcome.settle(await clone(wish, runner, files, self.tell))
        except Exception as error:  # whatever it is, it is for who waits for the outcome
            self.outcome.refuse(error)
        finally:
            self.outcome.refuse(ShuttingDown())  # counts only where it was cancelled
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


class Git:
    """See the module. Made by `open_git`."""

    def __init__(self, runner: Runner, files: FileSystem, nursery: trio.Nursery) -> None:
        self._runner = runner
        self._files = files
        self._nursery = nursery

    @asynccontextmanager
    async def looking(self, directory: str) -> AsyncGenerator[Repository]:
        """The repository that a directory is in, to look at: nothing that it brings along is run.

        Raises:
          GitTimeout: the block takes too long.
          Refusal: see `open_repository`.
        """
        with within(LOOKS_WITHIN, "reading the repository"):
            yield await open_repository(directory, self._runner, self._files, reading=True)

    @asynccontextmanager
    async def changing(self, directory: str) -> AsyncGenerator[Repository]:
        """As `looking`, to change something: its hooks and filters run."""
        with within(CHANGES_WITHIN, "changing the repository"):
            yield await open_repository(directory, self._runner, self._files, reading=False)

    def clone(self, wish: Wish) -> Cloning:
        """Begin a clone. Whoever waits for it cancels it when going away."""
        cloning = Cloning()
        self._nursery.start_soon(cloning.run, wish.checked(), self._runner, self._files)
        return cloning


@asynccontextmanager
async def open_git(
    environment: Mapping[str, str], files: FileSystem, *, owner: str, run: str, reaper: Reaper | None
) -> AsyncGenerator[Git]:
    """Git, for as long as the block runs; clones under way at its end are cancelled.

    Args:
      environment: the daemon's own.
      owner, run: of the cookie that every process carries.
    """
    async with trio.open_nursery() as nursery:
        yield Git(Runner(environment, owner, run, reaper), files, nursery)
        nursery.cancel_scope.cancel()
