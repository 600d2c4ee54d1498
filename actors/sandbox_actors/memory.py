"""What the next incarnation of an agent must know to go on where the last one ended: kept with the session's row.

The daemon learns it from the traffic: how the client introduced itself (`initialize`), which MCP servers the agent says
it can talk to, which ACP sessions were opened and with what (`session/new`, `session/load`, `session/resume`,
`session/fork`), and which turns are open. Sources: ACP protocol version 1, Initialization and Session Setup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import text_of

if TYPE_CHECKING:
    from .envelope import Head, Json

__all__ = ["OPENING", "AcpSession", "McpCapabilities", "Memory", "Turn"]

REMEMBERED = 64
"""ACP sessions of one agent process that are brought back after a crash: the newest ones."""

OPENING = ("session/new", "session/load", "session/resume", "session/fork")
CLOSING = ("session/close", "session/delete")


class McpCapabilities(msgspec.Struct, frozen=True):
    """Over which transports an agent talks to MCP servers beside those that it starts itself."""

    http: bool = False
    sse: bool = False


class _AgentCapabilities(msgspec.Struct, rename="camel"):
    mcp_capabilities: McpCapabilities = McpCapabilities()


class _Initialized(msgspec.Struct, rename="camel"):
    agent_capabilities: _AgentCapabilities = msgspec.field(default_factory=_AgentCapabilities)


class AcpSession(msgspec.Struct):
    """One ACP session.

    Attributes:
      agent_id: the id by which the agent knows it now. It differs from the clients' id after a recovery that had to
        open a new one.
      params: what it was opened with: `cwd`, `mcpServers` and whatever else the client said.
    """

    agent_id: str
    params: dict[str, Raw]


class Turn(msgspec.Struct):
    """A prompt that has not been answered: its JSON-RPC id as the agent knows it, and its ACP session."""

    id: Raw
    session_id: str | None


class Memory(msgspec.Struct):
    """See the module.

    Attributes:
      initialize: the params of the clients' last successful `initialize`; UNSET before it (msgspec reads no
        `Raw | None`).
      mcp: what the agent said in its last answer to it.
      sessions: by the id that clients use, oldest first.
      turns: the open ones.
      running: whether an agent process was there when this was written.
    """

    initialize: Raw | UnsetType = UNSET
    mcp: McpCapabilities = McpCapabilities()
    sessions: dict[str, AcpSession] = {}
    turns: list[Turn] = []
    running: bool = False

    @staticmethod
    def wants(method: str) -> bool:
        """Whether there is anything to learn from a request of this method, so that its params must be kept."""
        return method == "initialize" or method in OPENING or method in CLOSING

    @classmethod
    def load(cls, text: bytes) -> Memory:
        try:
            return msgspec.json.decode(text, type=cls) if text else cls()
        except (msgspec.MsgspecError, RecursionError):
            # Params nested as deeply as an envelope may be are one level too deep in here. The session starts anew.
            return cls()

    def dump(self) -> bytes:
        return msgspec.json.encode(self)

    def learn(self, method: str, params: Raw | UnsetType, answer: Head) -> bool:
        """Take in a request that the agent has answered; tell whether there was anything to learn."""
        if not isinstance(answer.result, Raw):
            return False
        if method == "initialize" and isinstance(params, Raw):
            self.initialize = Raw(bytes(params))
            self.meet(answer)
            return True
        if not self.wants(method):
            return False
        given = _members(params)
        if method in OPENING:
            id: Json = answer.member("result", "sessionId") if method in ("session/new", "session/fork") else None
            if not isinstance(id, str):
                id = text_of(given.get("sessionId"))
            if id is None:
                return False
            given.pop("sessionId", None)
            before = self.sessions.pop(id, None)
            # Opened again: the agent was asked by the id that it knows.
            self.sessions[id] = AcpSession(id if before is None else before.agent_id, given)
            while len(self.sessions) > REMEMBERED:
                del self.sessions[next(iter(self.sessions))]
            return True
        return self.sessions.pop(text_of(given.get("sessionId")) or "", None) is not None

    def meet(self, answer: Head) -> bool:
        """Take in what the agent says of itself in an answer to `initialize`; tell whether that is news."""
        before = self.mcp
        try:
            told = msgspec.json.decode(answer.result, type=_Initialized) if isinstance(answer.result, Raw) else None
        except (msgspec.MsgspecError, RecursionError):
            told = None
        self.mcp = McpCapabilities() if told is None else told.agent_capabilities.mcp_capabilities
        return self.mcp != before

    @property
    def aliases(self) -> dict[str, str]:
        """The clients' ids of the ACP sessions which the agent knows by another id, with that id."""
        return {id: known.agent_id for id, known in self.sessions.items() if known.agent_id != id}


def _members(params: Raw | UnsetType) -> dict[str, Raw]:
    try:
        members = msgspec.json.decode(params, type=dict[str, Raw]) if isinstance(params, Raw) else {}
    except (msgspec.MsgspecError, RecursionError):
        return {}
    # Copies: a Raw out of a decoder keeps the whole message alive that it was cut from.
    return {name: Raw(bytes(value)) for name, value in members.items()}
