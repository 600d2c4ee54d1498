"""What a session actor is told and asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sandbox_supervisor import Request

if TYPE_CHECKING:
    import trio
    from msgspec import Raw

    from sandbox_supervisor import ExitStatus, Reply

    from .directory_config import StoredServers
    from .envelope import Head, Params
    from .framing import TooLong
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
    "Close",
    "Message",
    "Say",
]


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
class Close:
    """Stop the agent and take no more requests."""


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
    """

    method: str
    params: Params
    muted: str | None
    answer: Reply[Head]
    servers: StoredServers | None = None


@dataclass(frozen=True, slots=True)
class AgentReady:
    """The incarnation has its sessions back: what clients say may pass."""

    incarnation: int
    recovered: tuple[Recovered, ...]


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
    Say | Close | AgentUp | AgentHeard | AgentCalled | AgentReady | AgentDown | AgentRestarting | AgentGivenUp
)
