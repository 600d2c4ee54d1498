# Written by scripts/make-sync from ../client.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.client`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import UNSET

from ..client import SandboxAgent as AsyncSandboxAgent
from .acp import AcpConnection
from .agents import Agents
from .callbacks import in_thread
from .config import Config
from .files import Files
from .git import Git
from .ports import Ports
from .processes import Processes
from .session import Session
from .store import actual_store, open_near
from .transport import Transport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from msgspec import UnsetType

    from ..lifetime import OnExit
    from ..models import Json
    from ..providers.provider import Provider
    from ..recovery import Recovery
    from ..transport import Timeouts
    from ._line import Line
    from .callbacks import OnPermission, OnRecovery
    from .store import Store


__all__ = ["SandboxAgent"]


class SandboxAgent:
    """A sandbox whose server is looked after for as long as the block of `start` or `connect` runs.

    All that ask the server raise `ApiError` where it says no, `ConnectionFailed` where it cannot be reached, and
    `ProviderError` (`SandboxDestroyed`, `RecoveryFailed`) once it was given up; `ConnectionFailed` after the block.

    Attributes:
      transport: plain requests, for what this package has no method for.
    """

    def __init__(self, actual: AsyncSandboxAgent, line: Line) -> None:
        self._actual = actual
        self._line = line

    def __repr__(self) -> str:
        return repr(self._actual)

    @cached_property
    def transport(self) -> Transport:
        return Transport(self._actual.transport, self._line)

    @classmethod
    def start(
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
    ) -> AbstractContextManager[SandboxAgent]:
        """A new sandbox of a provider, or one that is there.

        with SandboxAgent.start(LocalProvider()) as sandbox:
            session = sandbox.create_session("mock")

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
        return open_near(
            store,
            AsyncSandboxAgent.start(
                provider,
                sandbox_id=sandbox_id,
                token=token,
                on_exit=on_exit,
                start_within=start_within,
                timeouts=timeouts,
                recovery=recovery,
                on_recovery=in_thread(on_recovery),
                store=actual_store(store),
                owner=owner,
                lease_ttl=lease_ttl,
            ),
            cls,
        )

    @classmethod
    def connect(
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
    ) -> AbstractContextManager[SandboxAgent]:
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
        return open_near(
            store,
            AsyncSandboxAgent.connect(
                url,
                token,
                headers=headers,
                start_within=start_within,
                timeouts=timeouts,
                recovery=recovery,
                on_recovery=in_thread(on_recovery),
                store=actual_store(store),
                owner=owner,
                lease_ttl=lease_ttl,
            ),
            cls,
        )

    @property
    def id(self) -> str | None:
        """For `start(sandbox_id=…)`, later or elsewhere: the provider's name and its own id. None after `connect`."""
        return self._actual.id

    @property
    def url(self) -> str:
        """Where the server is, at present."""
        return self._actual.url

    @property
    def token(self) -> str | None:
        return self._actual.token

    @property
    def inspector_url(self) -> str:
        """The page to look into it with a browser, on servers that have one."""
        return self._actual.inspector_url

    def health(self) -> dict[str, Json]:
        """What the server says of its health: `status` is `ok`."""
        return self._line.call(self._actual.health)

    def ready(self) -> bool:
        """Whether new work is taken. Servers that do not tell take it."""
        return self._line.call(self._actual.ready)

    def create_session(
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
        return Session(
            self._line.call(
                self._actual.create_session,
                agent,
                id=id,
                cwd=cwd,
                env=env,
                mcp_servers=mcp_servers,
                mode=mode,
                model=model,
                config=config,
                permission_policy=permission_policy,
                title=title,
                tags=tags,
                idle_limit_ms=idle_limit_ms,
                turn_deadline_ms=turn_deadline_ms,
                queue_limit=queue_limit,
                resume=resume,
                on_permission=in_thread(on_permission),
                key=key,
            ),
            self._line,
        )

    def session(self, id: str, *, on_permission: OnPermission | None = None) -> Session:
        """A session that is there, made here or by anybody else.

        Raises:
          SessionNotFound: there is none.
          LeaseHeld: where sessions are owned: another owner has it.
        """
        return Session(self._line.call(self._actual.session, id, on_permission=in_thread(on_permission)), self._line)

    def list_sessions(
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
        return [
            Session(each, self._line)
            for each in self._line.call(self._actual.list_sessions, agent=agent, state=state, tags=tags, native=native)
        ]

    def acp(self, id: str, *, agent: str | None = None, keep: bool = False) -> AbstractContextManager[AcpConnection]:
        """The raw wire to one agent, which is ended at the end of the block.

        with sandbox.acp("a1", agent="mock") as acp:
            acp.request("initialize", {"protocolVersion": 1})

        Args:
          agent: started by the first envelope; None: it runs already.
          keep: it is left running.
        """
        return self._line.enter(self._actual.acp(id, agent=agent, keep=keep), AcpConnection)

    def destroy(self) -> None:
        """End the sandbox, with all that is in it. Every request from now on raises `SandboxDestroyed`."""
        self._line.call(self._actual.destroy)

    def kill(self) -> None:
        """End it at once, without regard to what runs in it."""
        self._line.call(self._actual.kill)

    def pause(self) -> None:
        """Put it to rest: `start(sandbox_id=…)` brings it back. Every request from now on raises `ProviderError`.

        Raises:
          UnsupportedByProvider: this provider cannot do that.
        """
        self._line.call(self._actual.pause)

    @cached_property
    def files(self) -> Files:
        return Files(self._actual.files, self._line)

    @cached_property
    def processes(self) -> Processes:
        return Processes(self._actual.processes, self._line)

    @cached_property
    def ports(self) -> Ports:
        return Ports(self._actual.ports, self._line)

    @cached_property
    def git(self) -> Git:
        return Git(self._actual.git, self._line)

    @cached_property
    def agents(self) -> Agents:
        return Agents(self._actual.agents, self._line)

    @cached_property
    def config(self) -> Config:
        return Config(self._actual.config, self._line)
