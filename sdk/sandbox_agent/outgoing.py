"""The body of a request, whole or in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Outgoing"]


class Outgoing(httpx.AsyncByteStream):
    """Pieces as they come from an iterator, or the whole.

    What httpx makes of either is an async generator. When a request ends half-way nobody closes that, and Trio warns of
    it.
    """

    def __init__(self, body: AsyncIterator[bytes] | bytes) -> None:
        self._pieces = _Whole(body) if isinstance(body, bytes) else body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces


class _Whole:
    """A single piece."""

    def __init__(self, body: bytes) -> None:
        self._left = [body]

    def __aiter__(self) -> _Whole:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()
