"""asyncio's own cancellation, as `asyncio.wait_for` does it: it goes through every shield of AnyIO."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from threading import Event

__all__ = ["cancelled_by_asyncio"]

HELD_WITHIN = 20.0
"""Seconds until the work comes to where it is held."""

LOOKED_FOR = 0.3
"""Seconds in which work that does not wait would have ended."""


def cancelled_by_asyncio(
    work: Callable[[], Coroutine[None, None, object]], held: Event, release: Callable[[], None]
) -> None:
    """Cancel the work while it is held; it must wait for the release, however often that is done."""

    async def cancel() -> None:
        task = asyncio.create_task(work())
        assert await asyncio.to_thread(held.wait, HELD_WITHIN), "it does not come so far"
        for _ in range(2):
            task.cancel()
            ended, _ = await asyncio.wait({task}, timeout=LOOKED_FOR)
            assert not ended, "it has left what it had begun"
        release()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
