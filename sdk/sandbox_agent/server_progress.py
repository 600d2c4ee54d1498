"""What the server does for a while, and tells of: steps, and at last what came of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx
import msgspec

from .errors import ConnectionFailed, SandboxAgentError, api_error
from .following import Following

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from httpx_sse import ServerSentEvent

    from .incoming import Incoming
    from .transport import Transport

__all__ = ["Doing", "ServerProgress", "open_progress"]

Step = TypeVar("Step")
Outcome = TypeVar("Outcome")

SILENCE = 30.0
"""Seconds: the server sends something every 10."""

HEADERS: Mapping[str, str] = {"Accept": "text/event-stream", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Doing:
    """A request whose answer is such a stream.

    Attributes:
      body: JSON.
      again: it may be asked again after a break, since that comes to the same.
    """

    path: str
    params: dict[str, str]
    body: dict[str, Any]
    again: bool


class ServerProgress(Generic[Step, Outcome]):
    """An async iterator over steps, until it is done. Whoever reads slowly misses some."""

    def __init__(
        self, frame: Callable[[], Awaitable[ServerSentEvent]], step: type[Step], done: str, outcome: type[Outcome]
    ) -> None:
        self._frame = frame
        self._step = step
        self._done = done
        self._type = outcome
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """What came of it, once the iteration has ended.

        Raises:
          SandboxAgentError: it is not done.
        """
        if self._outcome is None:
            raise SandboxAgentError("it is not done: iterate to the end before asking what came of it")
        return self._outcome

    def __aiter__(self) -> ServerProgress[Step, Outcome]:
        return self

    async def __anext__(self) -> Step:
        """The next step.

        Raises:
          ApiError: it has failed.
          ConnectionFailed.
        """
        while self._outcome is None:
            frame = await self._frame()
            if frame.event == "progress":
                return msgspec.json.decode(frame.data, type=self._step)
            if frame.event == self._done:
                self._outcome = msgspec.json.decode(frame.data, type=self._type)
            elif frame.event == "failed":
                problem = msgspec.json.decode(frame.data, type=dict[str, Any])
                status = problem.get("status")
                raise api_error(status if isinstance(status, int) else 500, problem)
        raise StopAsyncIteration


@asynccontextmanager
async def open_progress(
    transport: Transport, doing: Doing, step: type[Step], done: str, outcome: type[Outcome]
) -> AsyncGenerator[ServerProgress[Step, Outcome]]:
    """Ask for it.

    Args:
      done: the name of the event that has the outcome.

    Raises:
      ApiError, ConnectionFailed.
    """
    if doing.again:
        async with _Asking(transport, doing) as frames:
            yield ServerProgress(frames.__anext__, step, done, outcome)
    else:
        async with _asked(transport, doing) as incoming:
            yield ServerProgress(partial(_frame, incoming), step, done, outcome)


class _Asking(Following):
    """The stream is asked for again wherever it breaks off."""

    def __init__(self, transport: Transport, doing: Doing) -> None:
        super().__init__(transport, lambda: (doing.path, doing.params))
        self._doing = doing

    async def _open(self) -> Incoming:
        connection = _asked(self._transport, self._doing)
        incoming = await connection.__aenter__()
        self._connection = connection
        return incoming


def _asked(transport: Transport, doing: Doing) -> AbstractAsyncContextManager[Incoming]:
    body = msgspec.json.encode(doing.body)
    return transport.stream("POST", doing.path, params=doing.params, content=body, headers=HEADERS, silence=SILENCE)


async def _frame(incoming: Incoming) -> ServerSentEvent:
    try:
        frame = await incoming.frame()
    except httpx.TransportError as error:
        said = str(error) or type(error).__name__
        raise ConnectionFailed(f"the connection broke, and what was asked for has ended, or is done: {said}") from None
    if frame is None:
        raise ConnectionFailed("the server has gone before it was done")
    return frame
