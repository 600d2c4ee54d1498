"""A sandbox, and the server in it: what applications begin with."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal

from msgspec import UNSET, UnsetType

from .acp import open_acp
from .errors import (
    ConnectionFailed,
    ProviderError,
    SandboxDestroyed,
    Unavailable,
    UnsupportedByProvider,
    UnsupportedByServer,
)
from .health import Health
from .lifetime import open_sandbox
from .models import Json, SessionInfo
from .monitor import Monitor
from .providers.provider import Endpoint
from .recovery import Recovery
from .resources import Resources
from .scope import open_tasks
from .session import Session, session_body, session_path
from .session_list import read_sessions
from .transport import Timeouts, open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from .acp import AcpConnection
    from .lifetime import Lifetime, OnExit
    from .persistence.keeping import Keeping
    from .persistence.store import Store
    from .providers.provider import Provider
    from .recovery import OnRecovery
    from .transport import Params, Transport
    from .turn_stream import OnPermission

__all__ = ["SandboxAgent"]

NOWHERE = Endpoint("")
"""Before the provider has told where the server is."""


class SandboxAgent(Resources):
    """A sandbox whose server is looked after for as long as the block of `start` or `connect` runs.

    All that ask the server raise `ApiError` where it says no, `ConnectionFailed` where it cannot be reached, and
    `ProviderError` (`SandboxDestroyed`, `RecoveryFailed`) once it was given up; `ConnectionFailed` after the block.

    Attributes:
      transport: plain requests, for what this package has no method for.
    """

    def __init__(self, transport: Transport, monitor: Monitor, life: Lifetime | None) -> None:
        self.transport = transport
        self._monitor = monitor
        self._life = life
        self._keeping: Keeping | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        provider: Provider,
        *,
        sandbox_id: str | None = None,
        token: str | None = None,
        on_exit: OnExit | None = None,
        start_within: float = 180.0,
        timeouts: Timeouts | None = None,
        recovery: Recovery | None = None,
        on_recovery: OnRecovery | None = None,
        store: Store | None = None,
        owner: str | None = None,
        lease_ttl: float = 30.0,
    ) -> AsyncGenerator[SandboxAgent]:
        """A new sandbox of a provider, or one that is there.

        async with SandboxAgent.start(LocalProvider()) as sandbox:
            session = await sandbox.create_session("mock")

        What the block raises comes out as it is. A server that fails is brought back meanwhile, see `Recovery`.

        Args:
          sandbox_id: an `id` of earlier: that sandbox, woken where it rests; None: a new one.
          token: of the server; else a new sandbox gets one of its own, and one that is there tells the provider's.
          on_exit: `destroy`, `pause` or `leave`; None: destroy what was made here, leave what was found. So it is
            where the start fails, whatever stands here.
          start_within: seconds until the server must answer, once the sandbox is there.
          on_recovery: hears how the server fails and comes back.
          store: owns each session that is opened, and keeps its events, see `persistence`.
          owner: a name of this process that no other one has; None: any such.
          lease_ttl: seconds after which others may take a session, if we are gone.

        Raises:
          ProviderError: there is no sandbox to be had; the id is another provider's.
          ConnectionFailed: the server does not answer in time.
          Unauthorized, Forbidden: it does not take the token.
        """
        async with open_sandbox(provider, sandbox_id, token) as life:
            health = Health(watched=True, recovers=True)
            async with open_transport(NOWHERE, health, timeouts or Timeouts()) as transport:
                monitor = Monitor(
                    transport,
                    life.reach,
                    recovery or Recovery(),
                    on_recovery,
                    provider=provider,
                    sandbox_id=life.raw_id,
                )
                sandbox = cls(transport, monitor, life)
                async with sandbox._looked_after(start_within), sandbox._kept(store, owner, lease_ttl):
                    life.on_exit = on_exit or life.on_exit
                    yield sandbox

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        start_within: float = 30.0,
        timeouts: Timeouts | None = None,
        recovery: Recovery | None = None,
        on_recovery: OnRecovery | None = None,
        store: Store | None = None,
        owner: str | None = None,
        lease_ttl: float = 30.0,
    ) -> AsyncGenerator[SandboxAgent]:
        """A server that somebody else looks after. Where it fails, requests wait for it, within their time.

        Args:
          headers: further ones that every request needs.
          recovery: of which `interval` and `timeout` hold here, too.
          store, owner, lease_ttl: as for `start`; the store knows the sandbox by the URL, which has to be the same
            wherever it is used.

        Raises:
          ValueError: that is no URL, or the token or a header cannot be sent.
          ConnectionFailed: it does not answer in time.
          Unauthorized, Forbidden: it does not take the token.
        """
        endpoint = Endpoint(url.rstrip("/"), token, dict(headers or {}))
        async with open_transport(endpoint, Health(watched=True), timeouts or Timeouts()) as transport:
            monitor = Monitor(transport, lambda: nullcontext(endpoint), recovery or Recovery(), on_recovery)
            sandbox = cls(transport, monitor, None)
            async with sandbox._looked_after(start_within), sandbox._kept(store, owner, lease_ttl):
                yield sandbox

    @asynccontextmanager
    async def _looked_after(self, start_within: float) -> AsyncGenerator[None]:
        """The server takes work, and its monitor runs, until the end of the block."""
        try:
            async with open_tasks() as tasks:
                await tasks.start(self._monitor.run, start_within)
                with suppress(UnsupportedByServer):
                    await self.transport.request("GET", "/v1/ready")
                yield
        finally:
            # Nobody looks after the server any more: who still waits for it must not wait for ever.
            if self.transport.health.lost is None:
                self.transport.health.give_up(ConnectionFailed(f"the block of {self!r} has ended"))

    @asynccontextmanager
    async def _kept(self, store: Store | None, owner: str | None, lease_ttl: float) -> AsyncGenerator[None]:
        """Sessions that are opened are owned, and their events kept, until the end of the block."""
        if store is None:
            yield
            return
        from .persistence.keeping import open_keeping

        async with open_keeping(store, self.id or self.url, owner, lease_ttl) as self._keeping:
            yield

    def __repr__(self) -> str:
        return f"<SandboxAgent {self.id or self.url}>"

    @property
    def id(self) -> str | None:
        """For `start(sandbox_id=…)`, later or elsewhere: the provider's name and its own id. None after `connect`."""
        return None if self._life is None else self._life.id

    @property
    def url(self) -> str:
        """Where the server is, at present."""
        return self.transport.endpoint.url

    @property
    def token(self) -> str | None:
        return self.transport.endpoint.token

    @property
    def inspector_url(self) -> str:
        """The page to look into it with a browser, on servers that have one."""
        return f"{self.url}/ui/"

    # -- the server

    async def health(self) -> dict[str, Json]:
        """What the server says of its health: `status` is `ok`."""
        return await self.transport.ask(dict[str, Any], "GET", "/v1/health")

    async def ready(self) -> bool:
        """Whether new work is taken. Servers that do not tell take it."""
        try:
            await self.transport.request("GET", "/v1/ready", retry=False)
        except UnsupportedByServer:
            return True
        except Unavailable:
            return False
        return True

    # -- sessions

    async def create_session(
        self,
        agent: str,
        *,
        id: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        mcp_servers: Sequence[Mapping[str, Json]] | UnsetType = UNSET,
        mode: str | None = None,
        model: str | None = None,
        config: Mapping[str, str | bool] | None = None,
        permission_policy: Json = UNSET,
        title: str | None = None,
        tags: Mapping[str, str] | None = None,
        idle_limit_ms: int | UnsetType = UNSET,
        turn_deadline_ms: int | UnsetType = UNSET,
        queue_limit: int | UnsetType = UNSET,
        resume: str | None = None,
        on_permission: OnPermission | None = None,
        key: str | None = None,
    ) -> Session:
        """A new session with an agent, which is installed first where it is not; that may take minutes.

        Args:
          id: of your choice: printable, no slash.
          cwd: where it works, absolute; else where the provider's sessions do.
          env: more variables for the agent's process.
          mcp_servers: as ACP has them; else what is stored for the directory.
          mode, model, config: to begin with.
          permission_policy: `ask`, `allow_reads`, `allow_all`, `deny_all`, or an object with rules.
          idle_limit_ms, turn_deadline_ms, queue_limit: see docs/sessions.md.
          resume: a session of the agent's own that is to go on.
          on_permission: decides what the agent asks during prompts of this object.
          key: what is sent again under it is done once; by itself one for each call.

        Raises:
          Conflict: the id is taken.
          AgentAuthRequired: the agent wants a login.
          UnsupportedByServer: it has no such sessions: use `acp`.
          PersistenceError: it is there, but not ours: the store refuses, or cannot be reached.
        """
        default = None if self._life is None else self._life.provider.default_cwd
        body = session_body(
            agent=agent,
            id=id or UNSET,
            cwd=cwd or default or UNSET,
            env=env or UNSET,
            mcp_servers=mcp_servers,
            mode=mode or UNSET,
            model=model or UNSET,
            config=config or UNSET,
            permission_policy=permission_policy,
            title=title or UNSET,
            tags=tags or UNSET,
            idle_limit_ms=idle_limit_ms,
            turn_deadline_ms=turn_deadline_ms,
            queue_limit=queue_limit,
            resume=resume or UNSET,
        )
        headers = {"Idempotency-Key": key or secrets.token_urlsafe(16)}
        info = await self.transport.ask(SessionInfo, "POST", "/v1/sessions", json=body, headers=headers)
        return await self._opened(info, on_permission)

    async def session(self, id: str, *, on_permission: OnPermission | None = None) -> Session:
        """A session that is there, made here or by anybody else.

        Raises:
          SessionNotFound: there is none.
          LeaseHeld: where sessions are owned: another owner has it.
        """
        return await self._opened(await self.transport.ask(SessionInfo, "GET", session_path(id)), on_permission)

    async def list_sessions(
        self,
        *,
        agent: str | None = None,
        state: str | None = None,
        tags: Mapping[str, str] | None = None,
        native: bool | None = None,
    ) -> list[Session]:
        """All sessions, by id, or those that fit: with this agent, in this state, with all these tags.

        Where sessions are owned, they only tell: to act, open one by `session(id)`.
        """
        params: Params = {
            "agent": agent,
            "state": state,
            "tag": [f"{key}:{value}" for key, value in (tags or {}).items()],
            "native": native,
        }
        return [self._listed(info) for info in await read_sessions(self.transport, params)]

    def acp(
        self, id: str, *, agent: str | None = None, keep: bool = False
    ) -> AbstractAsyncContextManager[AcpConnection]:
        """The raw wire to one agent, which is ended at the end of the block.

        async with sandbox.acp("a1", agent="mock") as acp:
            await acp.request("initialize", {"protocolVersion": 1})

        Args:
          agent: started by the first envelope; None: it runs already.
          keep: it is left running.
        """
        return open_acp(self.transport, id, agent, keep=keep)

    async def _opened(self, info: SessionInfo, on_permission: OnPermission | None) -> Session:
        session = Session(self.transport, info, on_permission=on_permission)
        return session if self._keeping is None else await self._keeping.take(session)

    def _listed(self, info: SessionInfo) -> Session:
        session = Session(self.transport, info)
        return session if self._keeping is None else self._keeping.mark(session)

    # -- the end

    async def destroy(self) -> None:
        """End the sandbox, with all that is in it. Every request from now on raises `SandboxDestroyed`."""
        await self._end("destroy")

    async def kill(self) -> None:
        """End it at once, without regard to what runs in it."""
        await self._end("kill")

    async def pause(self) -> None:
        """Put it to rest: `start(sandbox_id=…)` brings it back. Every request from now on raises `ProviderError`.

        Raises:
          UnsupportedByProvider: this provider cannot do that.
        """
        await self._end("pause")

    async def _end(self, how: Literal["destroy", "kill", "pause"]) -> None:
        if self._life is None:
            raise UnsupportedByProvider("this server was connected to: whoever has made the sandbox has to end it")
        if self._keeping is not None and how != "kill":
            await self._keeping.catch_up()
        async with self._monitor.holding():
            await self._life.end(how)
        error = (
            ProviderError(f"{self.id} is paused") if how == "pause" else SandboxDestroyed(f"{self.id} was destroyed")
        )
        self.transport.health.give_up(error)
        await self._monitor.stop()
