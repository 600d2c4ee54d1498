"""Timers: messages that a session's actor sends to itself later.

One task keeps them all. A timer that is set again under its name starts anew. One that is dropped may have fired
already, with its message in the mailbox: so every such message says what it is about, and the actor looks whether that
is still so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from sandbox_supervisor import ActorRef

    from .messages import Message

__all__ = ["Timers"]


@dataclass(frozen=True, slots=True)
class _Timer:
    due: float
    message: Message


class Timers:
    """See the module."""

    def __init__(self, ref: ActorRef[Message]) -> None:
        self._ref = ref
        self._set: dict[str, _Timer] = {}
        self._changed = trio.Event()

    def names(self) -> list[str]:
        """What is set at present."""
        return sorted(self._set)

    def set(self, name: str, seconds: float, message: Message) -> None:
        """Have the actor told `message` in so many seconds."""
        self._set[name] = _Timer(trio.current_time() + seconds, message)
        self._changed.set()

    def drop(self, name: str) -> None:
        """Forget a timer; one that is not set is fine."""
        self._set.pop(name, None)

    async def run(self) -> None:
        """Be the task that keeps them."""
        while True:
            self._changed = trio.Event()
            name = min(self._set, key=lambda name: self._set[name].due, default=None)
            due = math.inf if name is None else self._set[name].due
            with trio.move_on_at(due):
                await self._changed.wait()
            if name is not None and name in self._set and self._set[name].due <= trio.current_time():
                await self._ref.tell(self._set.pop(name).message)
