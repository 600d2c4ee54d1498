"""What applications give to be called, or iterated over: in a thread each, so that it may use the sandbox itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar, cast, overload

import anyio
from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable

    from ..models import Answer, Permission
    from ..recovery import RecoveryEvent

__all__ = ["InThread", "OnPermission", "OnRecovery", "in_thread", "outgoing", "outgoing_again", "plain"]

Told = TypeVar("Told")
Said = TypeVar("Said")

OnPermission: TypeAlias = "Callable[[Permission], Answer | str | None]"
"""As `sandbox_agent.turn_stream.OnPermission`, a plain function."""

OnRecovery: TypeAlias = "Callable[[RecoveryEvent], None]"
"""As `sandbox_agent.recovery.OnRecovery`, a plain function."""

PIECE = 64 << 10
"""Bytes that are read of a file at once."""

END = object()
"""Behind the last piece."""


class InThread(Generic[Told, Said]):
    """A function that runs in a thread of its own.

    It is left alone where its answer is not wanted any more: a thread cannot be cancelled.
    """

    def __init__(self, function: Callable[[Told], Said]) -> None:
        self.function = function

    async def __call__(self, told: Told) -> Said:
        # A limit of its own: many that wait must not keep threads from the calls that they make.
        return await to_thread.run_sync(self.function, told, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def in_thread(function: Callable[[Told], Said] | None) -> InThread[Told, Said] | None:
    """For the asynchronous side."""
    return None if function is None else InThread(function)


def plain(function: object) -> OnPermission | None:
    """What `in_thread` was given."""
    if not isinstance(function, InThread):
        return None
    return cast("InThread[Permission, Answer | str | None]", function).function


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Pieces:
    """Plain pieces as asynchronous ones; of a file, pieces of a fixed size rather than lines."""

    def __init__(self, source: Iterable[bytes]) -> None:
        if hasattr(source, "read"):
            source = _pieces(cast("_Readable", source))
        self._pieces = iter(source)

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        piece = await to_thread.run_sync(
            next, self._pieces, END, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )
        if piece is END:
            raise StopAsyncIteration
        return cast("bytes", piece)


def _pieces(file: _Readable) -> Generator[bytes]:
    # At its end a file that was opened for text, by mistake, gives an empty text.
    while piece := file.read(PIECE):
        yield piece


def outgoing(data: bytes | str | Iterable[bytes]) -> bytes | str | AsyncIterator[bytes]:
    """For the asynchronous side: bytes and text as they are, pieces as asynchronous ones."""
    return data if isinstance(data, bytes | str) else _Pieces(data)


@overload
def outgoing_again(data: bytes | Callable[[], Iterable[bytes]]) -> bytes | Callable[[], AsyncIterator[bytes]]: ...
@overload
def outgoing_again(
    data: bytes | Callable[[], Iterable[bytes]] | None,
) -> bytes | Callable[[], AsyncIterator[bytes]] | None: ...
def outgoing_again(
    data: bytes | Callable[[], Iterable[bytes]] | None,
) -> bytes | Callable[[], AsyncIterator[bytes]] | None:
    """As `outgoing`, for what gives its pieces anew each time."""
    return (lambda: _Pieces(data())) if callable(data) else data
