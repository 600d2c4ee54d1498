"""Errands: work that one request begins and waits for bit by bit, and that ends with whoever waits for it.

A request that takes long sends a blank now and then. It cannot do that and work at once, so the work is a task of its
own, in a nursery that outlives the request; but nobody else wants it, so it is cancelled when the request is over.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from sandbox_actors.errors import ShuttingDown
from sandbox_supervisor import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["Errand", "Errands", "open_errands"]

T = TypeVar("T")


class Errand(Generic[T]):
    """One of them.

    Attributes:
      done: settled with what comes of it, or refused as it was.
    """

    def __init__(self) -> None:
        self.done: Reply[T] = Reply()
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        """It is not wanted any more. One that is done is as it was."""
        self._scope.cancel()

    async def run(self, work: Callable[[], Awaitable[T]]) -> None:
        try:
            with self._scope:
                self.done.settle(await work())
        except Exception as error:  # whatever it is: it is raised where it is waited for
            self.done.refuse(error)
        finally:
            self.done.refuse(ShuttingDown())


class Errands:
    """See the module. Made by `open_errands` only."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def begin(self, work: Callable[[], Awaitable[T]]) -> Errand[T]:
        """Have something done."""
        errand: Errand[T] = Errand()
        self._nursery.start_soon(errand.run, work)
        return errand


@asynccontextmanager
async def open_errands() -> AsyncGenerator[Errands]:
    """Errands, for as long as the block runs; what is not done by then is cancelled."""
    async with trio.open_nursery() as nursery:
        try:
            yield Errands(nursery)
        finally:
            nursery.cancel_scope.cancel()
