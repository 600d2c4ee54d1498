"""Who waits for what: requests of clients to the agent, and questions of the agent to its clients.

Several clients share one agent, and each counts its JSON-RPC ids for itself. A request keeps its id while it is the
only one with it; a second one with the same id gets one of the daemon's, so the agent never sees an id twice and no
client takes another's answer for its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import UNSET, Raw, UnsetType

from .envelope import id_text
from .errors import AgentBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sandbox_supervisor import Reply

    from .envelope import Head
    from .errors import Refusal
    from .routed import Routed

__all__ = ["Call", "InFlight", "Questions", "Waiting"]

LIMIT = 1024
"""Requests, and questions, without an answer: far above what clients and agents have open."""

ANSWERED_REMEMBERED = 256
"""Settled questions whose late answers are recognised, so that they do not reach the agent."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A client's request that the agent has not answered yet.

    Attributes:
      id: as the agent knows it.
      own_id: as the client knows it.
      ended: told of the answer, or why there is none, with what else is recorded. It then is the one to learn from it.
    """

    id: Raw
    own_id: Raw
    method: str
    params: Raw | UnsetType
    session_id: str | None
    answer: Reply[bytes]
    ended: Callable[[Head | Refusal, Routed], None] | None = None

    @property
    def has_own_id(self) -> bool:
        """Whether the agent knows it by the client's id."""
        return bytes(self.id) == bytes(self.own_id)


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the daemon's own.

    Attributes:
      muted: the ACP session whose replay it brings on.
      learn: its params, where what it does is to be remembered.
      heard: told of the answer, with what else is recorded.
    """

    method: str
    muted: str | None
    answer: Reply[Head]
    learn: Raw | UnsetType = UNSET
    heard: Callable[[Head, Routed], None] | None = None


class InFlight:
    """The requests under way, by the id that the agent knows."""

    def __init__(self, run: str) -> None:
        self._entries: dict[bytes, Waiting | Call] = {}
        self._run = run.encode()
        self._numbers = 0

    @property
    def is_empty(self) -> bool:
        return not self._entries

    def check(self) -> None:
        """Raises `AgentBusy` if there are too many."""
        if len(self._entries) >= LIMIT:
            raise AgentBusy

    def id_for(self, own_id: Raw) -> Raw:
        """The id to send a request with."""
        # A copy: a Raw out of a decoder keeps the whole message alive that it was cut from.
        return self.new_id() if id_text(own_id) in self._entries else Raw(bytes(own_id))

    def new_id(self) -> Raw:
        while True:
            self._numbers += 1
            id = Raw(b'"sandbox-agent:%b:%d"' % (self._run, self._numbers))
            if id_text(id) not in self._entries:  # a client may count like this, too
                return id

    def add(self, id: Raw, entry: Waiting | Call) -> None:
        self._entries[id_text(id)] = entry

    def get(self, id: Raw) -> Waiting | Call | None:
        """What an answer is for; None where nobody asked."""
        return self._entries.get(id_text(id))

    def discard(self, id: Raw) -> None:
        self._entries.pop(id_text(id), None)

    def clear(self, kept: Collection[bytes] = ()) -> Iterator[Waiting]:
        """Take all out but those with these ids; yields the clients' requests, in the order they were made."""
        entries, self._entries = self._entries, {}
        self._entries = {id: entry for id, entry in entries.items() if id in kept}
        return (entry for id, entry in entries.items() if isinstance(entry, Waiting) and id not in kept)


class Questions:
    """The agent's requests to its clients that nobody has answered yet. The first answer counts."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[Raw, str]] = {}
        self._settled: deque[bytes] = deque(maxlen=ANSWERED_REMEMBERED)

    @property
    def is_empty(self) -> bool:
        return not self._open

    def add(self, id: Raw, method: str) -> None:
        text = id_text(id)
        self._open[text] = (Raw(bytes(id)), method)
        if len(self._open) > LIMIT:  # nobody answers: the oldest is as good as forgotten
            del self._open[next(iter(self._open))]
        if text in self._settled:
            self._settled.remove(text)

    def answer(self, id: Raw) -> bool:
        """Take in a client's answer; False if the question has been settled already and this one comes too late."""
        text = id_text(id)
        if text in self._settled:
            return False
        if self._open.pop(text, None) is not None:
            self._settled.append(text)
        return True

    def clear(self) -> list[tuple[Raw, str]]:
        """Settle all: the agent that asked is gone. Gives their ids and methods."""
        gone = list(self._open.values())
        self._settled.extend(self._open)
        self._open.clear()
        return gone
