"""What an agent asks of people, one question after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import Gap, PermissionRequested

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .event_stream import EventStream
    from .models import Permission

__all__ = ["PermissionRequests"]


class PermissionRequests:
    """An async iterator over questions: first what waits for an answer, then what is asked. See `Session`.

    Args:
      events: from a moment on before `waiting` is asked for.
      waiting: gives what waits for an answer. Asked at first, and where events are missing.
    """

    def __init__(self, events: EventStream, waiting: Callable[[], Awaitable[Iterable[Permission]]]) -> None:
        self._events = events
        self._ask = waiting
        self._waiting: list[Permission] = []
        self._seen: set[str] = set()
        self._missing = True

    def __aiter__(self) -> PermissionRequests:
        return self

    async def __anext__(self) -> Permission:
        while not self._waiting:
            if self._missing:
                for permission in await self._ask():
                    self._take(permission)
                self._missing = False  # not before: who is cancelled meanwhile asks again
                continue
            match await anext(self._events):
                case PermissionRequested(permission=permission):
                    self._take(permission)
                case Gap():
                    self._missing = True
                case _:
                    pass
        return self._waiting.pop(0)

    def _take(self, permission: Permission) -> None:
        if permission.permission_id not in self._seen:
            self._seen.add(permission.permission_id)
            self._waiting.append(permission)
