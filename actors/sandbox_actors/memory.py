"""What the next incarnation of an agent must know to go on where the last one ended: kept with the session's row.

The daemon learns it from the traffic: how the client introduced itself (`initialize`), which MCP servers the agent says
it can talk to, which ACP sessions were opened and with what (`session/new`, `session/load`, `session/resume`,
`session/fork`), what was set in them, and which turns are open. Beside that it keeps what the session was set up with.
Sources: ACP protocol version 1, Initialization and Session Setup.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .acp_session import SETTING, AcpSession, Told
from .envelope import members_of, text_of
from .kept_turns import KeptTurn
from .native import Setup
from .native_turns import RECENT
from .permissions.permission import OpenPermission

if TYPE_CHECKING:
    from .envelope import Head, Json

__all__ = ["OPENING", "AcpSession", "Keyed", "McpCapabilities", "Memory", "Turn"]

LAST_MEMBER = re.compile(rb',"generation":(\d{1,19})}\Z')
"""The end of what is kept, also where it cannot be read for its depth."""

REMEMBERED = 64
"""ACP sessions of one agent process that are brought back after a crash: the newest ones."""

OPENING = ("session/new", "session/load", "session/resume", "session/fork")
CLOSING = ("session/close", "session/delete")

KEYS = 256
"""Idempotency keys that are remembered: a client tries again within minutes, not after hundreds of prompts."""

INTRODUCTION = ("protocolVersion", "agentCapabilities", "agentInfo", "authMethods")

INTRODUCTION_LIMIT = 256 << 10
"""Bytes of a member of an agent's introduction that are kept."""


class McpCapabilities(msgspec.Struct, frozen=True):
    """Over which transports an agent talks to MCP servers beside those that it starts itself."""

    http: bool = False
    sse: bool = False


class _AgentCapabilities(msgspec.Struct, rename="camel"):
    mcp_capabilities: McpCapabilities = McpCapabilities()


class _Initialized(msgspec.Struct, rename="camel"):
    agent_capabilities: _AgentCapabilities = msgspec.field(default_factory=_AgentCapabilities)


class Turn(msgspec.Struct):
    """A prompt that has not been answered: its JSON-RPC id as the agent knows it, and its ACP session."""

    id: Raw
    session_id: str | None


class Keyed(msgspec.Struct, omit_defaults=True):
    """The turn that was made under an idempotency key, as far as a later daemon must know it.

    Attributes:
      content: the fingerprint of what was prompted.
    """

    content: str
    turn: str
    seq: int
    created_ms: int
    outcome: Literal["completed", "cancelled", "failed"] | None = None
    stop_reason: str | None = None


class Memory(msgspec.Struct):
    """See the module.

    Attributes:
      initialize: the params of the clients' last successful `initialize`; UNSET before it (msgspec reads no
        `Raw | None`).
      mcp: what the agent said in its last answer to it.
      sessions: by the id that clients use, oldest first.
      turns: the open ones.
      running: whether an agent process was there when this was written.
      setup: what the session was made with, and what was changed since.
      main: the ACP session that the daemon opened for a native session; None before.
      agent: what the agent last said of itself: the members of its answer to `initialize`.
      open_turns: the native ones, in their order.
      ended_turns: the newest of those that have ended, oldest first.
      keys: idempotency keys of prompts, oldest first.
      made_by: idempotency key and fingerprint of the request that made the session, if it had one.
      closed: a client has closed it for good.
      active_ms: when something last happened in it.
      permissions: what the agent has asked and nobody has answered.
      remembered: what was answered with "always", see `permissions.remembered`.
      generation: of the newest owner that has acted, see `fencing`; 0: none had one.
    """

    initialize: Raw | UnsetType = UNSET
    mcp: McpCapabilities = McpCapabilities()
    sessions: dict[str, AcpSession] = {}
    turns: list[Turn] = []
    running: bool = False
    setup: Setup = msgspec.field(default_factory=Setup)
    main: str | None = None
    agent: dict[str, Raw] = {}
    open_turns: list[KeptTurn] = []
    ended_turns: list[KeptTurn] = []
    keys: dict[str, Keyed] = {}
    made_by: tuple[str, str] | None = None
    closed: bool = False
    active_ms: int = 0
    permissions: list[OpenPermission] = []
    remembered: dict[str, str] = {}
    generation: int = 0  # the last one: see `LAST_MEMBER`

    @property
    def target(self) -> str | None:
        """The ACP session that prompts go to which name none: the daemon's own, else the newest."""
        return self.main if self.main in self.sessions else next(reversed(self.sessions), None)

    def directory_of(self, session_id: str | None) -> str | None:
        """Where an ACP session works. One that is not known belongs to another one, as a subagent's does."""
        known = self.sessions.get(session_id or "") or self.sessions.get(self.target or "")
        return self.setup.cwd if known is None else text_of(known.params.get("cwd")) or self.setup.cwd

    def keep_key(self, key: str, keyed: Keyed) -> None:
        """Remember the turn of an idempotency key."""
        self.keys[key] = keyed
        while len(self.keys) > KEYS:
            del self.keys[next(iter(self.keys))]

    def keep_turn(self, ended: KeptTurn) -> None:
        """Remember a native turn that has ended."""
        self.ended_turns = [*self.ended_turns, ended][-RECENT:]

    @staticmethod
    def wants(method: str) -> bool:
        """Whether there is anything to learn from a request of this method, so that its params must be kept."""
        return method == "initialize" or method in OPENING or method in CLOSING or method in SETTING

    @classmethod
    def load(cls, text: bytes) -> Memory:
        try:
            return msgspec.json.decode(text, type=cls) if text else cls()
        except (msgspec.MsgspecError, RecursionError):
            # Params nested as deeply as an envelope may be are one level too deep in here. The session starts anew;
            # only who may act in it is not forgotten.
            known = LAST_MEMBER.search(text)
            return cls() if known is None else cls(generation=int(known[1]))

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
        given = members_of(params)
        if method in SETTING:
            known = self.sessions.get(text_of(given.get("sessionId")) or "")
            if known is not None:
                known.learn(method, given, answer.result)
            return known is not None
        if method in OPENING:
            id: Json = answer.member("result", "sessionId") if method in ("session/new", "session/fork") else None
            if not isinstance(id, str):
                id = text_of(given.get("sessionId"))
            if id is None:
                return False
            given.pop("sessionId", None)
            before = self.sessions.pop(id, None)
            # Opened again: the agent was asked by the id that it knows.
            opened = self.sessions[id] = AcpSession(id if before is None else before.agent_id, given)
            opened.told = Told.of(answer.result)
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
        introduced = {
            name: text
            for name, text in members_of(answer.result).items()
            if name in INTRODUCTION and len(bytes(text)) <= INTRODUCTION_LIMIT
        }
        known, self.agent = self.agent, introduced
        return self.mcp != before or self.agent != known

    def hear(self, head: Head) -> bool:
        """Take in an update of an agent's that may tell of a changed mode or option; tell whether it did."""
        params = members_of(head.params)
        known = self.sessions.get(text_of(params.get("sessionId")) or "")
        update = members_of(params.get("update"))
        return known is not None and known.hear(text_of(update.get("sessionUpdate")) or "", update)

    @property
    def aliases(self) -> dict[str, str]:
        """The clients' ids of the ACP sessions which the agent knows by another id, with that id."""
        return {id: known.agent_id for id, known in self.sessions.items() if known.agent_id != id}
