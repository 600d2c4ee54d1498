"""What clients of the native API are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from sandbox_actors.envelope import Json
from sandbox_actors.memory_view import AcpSessionView
from sandbox_actors.moments import told
from sandbox_actors.native import ForkedFrom
from sandbox_actors.permissions.permission import Option
from sandbox_actors.permissions.policy import Policy, Preset

from .doing import working_directory

if TYPE_CHECKING:
    from sandbox_actors.files import FileSystem
    from sandbox_actors.native_turns import Turn
    from sandbox_actors.permissions.permission import Permission
    from sandbox_actors.session import Session

__all__ = [
    "STATES",
    "PermissionView",
    "PromptView",
    "SessionView",
    "ShownState",
    "TurnView",
    "permission_view",
    "session_view",
    "shown_state",
    "turn_view",
]

ShownState: TypeAlias = Literal["hibernated", "starting", "ready", "backoff", "failed", "closed"]

STATES: tuple[ShownState, ...] = ("hibernated", "starting", "ready", "backoff", "failed", "closed")


class TurnView(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A turn. `seq` is of the event that tells it was taken: reading behind it shows all of the turn."""

    turn_id: str
    seq: int
    state: Literal["queued", "running", "ended"]
    acp_session_id: str | None = None
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    outcome: Literal["completed", "cancelled", "failed"] | None = None
    stop_reason: str | None = None
    error: dict[str, Json] | None = None
    usage: Raw | UnsetType = UNSET
    forced: bool = False


class PromptView(TurnView, rename="camel", omit_defaults=True, kw_only=True):
    """A turn that was waited for, with what the agent has said in it."""

    text: str
    text_truncated: bool = False


class PermissionView(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What an agent asks. While it is open there is no `outcome`."""

    permission_id: str
    kind: Literal["permission", "elicitation"]
    request_id: Raw
    acp_session_id: str | None = None
    asked_at: str = ""
    expires_at: str | None = None
    options: list[Option] = []
    tool_call: Raw | UnsetType = UNSET
    elicitation: Raw | UnsetType = UNSET
    outcome: str | None = None
    option_id: str | None = None
    by: str | None = None
    resolved_at: str | None = None


class SessionView(msgspec.Struct, rename="camel", kw_only=True):
    """A session.

    Attributes:
      env: the names of what its agent is given; the values are told to nobody.
      mode, model: what is set, as the agent tells it; else what was asked for.
      modes, models, config_options: what can be set, as the agent tells it.
      forked_from: the session that it has begun as a fork of, and the last event of that one which it knows of.
      capabilities: of the agent, as it tells them.
      generation: of the newest owner that has acted, see `sandbox_actors.fencing`; 0: none had one.
      head, floor, epoch: the numbers of the newest and the oldest event, and of which journal.
    """

    id: str
    agent: str
    state: ShownState
    native: bool
    forked_from: ForkedFrom | None
    title: str | None
    tags: dict[str, str]
    cwd: str
    env: list[str]
    mode: str | None
    model: str | None
    config: dict[str, str | bool]
    modes: Raw | None
    models: Raw | None
    config_options: Raw | None
    acp_session_id: str | None
    acp_session_ids: list[str]
    agent_info: Raw | None
    capabilities: Raw | None
    permission_policy: Preset | Policy
    idle_limit_ms: int | None
    turn_deadline_ms: int | None
    queue_limit: int | None
    running_turn_id: str | None
    queued_turn_ids: list[str]
    pending_permissions: int
    created_at: str
    last_active_at: str
    incarnation: int
    pid: int | None
    generation: int
    head: int
    floor: int
    epoch: str


def shown_state(session: Session) -> ShownState:
    """The state in the words of clients: a session without a process has a past, and goes on when it is prompted."""
    state = session.state
    return "hibernated" if state == "stopped" else state


def turn_view(turn: Turn) -> TurnView:
    return TurnView(
        turn_id=turn.id,
        seq=turn.seq,
        state=turn.state,
        acp_session_id=turn.acp_session,
        created_at=told(turn.created_ms),
        started_at=_moment(turn.started_ms),
        ended_at=_moment(turn.ended_ms),
        outcome=turn.outcome,
        stop_reason=turn.stop_reason,
        error=turn.error,
        usage=turn.usage if turn.usage is not None else UNSET,
        forced=turn.forced,
    )


def permission_view(permission: Permission) -> PermissionView:
    return PermissionView(
        permission_id=permission.id,
        kind=permission.kind,
        request_id=permission.request_id,
        acp_session_id=permission.session_id,
        asked_at=told(permission.asked_ms),
        expires_at=_moment(permission.expires_ms),
        options=list(permission.options),
        tool_call=permission.tool_call,
        elicitation=permission.elicitation,
        outcome=permission.outcome,
        option_id=permission.option_id,
        by=permission.by,
        resolved_at=_moment(permission.resolved_ms),
    )


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else told(at_ms)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def session_view(session: Session, files: FileSystem, epoch: str) -> SessionView:
    """A session as it is at present."""
    setup, memory, row, turns = session.setup, session.memory, session.log.row, session.turns
    main = memory.target
    acp = None if main is None else AcpSessionView.of(main, memory.sessions[main])
    return SessionView(
        id=row.id,
        agent=row.agent,
        state=shown_state(session),
        native=setup.native,
        forked_from=setup.forked_from,
        title=setup.title,
        tags=setup.tags,
        cwd=working_directory(session, files),
        env=sorted(setup.env),
        mode=setup.mode if acp is None else acp.mode or setup.mode,
        model=setup.model if acp is None else acp.model or setup.model,
        config=setup.config if acp is None else {**setup.config, **acp.config},
        modes=None if acp is None else acp.modes or None,
        models=None if acp is None else acp.models or None,
        config_options=None if acp is None else acp.config_options or None,
        acp_session_id=main,
        acp_session_ids=list(memory.sessions),
        agent_info=memory.agent.get("agentInfo"),
        capabilities=memory.agent.get("agentCapabilities"),
        permission_policy=_policy(setup.policy),
        idle_limit_ms=_milliseconds(setup.idle_limit),
        turn_deadline_ms=_milliseconds(setup.turn_deadline),
        queue_limit=setup.queue_limit,
        running_turn_id=None if turns.running is None else turns.running.id,
        queued_turn_ids=[turn.id for turn in turns.queued],
        pending_permissions=len(session.permissions.pending()),
        created_at=told(row.created_ms),
        last_active_at=told(session.last_active_ms),
        incarnation=session.incarnation,
        pid=session.pid,
        generation=memory.generation,
        head=session.log.head,
        floor=session.log.floor,
        epoch=epoch,
    )


def _policy(policy: Policy) -> Preset | Policy:
    """As clients write it."""
    return policy.default if policy == Policy(default=policy.default) else policy
