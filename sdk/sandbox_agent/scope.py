"""Task groups out of which the exceptions of a block come as they are, and not in an `ExceptionGroup`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

__all__ = ["open_tasks", "plainly"]

T = TypeVar("T")


@asynccontextmanager
async def plainly(manager: AbstractAsyncContextManager[T]) -> AsyncGenerator[T]:
    """A context manager that has a task group inside, without the groups of exceptions.

    What the block raises comes out as it is. Else it is what the first of the tasks has raised.
    """
    raised: Exception | None = None
    try:
        async with manager as value:
            try:
                yield value
            except Exception as error:
                raised = error
    except BaseExceptionGroup as group:
        if raised is None:
            raise group.exceptions[0] from None
    if raised is not None:
        raise raised


@asynccontextmanager
async def open_tasks() -> AsyncGenerator[TaskGroup]:
    """Tasks that are cancelled at the end of the block."""
    async with plainly(anyio.create_task_group()) as tasks:
        try:
            yield tasks
        finally:
            tasks.cancel_scope.cancel()
