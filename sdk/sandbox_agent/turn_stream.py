"""One turn, from its prompt to its end, through whatever happens to connections, agents and servers meanwhile."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .errors import Conflict, NotFound, TurnNotFound
from .event_stream import EventStream
from .events import (
    Gap,
    MessageChunk,
    OtherEvent,
    PermissionRequested,
    PlanUpdate,
    SessionClosed,
    SessionRecovered,
    ToolCall,
    TurnEnded,
)
from .models import Answer, PromptResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from .events import Event
    from .models import Permission, Turn
    from .session import Session

__all__ = ["OnPermission", "TurnStream"]

OnPermission: TypeAlias = "Callable[[Permission], Awaitable[Answer | str | None] | Answer | str | None]"
"""Decides what an agent asks: an `Answer`; a text is its `outcome`, say `allow_once`; None leaves it to somebody else.

Async, where it takes its time; or not. It is asked each question once. What it raises comes out of the prompt that the
question belongs to.
"""

TEXT_LIMIT = 4 << 20
"""Characters of what the agent says that are kept for the result: as many as the server keeps."""

LOST = "the turn is over, but the events that told how are gone; what the agent has done is done"
"""What is wrong with a turn of which nobody knows any more what became of it."""

_log = logging.getLogger("sandbox_agent")


class TurnStream:
    """The events of a turn, up to its `TurnEnded`: an async iterator, made by `Session.stream`.

    Leaving early does not cancel the turn.

    Attributes:
      turn: as it was when it was taken.
    """

    def __init__(self, session: Session, turn: Turn, tasks: TaskGroup, on_permission: OnPermission | None) -> None:
        self.turn = turn
        self._session = session
        self._tasks = tasks
        self._on_permission = on_permission
        self._asked: set[str] = set()
        self._said = _Said()
        self._result: PromptResult | None = None
        self._gap: Gap | None = None
        self._events = EventStream(
            session.transport, session.path("/events"), turn.seq, epoch=session.info.epoch or None, turn=turn.turn_id
        )

    async def __aenter__(self) -> TurnStream:
        await self._events.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._events.__aexit__(*exc_info)

    def __aiter__(self) -> TurnStream:
        return self

    async def __anext__(self) -> Event | Gap:
        if self._result is not None:
            raise StopAsyncIteration
        event = await anext(self._events) if self._gap is None else self._gap
        match event:
            case TurnEnded():
                self._result = self._said.result(event)
            case PermissionRequested(permission=permission):
                self._ask(permission)
            case Gap():
                self._gap = event  # until it was looked at: who is cancelled meanwhile gets it again
                await self._look(event)
                self._gap = None
            case _:
                self._said.take(event)
        return event

    @property
    def result(self) -> PromptResult:
        """What became of the turn.

        Raises:
          RuntimeError: the stream was not read to its end.
        """
        if self._result is None:
            raise RuntimeError("the turn has not ended yet: read its events to the end first")
        return self._result

    async def cancel(self) -> None:
        """Have the agent end the turn; go on reading for what becomes of it."""
        await self._session.cancel(self.turn.turn_id)

    async def _look(self, gap: Gap) -> None:
        """The end may be among the events that are missing, or a question, or the turn with its whole journal."""
        self._said.truncated = True
        waiting = [] if self._on_permission is None else await self._session.permissions()
        try:
            turn = await self._session.turn(self.turn.turn_id)
        except TurnNotFound as unknown:
            # It has ended: what is open is always known. Only its events can still tell how.
            if not await self._ends_behind(gap):
                error = {**unknown.problem, "detail": LOST}
                self._result = self._said.result(msgspec.structs.replace(self.turn, outcome="failed", error=error))
            return
        if turn.outcome is not None:
            self._result = self._said.result(turn)
            return
        for permission in waiting:
            if _is_of(permission, turn):
                self._ask(permission)

    async def _ends_behind(self, gap: Gap) -> bool:
        """Whether the end is among the events that there are."""
        async with self._session.events(
            gap.next - 1, kinds=["turn.ended"], turn=self.turn.turn_id, epoch=gap.epoch or None, follow=False
        ) as events:
            async for event in events:
                if isinstance(event, TurnEnded):
                    return True
        return False

    def _ask(self, permission: Permission) -> None:
        if self._on_permission is not None and permission.permission_id not in self._asked:
            self._asked.add(permission.permission_id)
            self._tasks.start_soon(self._decide, self._on_permission, permission)

    async def _decide(self, decide: OnPermission, permission: Permission) -> None:
        told = decide(permission)
        answer = await told if inspect.isawaitable(told) else told
        if answer is None:
            return
        if isinstance(answer, str):
            answer = Answer(outcome=answer)
        try:
            await self._session.answer(
                permission.permission_id,
                option_id=answer.option_id,
                outcome=answer.outcome,
                action=answer.action,
                content=answer.content,
            )
        except (Conflict, NotFound) as late:
            _log.debug("permission %s needs no answer any more: %s", permission.permission_id, late)


def _is_of(permission: Permission, turn: Turn) -> bool:
    """Whether a turn that runs has asked it: in an ACP session there is one turn at a time."""
    if turn.started_at is None or permission.asked_at is None or permission.asked_at < turn.started_at:
        return False
    return permission.acp_session_id in (None, turn.acp_session_id)


_OTHER_VOICES = frozenset({"user_message_chunk", "compaction_summary_chunk", "compaction_update", "context.added"})
"""Kinds of other events that stand between two messages."""


@dataclass(slots=True)
class _Said:
    """What the agent has said: pieces make messages, and anything else in between ends one."""

    truncated: bool = False
    _messages: list[list[str]] = field(default_factory=list[list[str]])
    _open: bool = False
    _size: int = 0

    def take(self, event: Event) -> None:
        match event:
            case MessageChunk(text=text):
                if not self._open:
                    self._messages.append([])
                self._open = True
                if self._size + len(text) > TEXT_LIMIT:
                    text, self.truncated = text[: TEXT_LIMIT - self._size], True
                self._messages[-1].append(text)
                self._size += len(text)
            case PlanUpdate() | ToolCall() | SessionRecovered() | SessionClosed():
                self._open = False
            case OtherEvent(kind=kind) if kind in _OTHER_VOICES:
                self._open = False
            case _:
                pass

    def result(self, end: TurnEnded | Turn) -> PromptResult:
        messages = ["".join(pieces) for pieces in self._messages]
        return PromptResult(
            turn_id=end.turn_id,
            outcome=end.outcome or "failed",
            text="\n\n".join(message for message in messages if message),
            text_truncated=self.truncated,
            stop_reason=end.stop_reason,
            error=end.error,
            usage=end.usage,
            forced=end.forced,
        )
