"""What comes of envelopes that pass through a session: what to record, whom to answer, what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Raw

from sandbox_supervisor import Reply

from .journal import Origin

__all__ = ["AGENT", "CLIENT", "DAEMON", "NOTICE", "Asked", "Routed"]

AGENT, CLIENT, DAEMON, NOTICE = (origin.value[0] for origin in Origin)

Then: TypeAlias = Callable[[], None]
Answers: TypeAlias = "list[tuple[Reply[bytes], bytes]]"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the agent's that the daemon serves in its clients' place.

    Attributes:
      params: with the clients' ids of ACP sessions; None where there are none.
    """

    id: Raw
    method: str
    params: Raw | None


@dataclass(slots=True)
class Routed:
    """What is to be recorded, with the letter of each envelope's origin, and who is answered once that is durable.

    Attributes:
      learned: whether the memory has changed.
      to_agent: answers of the daemon's own to what the agent has asked.
      asked: what the daemon serves.
      withdrawn: ids of requests that the agent does not want to be served any more.
      then: what else is to be done once it is durable; it must neither wait nor raise.
    """

    origins: list[int] = field(default_factory=list[int])
    envelopes: list[bytes] = field(default_factory=list[bytes])
    answers: Answers = field(default_factory=list[tuple[Reply[bytes], bytes]])
    learned: bool = False
    to_agent: list[bytes] = field(default_factory=list[bytes])
    asked: list[Asked] = field(default_factory=list[Asked])
    withdrawn: list[Raw] = field(default_factory=list[Raw])
    then: list[Then] = field(default_factory=list[Then])

    def add(self, origin: int, envelope: bytes) -> None:
        self.origins.append(origin)
        self.envelopes.append(envelope)
