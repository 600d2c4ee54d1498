"""What a session actor is told and asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sandbox_supervisor import Reply, Request

from .native_turns import Turn
from .permissions.permission import Permission

if TYPE_CHECKING:
    import trio
    from msgspec import Raw

    from sandbox_supervisor import ExitStatus

    from .directory_config import StoredServers
    from .envelope import Head, Params
    from .errors import Refusal
    from .framing import TooLong
    from .native import Changes
    from .outbox import Outbox
    from .recovery import Recovered

__all__ = [
    "Accepted",
    "AgentCalled",
    "AgentDown",
    "AgentGivenUp",
    "AgentHeard",
    "AgentReady",
    "AgentRestarting",
    "AgentUp",
    "AnswerPermission",
    "CancelOverdue",
    "CancelTurn",
    "Close",
    "CloseSession",
    "Fenced",
    "Fork",
    "ForkEnded",
    "Forked",
    "Hibernate",
    "IdleOverdue",
    "MakeRoom",
    "Message",
    "NoBerth",
    "OpeningFailed",
    "Patch",
    "PermissionOverdue",
    "Prompt",
    "Restart",
    "Say",
    "Served",
    "TurnOverdue",
]

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An envelope is on its way to the agent.

    Attributes:
      id: for a request, its id as the agent knows it. It is the client's own, unless a request with the same id was
        already under way: the answer on the streams then carries this one.
      answer: for a request, settled with the answer as bytes, under the client's own id, once it is durable.
    """

    id: Raw | None = None
    answer: Reply[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Say(Request[Accepted]):
    """A client has something to say to the agent: a request, a notification or an answer.

    Attributes:
      servers: of MCP, to be added on the way to the agent; None where the envelope is not to be touched.
    """

    envelope: bytes
    head: Head
    servers: StoredServers | None = None


@dataclass(frozen=True, slots=True)
class Prompt(Request[Turn]):
    """A client has a prompt. The answer is its turn, taken and durable; `Turn.ended` tells when it is over.

    Attributes:
      content: blocks in ACP's shape.
      key: of idempotency: the same key with the same content is the same turn.
      acp_session: where it goes; None is the session's main one.
    """

    content: tuple[Raw, ...]
    key: str | None = None
    acp_session: str | None = None


@dataclass(frozen=True, slots=True)
class CancelTurn(Request[tuple[str, ...]]):
    """End a turn, or all of them; the answer tells which ones were open. The running one ends when the agent says so.

    Attributes:
      turn: its id; None is the running one and all that wait.
    """

    turn: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerPermission(Request[Permission]):
    """A client answers what the agent has asked. The first valid answer counts.

    Attributes:
      option: the id of an option that the agent offers.
      outcome: in its place: `cancelled`, or the kind of an option; for an elicitation its action.
      content: of an elicitation that is accepted.
      by: who it is: `client`, or `client:` and a name.
    """

    id: str
    option: str | None = None
    outcome: str | None = None
    content: Raw | None = None
    by: str = "client"


@dataclass(frozen=True, slots=True)
class PermissionOverdue:
    """Nobody has answered a permission in the time that the policy gives."""

    id: str


@dataclass(frozen=True, slots=True)
class Served:
    """The daemon has served a request of the agent's, with this answer."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Patch(Request[None]):
    """Change the terms of the session."""

    changes: Changes


@dataclass(frozen=True, slots=True)
class CloseSession(Request[None]):
    """End the agent for good. The session stays readable, and takes no more requests, also after a restart."""


@dataclass(frozen=True, slots=True)
class Restart(Request[None]):
    """End the agent and start it again, or start it where it was given up. What it works on fails."""


@dataclass(frozen=True, slots=True)
class Hibernate(Request[None]):
    """End the agent, which has nothing to do, until there is something. The session stays as it is."""


@dataclass(slots=True, eq=False)
class Forked:
    """A fork is on its way. The actor fills in the rest before the answer is settled.

    Attributes:
      seq: the last event that it knows of: the request for it.
      answer: the agent's, or the daemon's in its place.
      refusal: why there is none, or none that is of use, where that is not the agent's answer.
      closed: the agent's answer to its being closed again, where it was told to.
    """

    seq: int
    answer: Reply[bytes] = field(default_factory=Reply[bytes])
    refusal: Refusal | None = None
    closed: Reply[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Fork(Request[Forked]):
    """Have the agent make another ACP session with the same past."""


@dataclass(frozen=True, slots=True)
class ForkEnded:
    """A fork has become a session, or nothing.

    Attributes:
      acp_session: the fork.
      into: the session that goes on with it; None where there is none.
    """

    acp_session: str
    into: str | None = None


@dataclass(frozen=True, slots=True)
class Fenced(Request[R_co]):
    """Any request that acts, of an owner with a number: see `fencing`."""

    generation: int
    request: Request[R_co]


@dataclass(frozen=True, slots=True)
class IdleOverdue:
    """The agent may have had nothing to do for as long as the session's limit is."""


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """Another session needs the berth of this one's agent, if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class TurnOverdue:
    """A turn has taken as long as it may."""

    turn: str


@dataclass(frozen=True, slots=True)
class CancelOverdue:
    """The agent was told long ago to cancel a turn."""

    turn: str


@dataclass(frozen=True, slots=True)
class Close:
    """Stop the agent and take no more requests."""


@dataclass(frozen=True, slots=True)
class NoBerth:
    """The agent is not started: those that were to make room for it have something to do again."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class AgentUp:
    """A new incarnation runs."""

    incarnation: int
    pid: int
    outbox: Outbox


@dataclass(frozen=True, slots=True)
class AgentHeard:
    """The agent has written some lines; `taken` is set when they have been dealt with."""

    lines: list[bytes | TooLong]
    taken: trio.Event


@dataclass(frozen=True, slots=True)
class AgentCalled:
    """The daemon itself asks the agent something, while it brings an incarnation back.

    Attributes:
      muted: an ACP session whose updates are not recorded before the answer has come: they are a replay.
      servers: as in `Say`.
      learn: what is opened by it is to be remembered, as if a client had asked.
    """

    method: str
    params: Params
    muted: str | None
    answer: Reply[Head]
    servers: StoredServers | None = None
    learn: bool = False


@dataclass(frozen=True, slots=True)
class AgentReady:
    """The incarnation has its sessions back: what clients say may pass.

    Attributes:
      opened: the ACP session that the daemon has opened for a native session, if it was the first time.
    """

    incarnation: int
    recovered: tuple[Recovered, ...]
    opened: str | None = None


@dataclass(frozen=True, slots=True)
class OpeningFailed:
    """The incarnation is up, but there is no ACP session for a native session in it."""

    incarnation: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class AgentDown:
    """The incarnation has ended, its tree is dead and its last words were heard.

    Attributes:
      status: None where there was no process.
      stderr: its last lines.
      reason: why the daemon ended it, where it did, or why there was no process.
      crashed: whether it should not have ended.
    """

    incarnation: int
    status: ExitStatus | None
    stderr: tuple[str, ...]
    reason: str | None
    crashed: bool


@dataclass(frozen=True, slots=True)
class AgentRestarting:
    """The incarnation crashed, for the so manieth time, and there will be another one after `delay` seconds."""

    incarnation: int
    delay: float
    crashes: int


@dataclass(frozen=True, slots=True)
class AgentGivenUp:
    """The agent crashed too often: only a client's `initialize` starts it again."""

    reason: str


Message: TypeAlias = (
    Say
    | Prompt
    | CancelTurn
    | AnswerPermission
    | PermissionOverdue
    | Served
    | Patch
    | CloseSession
    | Restart
    | Hibernate
    | Fenced[object]
    | Fork
    | ForkEnded
    | IdleOverdue
    | MakeRoom
    | TurnOverdue
    | CancelOverdue
    | Close
    | NoBerth
    | AgentUp
    | AgentHeard
    | AgentCalled
    | AgentReady
    | OpeningFailed
    | AgentDown
    | AgentRestarting
    | AgentGivenUp
)
