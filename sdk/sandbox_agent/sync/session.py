# Written by scripts/make-sync from ../session.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.session`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import UNSET

from .callbacks import in_thread, plain
from .event_stream import EventStream
from .permission_requests import PermissionRequests
from .transport import Transport
from .turn_stream import TurnStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Literal

    from msgspec import UnsetType

    from ..event_page import EventPage
    from ..models import Json, Permission, PromptResult, SessionInfo, Turn, Usage
    from ..session import Content
    from ..session import Session as AsyncSession
    from ._line import Line
    from .callbacks import OnPermission


__all__ = ["Session"]


class Session:
    """See the module. Made by `SandboxAgent.create_session` and `SandboxAgent.session`.

    Raises (all that ask the server):
      SessionNotFound, SessionClosed: it is not there any more, or over.
      ApiError, ConnectionFailed, ProviderError: see `errors`.

    Attributes:
      info: the session as it was when it was last asked for.
      on_permission: decides what the agent asks during prompts of this object, unless they name another one.
      generation: of the owner who acts by this object, if owners have one; the server refuses those before.
      guard: asked before anything is done, where there is one.
    """

    def __init__(self, actual: AsyncSession, line: Line) -> None:
        self._actual = actual
        self._line = line

    def __repr__(self) -> str:
        return repr(self._actual)

    @cached_property
    def transport(self) -> Transport:
        return Transport(self._actual.transport, self._line)

    @property
    def info(self) -> SessionInfo:
        return self._actual.info

    @property
    def on_permission(self) -> OnPermission | None:
        return plain(self._actual.on_permission)

    @on_permission.setter
    def on_permission(self, function: OnPermission | None) -> None:
        self._actual.on_permission = in_thread(function)

    @property
    def generation(self) -> int | None:
        return self._actual.generation

    @property
    def id(self) -> str:
        return self._actual.id

    def path(self, below: str = "") -> str:
        """The path of something of this session."""
        return self._actual.path(below)

    def refresh(self) -> SessionInfo:
        """Ask for `info` anew."""
        return self._line.call(self._actual.refresh)

    def prompt(
        self,
        content: Content,
        *,
        key: str | None = None,
        acp_session_id: str | None = None,
        on_permission: OnPermission | None = None,
    ) -> PromptResult:
        """Prompt the agent, and wait for the end of the turn, whatever happens on the way.

        A turn that a crash has ended is not run again, it may have acted: its outcome is `failed`. The next prompt
        finds the session as it was. Cancelling this call does not cancel the turn.

        Args:
          key: what is sent again under it is done once; by itself one for each call.
          acp_session_id: chooses among several that raw clients have opened.
        """
        return self._line.call(
            self._actual.prompt, content, key=key, acp_session_id=acp_session_id, on_permission=in_thread(on_permission)
        )

    def stream(
        self,
        content: Content,
        *,
        key: str | None = None,
        acp_session_id: str | None = None,
        on_permission: OnPermission | None = None,
    ) -> AbstractContextManager[TurnStream]:
        """Prompt the agent, and have the events of the turn as they come; as `prompt` otherwise.

        with session.stream("Hello") as turn:
            for event in turn: ...
            turn.result
        """
        return self._line.enter(
            self._actual.stream(
                content, key=key, acp_session_id=acp_session_id, on_permission=in_thread(on_permission)
            ),
            TurnStream,
        )

    def cancel(self, turn_id: str | None = None) -> list[str]:
        """Cancel a turn, or the running one and all that wait; gives the ids of those that will end so.

        Without an id it is not asked again after a break: that might cancel what was prompted since.
        """
        return self._line.call(self._actual.cancel, turn_id)

    def turns(self) -> list[Turn]:
        """The newest 100 that have ended, and those that have not, in their order."""
        return self._line.call(self._actual.turns)

    def turn(self, turn_id: str) -> Turn:
        """One turn. Raises `TurnNotFound` where it is not known any more."""
        return self._line.call(self._actual.turn, turn_id)

    def events(
        self,
        after: int | Literal["latest"] | None = 0,
        *,
        kinds: Sequence[str] = (),
        turn: str | None = None,
        epoch: str | None = None,
        follow: bool = True,
    ) -> AbstractContextManager[EventStream]:
        """The events behind a number, as they come. The stream goes on by itself where a connection breaks.

        with session.events(after=last, epoch=epoch) as events:
            for event in events: ...

        Args:
          after: the number of the last event that was seen; `latest`: only what happens from now on; None: from the
            oldest there is on, where 0 tells of a `Gap` if there were older ones.
          kinds: only such; `turn.*` is all that begin with `turn.`.
          turn: only what belongs to this turn.
          epoch: of the journal that `after` is of, `EventStream.epoch`: a number of another one comes as a `Gap`.
          follow: False ends after what there is.
        """
        return self._line.enter(
            self._actual.events(after, kinds=kinds, turn=turn, epoch=epoch, follow=follow), EventStream
        )

    def page(
        self,
        after: int | None = 0,
        *,
        limit: int = 500,
        kinds: Sequence[str] = (),
        turn: str | None = None,
        epoch: str | None = None,
    ) -> EventPage:
        """Some of the events behind a number: as `events`, at once."""
        return self._line.call(self._actual.page, after, limit=limit, kinds=kinds, turn=turn, epoch=epoch)

    def transcript(
        self,
        format: Literal["markdown", "jsonl", "json"] = "markdown",
        *,
        turn: str | None = None,
        thoughts: bool = True,
    ) -> str:
        """The conversation, as people read it, in one of three forms."""
        return self._line.call(self._actual.transcript, format, turn=turn, thoughts=thoughts)

    def usage(self) -> Usage:
        """Tokens and cost, as far as the agent tells them."""
        return self._line.call(self._actual.usage)

    def permissions(self, *, all: bool = False) -> list[Permission]:
        """What the agent asks at present; or also what was settled lately."""
        return self._line.call(self._actual.permissions, all=all)

    def answer(
        self,
        permission_id: str,
        *,
        option_id: str | None = None,
        outcome: str | None = None,
        action: str | None = None,
        content: Json = None,
    ) -> Permission:
        """Answer what the agent asks, by one of the first three; see `models.Answer`.

        Raises:
          PermissionResolved: somebody was first. After a break that may have been this very answer.
          PermissionNotFound: nothing of that id was asked.
        """
        return self._line.call(
            self._actual.answer, permission_id, option_id=option_id, outcome=outcome, action=action, content=content
        )

    def permission_requests(self) -> AbstractContextManager[PermissionRequests]:
        """What the agent asks: what is open now, then what comes, whoever has prompted.

        with session.permission_requests() as requests:
            for permission in requests:
                with suppress(PermissionResolved):  # of `errors`: somebody else was first
                    session.answer(permission.permission_id, outcome="allow_once")
        """
        return self._line.enter(self._actual.permission_requests(), PermissionRequests)

    def update(
        self,
        *,
        mode: str | UnsetType = UNSET,
        model: str | UnsetType = UNSET,
        config: Mapping[str, str | bool] | UnsetType = UNSET,
        permission_policy: Json = UNSET,
        title: str | UnsetType | None = UNSET,
        tags: Mapping[str, str] | UnsetType = UNSET,
        idle_limit_ms: int | UnsetType | None = UNSET,
        turn_deadline_ms: int | UnsetType | None = UNSET,
        queue_limit: int | UnsetType | None = UNSET,
    ) -> SessionInfo:
        """Change the terms of the session; what is not named stays. The agent may not have taken them up at once."""
        return self._line.call(
            self._actual.update,
            mode=mode,
            model=model,
            config=config,
            permission_policy=permission_policy,
            title=title,
            tags=tags,
            idle_limit_ms=idle_limit_ms,
            turn_deadline_ms=turn_deadline_ms,
            queue_limit=queue_limit,
        )

    def set_mode(self, mode: str) -> SessionInfo:
        return self._line.call(self._actual.set_mode, mode)

    def set_model(self, model: str) -> SessionInfo:
        return self._line.call(self._actual.set_model, model)

    def set_config(self, config: Mapping[str, str | bool]) -> SessionInfo:
        """Set options, by the ids that the agent gives them."""
        return self._line.call(self._actual.set_config, config)

    def close(self) -> SessionInfo:
        """End the agent for good; what was said stays readable."""
        return self._line.call(self._actual.close)

    def hibernate(self) -> SessionInfo:
        """End the agent until there is something to do. Raises `SessionBusy` while there is."""
        return self._line.call(self._actual.hibernate)

    def restart(self) -> SessionInfo:
        """End the agent whatever it does, and start it again; the running turn fails."""
        return self._line.call(self._actual.restart)

    def fork(
        self,
        *,
        id: str | None = None,
        title: str | UnsetType | None = UNSET,
        tags: Mapping[str, str] | UnsetType = UNSET,
        mode: str | UnsetType = UNSET,
        model: str | UnsetType = UNSET,
        config: Mapping[str, str | bool] | UnsetType = UNSET,
        key: str | None = None,
    ) -> Session:
        """A session whose agent knows what was said so far; what is not named is as here.

        Raises:
          SessionBusy: a turn runs or waits.
          NotSupported: the agent cannot be forked.
        """
        return Session(
            self._line.call(
                self._actual.fork, id=id, title=title, tags=tags, mode=mode, model=model, config=config, key=key
            ),
            self._line,
        )

    def delete(self) -> None:
        """End the agent, and forget the session with all its events."""
        self._line.call(self._actual.delete)
