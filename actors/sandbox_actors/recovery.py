"""How a new incarnation of an agent is brought back to where the last one was, rung by rung.

    session/resume    the agent has the conversation, nothing is replayed
    session/load      the agent has the conversation; its replay is not recorded again
    session/new       the agent has lost it, and is told the transcript with the next prompt
    the first time    there is no conversation yet: see `opening`

Before that `initialize` again, as the client did it; after it the mode, model and config options are set that were set
before. What was achieved is always declared. Sources: ACP protocol version 1, Initialization and Session Setup.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import trio
from msgspec import UNSET

from .acp_session import Told
from .configuring import CallAgent, Wanted, configure
from .envelope import Json
from .login import AuthMethod, Login
from .opening import open_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .acp_session import AcpSession
    from .memory import Memory

__all__ = ["BroughtUp", "Introduced", "Ladder", "Recovered", "RecoveryFailed"]

Fidelity = Literal["resumed", "loaded", "replayed", "new", "lost"]

INITIALIZE_WITHIN = 60.0
"""Seconds for the answer to `initialize`: the slowest real agent took 6."""

SESSION_WITHIN = 30.0
"""Seconds for one ACP session on one rung: a long conversation takes its time to load."""

SESSIONS_WITHIN = 120.0
"""Seconds for all ACP sessions together: clients wait meanwhile."""


class RecoveryFailed(Exception):
    """The incarnation does not even answer `initialize`: it is as good as crashed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one ACP session.

    Attributes:
      id: as clients know it.
      agent_id: as the agent knows it from now on.
      fidelity: `resumed` and `loaded` have their context, `replayed` is told the transcript with its next prompt, `new`
        has none, `lost` could not be opened at all.
      context: the transcript, where it is to be told.
      told: what the agent says can be set in it; None where it said nothing.
      not_set: the mode, model or options of before that could not be set again.
    """

    id: str
    agent_id: str
    fidelity: Fidelity
    context: str = ""
    told: Told | None = None
    not_set: tuple[str, ...] = ()


Transcript: TypeAlias = "Callable[[str], Awaitable[str]]"
"""The transcript of an ACP session, by the clients' id; empty where there is none to tell."""


class _SessionCapabilities(msgspec.Struct):
    resume: Json = None


class _Capabilities(msgspec.Struct, rename="camel"):
    load_session: bool = False
    session_capabilities: _SessionCapabilities | None = None


class _Initialized(msgspec.Struct):
    capabilities: _Capabilities = msgspec.field(name="agentCapabilities", default_factory=_Capabilities)


@dataclass(frozen=True, slots=True)
class Introduced:
    """What an agent says it can do, in its answer to `initialize`."""

    resumes: bool
    loads: bool
    auth_methods: tuple[AuthMethod, ...]


@dataclass(frozen=True, slots=True)
class BroughtUp:
    """An incarnation that clients may talk to.

    Attributes:
      opened: the ACP session of a native session, where this was the first time.
    """

    recovered: tuple[Recovered, ...] = ()
    opened: str | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """Brings incarnations of a session's agent up.

    Attributes:
      agent: its id, for messages.
      introduction: how the daemon introduces itself where no client has done so.
      call: asks the agent.
      first_call: the same, and what is opened by it is remembered as if a client had asked.
      transcript: None where none is to be told.
      environment: the agent's own, in which it may have what it takes to log in.
    """

    memory: Memory
    call: CallAgent
    first_call: CallAgent
    agent: str = "agent"
    introduction: Mapping[str, Json] = field(default_factory=dict[str, Json])
    transcript: Transcript | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    async def climb(self) -> BroughtUp:
        """Bring an incarnation to where the one before it was, or to where a native session begins.

        Raises:
          RecoveryFailed: no proper answer to `initialize`.
          Refusal: as `open_session`.
        """
        memory = self.memory
        if memory.initialize is UNSET and not memory.setup.native:
            return BroughtUp()  # a client introduces itself
        introduced = await self._introduce()
        login = Login(introduced.auth_methods, self.environment)
        if not memory.setup.native or memory.main is not None:
            return BroughtUp(await self._reopen_all(introduced, login))
        # What an opening that was cut short has left behind is nobody's.
        return BroughtUp((), await open_session(self.agent, memory.setup, introduced, login, self.first_call))

    async def _introduce(self) -> Introduced:
        known = self.memory.initialize
        call = self.first_call if known is UNSET else self.call
        try:
            with trio.fail_after(INITIALIZE_WITHIN):
                answer = await call("initialize", self.introduction if known is UNSET else known)
        except trio.TooSlowError:
            raise RecoveryFailed(f"the agent did not answer initialize within {INITIALIZE_WITHIN:g} s") from None
        if not isinstance(answer.result, msgspec.Raw):
            raise RecoveryFailed("the agent refused to initialize" + ("" if known is UNSET else " again"))
        try:
            offered = msgspec.json.decode(answer.result, type=_Initialized).capabilities
        except msgspec.MsgspecError:
            offered = _Capabilities()
        sessions = offered.session_capabilities
        resumes = sessions is not None and sessions.resume not in (None, False)
        return Introduced(resumes, offered.load_session, tuple(Login.read(answer.result)))

    async def _reopen_all(self, introduced: Introduced, login: Login) -> tuple[Recovered, ...]:
        # What is set in them is looked up first: the agent may tell of its defaults while it opens them.
        known = {id: (one, Wanted(one.mode, one.model, dict(one.config))) for id, one in self.memory.sessions.items()}
        recovered = {id: Recovered(id, one.agent_id, "lost") for id, (one, _) in known.items()}
        with trio.move_on_after(SESSIONS_WITHIN):
            # The newest first: it is the likeliest to be waited for.
            for id, (one, wanted) in reversed(known.items()):
                recovered[id] = await self._set_again(await self._reopen(id, one, introduced, login), wanted)
        return tuple(recovered.values())

    async def _reopen(self, id: str, known: AcpSession, introduced: Introduced, login: Login) -> Recovered:
        rungs: list[tuple[str, Fidelity]] = []
        if introduced.resumes:
            rungs.append(("session/resume", "resumed"))
        if introduced.loads:
            rungs.append(("session/load", "loaded"))
        for method, fidelity in rungs:
            with trio.move_on_after(SESSION_WITHIN):
                answer = await login.ask(self.call, method, {**known.params, "sessionId": known.agent_id})
                if isinstance(answer.result, msgspec.Raw):
                    told = Told.of(answer.result)
                    # It may never have been told of what was said before it was opened anew.
                    context = await self._context(id) if known.owes_context else ""
                    return Recovered(id, known.agent_id, "replayed" if context else fidelity, context, told)
        with trio.move_on_after(SESSION_WITHIN):
            answer = await login.ask(self.call, "session/new", known.params)
            agent_id = answer.member("result", "sessionId")
            if isinstance(agent_id, str):
                context = await self._context(id)
                return Recovered(id, agent_id, "replayed" if context else "new", context, Told.of(answer.result))
        return Recovered(id, known.agent_id, "lost")

    async def _context(self, id: str) -> str:
        return "" if self.transcript is None else await self.transcript(id)

    async def _set_again(self, recovered: Recovered, wanted: Wanted) -> Recovered:
        if recovered.told is None:
            return recovered
        told = recovered.told
        if recovered.fidelity in ("resumed", "loaded"):
            wanted = wanted.where_told(told)
        failed = await configure(recovered.agent_id, wanted, told, self.call)
        not_set = tuple(one.name for one in failed)
        return replace(recovered, told=None if told == Told() else told, not_set=not_set)
