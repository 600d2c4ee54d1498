"""What the server tells: sessions, turns, permissions, as its JSON has them.

Members that this version does not know are left out; what JSON the agent itself tells is kept as it is.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

import msgspec

__all__ = [
    "Answer",
    "Context",
    "ForkedFrom",
    "Json",
    "Option",
    "Permission",
    "PromptResult",
    "SessionInfo",
    "Tokens",
    "Turn",
    "TurnUsage",
    "Usage",
    "UsageTotal",
]

Json: TypeAlias = Any
"""Whatever JSON can say: it comes from an agent, or goes to one."""


class Model(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A part of an answer."""


class ForkedFrom(Model, frozen=True):
    """The session that one is a fork of, and the last event of that one which it knows of."""

    id: str
    seq: int


class SessionInfo(Model, frozen=True):
    """A session, as it was when it was asked for.

    Attributes:
      state: `starting`, `ready`, `hibernated`, `backoff`, `failed` or `closed`.
      native: made here, and not by a client of the raw wire.
      env: names alone.
      mode, model, config: what is set; `modes`, `models`, `config_options`: what can be, in the agent's own words.
      generation: of the newest owner that has acted; 0: none had one.
      head, floor, epoch: the numbers of the newest and the oldest event, and of which journal.
    """

    id: str
    agent: str
    state: str
    native: bool = True
    forked_from: ForkedFrom | None = None
    title: str | None = None
    tags: dict[str, str] = {}
    cwd: str = ""
    env: tuple[str, ...] = ()
    mode: str | None = None
    model: str | None = None
    config: dict[str, str | bool] = {}
    modes: Json = None
    models: Json = None
    config_options: Json = None
    acp_session_id: str | None = None
    acp_session_ids: tuple[str, ...] = ()
    agent_info: Json = None
    capabilities: Json = None
    permission_policy: Json = None
    idle_limit_ms: int | None = None
    turn_deadline_ms: int | None = None
    queue_limit: int | None = None
    running_turn_id: str | None = None
    queued_turn_ids: tuple[str, ...] = ()
    pending_permissions: int = 0
    created_at: datetime | None = None
    last_active_at: datetime | None = None
    incarnation: int = 0
    pid: int | None = None
    generation: int = 0
    head: int = 0
    floor: int = 0
    epoch: str = ""


class Turn(Model, frozen=True):
    """What becomes of a prompt.

    Attributes:
      seq: of the event that tells it was taken: reading behind it shows all of the turn.
      state: `queued`, `running` or `ended`.
      outcome: `completed`, `cancelled` or `failed`, once it has ended.
      stop_reason: the agent's, where it has completed.
      error: a problem, or the agent's JSON-RPC error, where it has failed.
      forced: the agent had to be ended, because it did not heed the cancel.
    """

    turn_id: str
    seq: int
    state: str
    acp_session_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    stop_reason: str | None = None
    error: dict[str, Json] | None = None
    usage: Json = None
    forced: bool = False


class PromptResult(Model, frozen=True):
    """The end of a turn. A turn that fails is a result, not an exception.

    Attributes:
      text: what the agent has said; messages are separated by a blank line.
      text_truncated: it is longer than what is kept of it, or events are missing.
      outcome, stop_reason, error, usage, forced: as in `Turn`.
    """

    turn_id: str
    outcome: str
    text: str = ""
    text_truncated: bool = False
    stop_reason: str | None = None
    error: dict[str, Json] | None = None
    usage: Json = None
    forced: bool = False

    @property
    def completed(self) -> bool:
        """Whether the agent has ended the turn by itself."""
        return self.outcome == "completed"


class Option(Model, frozen=True):
    """One way to answer. `kind`: `allow_once`, `allow_always`, `reject_once`, `reject_always`, or the agent's own."""

    option_id: str
    name: str = ""
    kind: str = ""


class Permission(Model, frozen=True):
    """What an agent asks.

    Attributes:
      kind: `permission`, or `elicitation`: a form that is to be filled in.
      tool_call: what it wants to do, as the agent tells it.
      elicitation: the form: `mode`, `message`, `requestedSchema` or `url`.
      expires_at: when it is settled unless somebody answers.
      outcome, option_id, by: how it was settled, and by whom; None while it is open.
    """

    permission_id: str
    kind: str = "permission"
    request_id: Json = None
    acp_session_id: str | None = None
    asked_at: datetime | None = None
    expires_at: datetime | None = None
    options: tuple[Option, ...] = ()
    tool_call: Json = None
    elicitation: Json = None
    outcome: str | None = None
    option_id: str | None = None
    by: str | None = None
    resolved_at: datetime | None = None


class Answer(Model, frozen=True, omit_defaults=True):
    """How a permission is answered; exactly one of the first three is given.

    Attributes:
      option_id: one of the options that are offered.
      outcome: `cancelled`, or a kind of option, say `allow_once`.
      action: of an elicitation: `accept`, with `content`, or `decline`, or `cancel`.
    """

    option_id: str | None = None
    outcome: str | None = None
    action: str | None = None
    content: Json = None


class Tokens(Model, frozen=True):
    """Counts of tokens; 0 where nobody tells."""

    input: int = 0
    output: int = 0
    cached_read: int = 0
    cached_write: int = 0
    thought: int = 0
    total: int = 0


class TurnUsage(Model, frozen=True):
    """What one turn has used; `cost` by currency."""

    seq: int
    at: datetime
    turn_id: str | None = None
    session_id: str | None = None
    tokens: Tokens | None = None
    cost: dict[str, float] = {}


class Context(Model, frozen=True):
    """How full the context window of an ACP session is."""

    session_id: str | None
    used: int
    size: int


class UsageTotal(Model, frozen=True):
    """What all turns have used."""

    turns: int = 0
    tokens: Tokens | None = None
    cost: dict[str, float] = {}


class Usage(Model, frozen=True):
    """What a session has used, up to the event `seq`.

    Attributes:
      complete: False where older events are gone that may have told of more.
      turns: the newest ones.
    """

    session_id: str
    seq: int
    complete: bool
    total: UsageTotal
    context: tuple[Context, ...] = ()
    turns: tuple[TurnUsage, ...] = ()
