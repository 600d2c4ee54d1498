"""A session: a conversation with an agent, which outlives connections, agents and servers."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from msgspec import UNSET, UnsetType

from .event_page import EventPage, read_page
from .event_stream import EventStream
from .models import Json, Permission, SessionInfo, Turn, Usage
from .permission_requests import PermissionRequests
from .scope import open_tasks
from .turn_stream import TurnStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from .models import PromptResult
    from .transport import Params, Transport
    from .turn_stream import OnPermission

__all__ = ["Content", "Guard", "Session", "session_body", "session_path"]

T = TypeVar("T")

Content: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A text, or content blocks as ACP has them, and `{"type": "file", "path": …}`, which the server reads."""

GENERATION = "Sandbox-Agent-Generation"


class Guard(Protocol):
    """Sees to it that by a session of ours only its owner acts, see `persistence`."""

    def check(self) -> None:
        """Raises `PersistenceError` where that is not, or no longer, us."""
        ...

    async def take(self, session: Session) -> Session:
        """Own a session that was made of this one."""
        ...


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

    def __init__(
        self,
        transport: Transport,
        info: SessionInfo,
        *,
        on_permission: OnPermission | None = None,
        generation: int | None = None,
    ) -> None:
        self.transport = transport
        self.info = info
        self.on_permission = on_permission
        self.generation = generation
        self.guard: Guard | None = None

    @property
    def id(self) -> str:
        return self.info.id

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of {self.info.agent}>"

    def path(self, below: str = "") -> str:
        """The path of something of this session."""
        return session_path(self.id) + below

    async def refresh(self) -> SessionInfo:
        """Ask for `info` anew."""
        self.info = await self.transport.ask(SessionInfo, "GET", self.path())
        return self.info

    # -- turns

    async def prompt(
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
        async with self.stream(content, key=key, acp_session_id=acp_session_id, on_permission=on_permission) as stream:
            async for _ in stream:
                pass
            return stream.result

    @asynccontextmanager
    async def stream(
        self,
        content: Content,
        *,
        key: str | None = None,
        acp_session_id: str | None = None,
        on_permission: OnPermission | None = None,
    ) -> AsyncGenerator[TurnStream]:
        """Prompt the agent, and have the events of the turn as they come; as `prompt` otherwise.

        async with session.stream("Hello") as turn:
            async for event in turn: ...
            turn.result
        """
        body: dict[str, Json] = {"content": content}
        if acp_session_id is not None:
            body["acpSessionId"] = acp_session_id
        turn = await self.transport.ask(
            Turn, "POST", self.path("/prompt"), json=body, headers={**self._owner(), **_key(key)}
        )
        async with open_tasks() as tasks, TurnStream(self, turn, tasks, on_permission or self.on_permission) as stream:
            yield stream

    async def cancel(self, turn_id: str | None = None) -> list[str]:
        """Cancel a turn, or the running one and all that wait; gives the ids of those that will end so.

        Without an id it is not asked again after a break: that might cancel what was prompted since.
        """
        body = {} if turn_id is None else {"turnId": turn_id}
        answer = await self._act(dict[str, list[str]], "/cancel", body, retry=turn_id is not None)
        return answer["turnIds"]

    async def turns(self) -> list[Turn]:
        """The newest 100 that have ended, and those that have not, in their order."""
        return (await self.transport.ask(dict[str, list[Turn]], "GET", self.path("/turns")))["turns"]

    async def turn(self, turn_id: str) -> Turn:
        """One turn. Raises `TurnNotFound` where it is not known any more."""
        return await self.transport.ask(Turn, "GET", self.path(f"/turns/{quote(turn_id, safe='')}"))

    # -- events

    @asynccontextmanager
    async def events(
        self,
        after: int | Literal["latest"] | None = 0,
        *,
        kinds: Sequence[str] = (),
        turn: str | None = None,
        epoch: str | None = None,
        follow: bool = True,
    ) -> AsyncGenerator[EventStream]:
        """The events behind a number, as they come. The stream goes on by itself where a connection breaks.

        async with session.events(after=last, epoch=epoch) as events:
            async for event in events: ...

        Args:
          after: the number of the last event that was seen; `latest`: only what happens from now on; None: from the
            oldest there is on, where 0 tells of a `Gap` if there were older ones.
          kinds: only such; `turn.*` is all that begin with `turn.`.
          turn: only what belongs to this turn.
          epoch: of the journal that `after` is of, `EventStream.epoch`: a number of another one comes as a `Gap`.
          follow: False ends after what there is.
        """
        if after == "latest":
            info = await self.refresh()
            after, epoch = info.head, info.epoch
        async with EventStream(
            self.transport, self.path("/events"), after, epoch=epoch, kinds=kinds, turn=turn, follow=follow
        ) as stream:
            yield stream

    async def page(
        self,
        after: int | None = 0,
        *,
        limit: int = 500,
        kinds: Sequence[str] = (),
        turn: str | None = None,
        epoch: str | None = None,
    ) -> EventPage:
        """Some of the events behind a number: as `events`, at once."""
        params: Params = {"after": after, "limit": limit, "kind": list(kinds), "turn": turn, "epoch": epoch}
        return await read_page(self.transport, self.path("/events"), params)

    async def transcript(
        self,
        format: Literal["markdown", "jsonl", "json"] = "markdown",
        *,
        turn: str | None = None,
        thoughts: bool = True,
    ) -> str:
        """The conversation, as people read it, in one of three forms."""
        response = await self.transport.request(
            "GET",
            self.path("/transcript"),
            params={"format": format, "turn": turn, "thoughts": thoughts},
            headers={"Accept": "*/*"},
        )
        return response.content.decode()

    async def usage(self) -> Usage:
        """Tokens and cost, as far as the agent tells them."""
        return await self.transport.ask(Usage, "GET", self.path("/usage"))

    # -- permissions

    async def permissions(self, *, all: bool = False) -> list[Permission]:
        """What the agent asks at present; or also what was settled lately."""
        answer = await self.transport.ask(
            dict[str, list[Permission]], "GET", self.path("/permissions"), params={"all": all}
        )
        return answer["permissions"]

    async def answer(
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
        told = {"optionId": option_id, "outcome": outcome, "action": action, "content": content}
        body = {name: value for name, value in told.items() if value is not None}
        return await self._act(Permission, f"/permissions/{quote(permission_id, safe='')}", body, retry=True)

    @asynccontextmanager
    async def permission_requests(self) -> AsyncGenerator[PermissionRequests]:
        """What the agent asks: what is open now, then what comes, whoever has prompted.

        async with session.permission_requests() as requests:
            async for permission in requests:
                with suppress(PermissionResolved):  # of `errors`: somebody else was first
                    await session.answer(permission.permission_id, outcome="allow_once")
        """
        info = await self.refresh()
        async with self.events(info.head, epoch=info.epoch, kinds=["permission.*"]) as events:
            yield PermissionRequests(events, self.permissions)

    # -- the session itself

    async def update(
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
        body = session_body(
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
        self.info = await self.transport.ask(
            SessionInfo, "PATCH", self.path(), json=body, headers=self._owner(), retry=True
        )
        return self.info

    async def set_mode(self, mode: str) -> SessionInfo:
        return await self.update(mode=mode)

    async def set_model(self, model: str) -> SessionInfo:
        return await self.update(model=model)

    async def set_config(self, config: Mapping[str, str | bool]) -> SessionInfo:
        """Set options, by the ids that the agent gives them."""
        return await self.update(config=config)

    async def close(self) -> SessionInfo:
        """End the agent for good; what was said stays readable."""
        self.info = await self._act(SessionInfo, "/close")
        return self.info

    async def hibernate(self) -> SessionInfo:
        """End the agent until there is something to do. Raises `SessionBusy` while there is."""
        self.info = await self._act(SessionInfo, "/hibernate")
        return self.info

    async def restart(self) -> SessionInfo:
        """End the agent whatever it does, and start it again; the running turn fails."""
        self.info = await self._act(SessionInfo, "/restart")
        return self.info

    async def fork(
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
        body = session_body(id=id or UNSET, title=title, tags=tags, mode=mode, model=model, config=config)
        info = await self.transport.ask(
            SessionInfo, "POST", self.path("/fork"), json=body, headers={**self._owner(), **_key(key)}
        )
        session = Session(self.transport, info, on_permission=self.on_permission, generation=self.generation)
        return session if self.guard is None else await self.guard.take(session)

    async def delete(self) -> None:
        """End the agent, and forget the session with all its events."""
        await self.transport.request("DELETE", self.path(), headers=self._owner())

    async def _act(
        self, type: type[T], below: str, body: Mapping[str, Json] | None = None, *, retry: bool = False
    ) -> T:
        return await self.transport.ask(
            type, "POST", self.path(below), json=body or {}, headers=self._owner(), retry=retry or None
        )

    def _owner(self) -> dict[str, str]:
        if self.guard is not None:
            self.guard.check()
        return {} if self.generation is None else {GENERATION: str(self.generation)}


def session_path(id: str) -> str:
    """The path of a session."""
    return f"/v1/sessions/{quote(id, safe='')}"


def session_body(**members: Json) -> dict[str, Json]:
    """What is said of a session, by the server's names."""
    return {_camel(name): value for name, value in members.items() if value is not UNSET}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _key(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or secrets.token_urlsafe(16)}
