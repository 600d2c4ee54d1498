"""The line to the event loop in a thread of its own, on which everything that is asynchronous is done.

A call is a task of the loop, and the thread that has made it waits. A `with` block is a task, too: in it the context
manager is entered and left. The calls that are made within the block belong to it. When it ends they are cancelled, as
they would be in a task that has left. A block may fail while its thread waits in a call: then the call raises that.

Ctrl-C reaches the main thread only. Out of a call, or out of a block, it is a cancellation of their task.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager

    from anyio.from_thread import BlockingPortal

__all__ = ["Line", "open_line"]

T = TypeVar("T")
Twin = TypeVar("Twin")
P = ParamSpec("P")

BACKEND = "trio"
"""Of the loop: the server needs it, so it is there."""


class Line:
    """See the module. Any thread may call, but for that of the loop."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.over = False
        self.works: set[_Work[Any]] = set()
        self._portal = portal
        self._block: Future[None] | None = None
        self._failed = False

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function gives. Raises what it raises.

        Raises:
          RuntimeError: the block has ended.
        """
        work = _Work(self, partial(function, *args, **kwargs))
        future = self._begin(work)
        try:
            return self._result(work, future)
        except _Ended:
            raise self._reason() from None

    def next(self, iterator: AsyncIterator[T]) -> T:
        """The next value, or `StopIteration`."""
        try:
            return self.call(iterator.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    @contextmanager
    def enter(self, manager: AbstractAsyncContextManager[T], twin: Callable[[T, Line], Twin]) -> Generator[Twin]:
        """What a context manager gives, as its synchronous twin."""
        line = Line(self._portal)
        block = _Block(manager, line)
        work = _Work(self, block.run)
        line._block = future = self._begin(work)
        try:
            either: list[Future[Any]] = [block.entered, future]
            wait(either, return_when=FIRST_COMPLETED)
            if not block.entered.done():
                try:
                    future.result()
                except _Ended:
                    raise self._reason() from None
            yield twin(block.entered.result(), line)
        except Exception as error:
            self._leave(block, error)
            self._finish(work, future)
            raise
        except BaseException:
            self._cancel(work, future)
            raise
        self._leave(block, None)
        self._finish(work, future)

    def fail(self) -> None:
        """The block ends by itself: what it raises is what its calls raise."""
        self._failed = True

    async def end(self) -> None:
        """Cancel the calls, and wait for their end, which takes no longer than what they shield."""
        self.over = True
        works = list(self.works)
        for work in works:
            work.cancel()
        with anyio.CancelScope(shield=True):
            for work in works:
                await work.ended.wait()

    def _begin(self, work: _Work[T]) -> Future[T]:
        if self.over:  # with the outermost block the loop has ended as well
            raise self._reason()
        return self._portal.start_task_soon(work.run)

    def _result(self, work: _Work[T], future: Future[T]) -> T:
        try:
            return future.result()
        except BaseException:
            self._cancel(work, future)
            raise

    def _finish(self, work: _Work[None], future: Future[None]) -> None:
        try:
            self._result(work, future)
        except _Ended:
            raise self._reason() from None

    def _cancel(self, work: _Work[T], future: Future[T]) -> None:
        if not future.done():
            self._portal.start_task_soon(work.cancel)
            wait((future,))

    def _leave(self, block: _Block[T], error: Exception | None) -> None:
        self._portal.start_task_soon(block.leave, error).result()

    def _reason(self) -> BaseException:
        """Why a call was cancelled; waits for it."""
        if self._block is not None and self._failed:
            wait((self._block,))
            error = self._block.exception()
            if error is not None and not isinstance(error, _Ended):  # that is, by the block around it
                return error
        return RuntimeError("the block has ended in which this was to be used")


class _Ended(Exception):
    """A task was cancelled."""


class _Work(Generic[T]):
    """A task of the loop."""

    def __init__(self, line: Line, function: Callable[[], Awaitable[T]]) -> None:
        self.ended: anyio.Event
        self._line = line
        self._function = function
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    async def run(self) -> T:
        if self._line.over:
            raise _Ended
        self.ended = anyio.Event()
        self._line.works.add(self)
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                return await self._function()
        finally:
            self._line.works.discard(self)
            self.ended.set()
        raise _Ended

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


class _Block(Generic[T]):
    """A context manager, entered and left in one task."""

    def __init__(self, manager: AbstractAsyncContextManager[T], line: Line) -> None:
        self.entered: Future[T] = Future()
        self._manager = manager
        self._line = line
        self._left: anyio.Event
        self._error: Exception | None = None

    async def run(self) -> None:
        self._left = anyio.Event()
        async with self._manager as value:
            self.entered.set_result(value)
            try:
                await self._left.wait()
            except BaseException:
                self._line.fail()
                raise
            finally:
                await self._line.end()
            if self._error is not None:
                raise self._error

    def leave(self, error: Exception | None) -> None:
        """Have the task leave, with what the block has raised."""
        self._error = error
        self._left.set()


@contextmanager
def open_line(manager: AbstractAsyncContextManager[T], twin: Callable[[T, Line], Twin]) -> Generator[Twin]:
    """What a context manager gives, in a loop of its own that runs until the end of the block."""
    with start_blocking_portal(BACKEND) as portal, Line(portal).enter(manager, twin) as value:
        yield value
