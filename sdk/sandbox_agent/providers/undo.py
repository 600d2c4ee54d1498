"""What is half-made does not stay: a sandbox whose making fails or is cancelled is destroyed again.

For that it has to be known what was made. A request that is broken off may be carried out all the same, and a thread
cannot be cancelled: so both are waited for.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

from ..errors import MissingExtra, ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["finished", "undone_by"]

T = TypeVar("T")

UNDO_WITHIN = 60.0
"""Seconds to destroy a sandbox, when nobody waits for more than that."""


async def finished(work: Callable[[], Awaitable[T]], within: float = math.inf) -> T:
    """What the work gives, which goes on to its end though we are cancelled.

    Args:
      within: seconds; by default the work has a deadline of its own.

    Raises:
      TimeoutError: it takes longer.
    """
    given: list[T] = []
    raised: list[Exception] = []

    async def do() -> None:
        try:
            with anyio.fail_after(within, shield=True):
                given.append(await work())
        except Exception as error:
            raised.append(error)

    with anyio.CancelScope(shield=True):
        # In a task of its own: asyncio's cancellation, say by `asyncio.wait_for`, goes through the shields of its task.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(do)
    if raised:
        raise raised[0]
    return given[0]


@asynccontextmanager
async def undone_by(destroy: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Whatever breaks the block is raised after `destroy`, which is shielded from cancellation and has a minute.

    Where that fails as well, the error has a note that says so: something may be left, and may cost money.
    """
    try:
        yield
    except MissingExtra:  # with what nothing can have been made
        raise
    except BaseException as broken:
        try:
            await finished(destroy, UNDO_WITHIN)
        except ProviderError as error:
            broken.add_note(f"what was made may be left: {error}")
        except TimeoutError:
            broken.add_note(f"what was made may be left: it could not be destroyed within {UNDO_WITHIN:g} seconds")
        raise
