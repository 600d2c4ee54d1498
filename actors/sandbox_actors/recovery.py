"""How a new incarnation of an agent is brought back to where the last one was.

`initialize` again, as the client did it; then for every ACP session the best that the agent offers: `session/resume`
(context kept, nothing replayed), else `session/load` (context kept, its replay is not recorded again), else
`session/new`, which has lost the context: what was achieved is always declared. Sources: ACP protocol version 1,
Initialization and Session Setup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import trio

from .envelope import Json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .envelope import Head, Params
    from .memory import AcpSession, Memory

__all__ = ["Recovered", "RecoveryFailed", "recover"]

Fidelity = Literal["resumed", "loaded", "new", "lost"]

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
      fidelity: `resumed` and `loaded` have their context, `new` has none, `lost` could not be opened at all.
    """

    id: str
    agent_id: str
    fidelity: Fidelity


CallAgent: TypeAlias = "Callable[[str, Params], Awaitable[Head]]"
"""Asks the agent something (method, params) and gives the head of its answer."""


class _SessionCapabilities(msgspec.Struct):
    resume: Json = None


class _Capabilities(msgspec.Struct, rename="camel"):
    load_session: bool = False
    session_capabilities: _SessionCapabilities | None = None


class _Initialized(msgspec.Struct):
    capabilities: _Capabilities = msgspec.field(name="agentCapabilities", default_factory=_Capabilities)


async def recover(memory: Memory, call: CallAgent) -> tuple[Recovered, ...]:
    """Bring an incarnation back to what is known of the one before. Its `initialize` must be known.

    Raises:
      RecoveryFailed: no proper answer to `initialize`.
    """
    try:
        with trio.fail_after(INITIALIZE_WITHIN):
            answer = await call("initialize", memory.initialize or {})
    except trio.TooSlowError:
        raise RecoveryFailed(f"the agent did not answer initialize within {INITIALIZE_WITHIN:g} s") from None
    if not isinstance(answer.result, msgspec.Raw):
        raise RecoveryFailed("the agent refused to initialize again")
    try:
        offered = msgspec.json.decode(answer.result, type=_Initialized).capabilities
    except msgspec.MsgspecError:
        offered = _Capabilities()
    recovered = {id: Recovered(id, known.agent_id, "lost") for id, known in memory.sessions.items()}
    with trio.move_on_after(SESSIONS_WITHIN):
        # The newest first: it is the likeliest to be waited for.
        for id, known in reversed(list(memory.sessions.items())):
            recovered[id] = await _reopen(id, known, offered, call)
    return tuple(recovered.values())


async def _reopen(id: str, known: AcpSession, offered: _Capabilities, call: CallAgent) -> Recovered:
    rungs: list[tuple[str, Fidelity]] = []
    if offered.session_capabilities is not None and offered.session_capabilities.resume not in (None, False):
        rungs.append(("session/resume", "resumed"))
    if offered.load_session:
        rungs.append(("session/load", "loaded"))
    for method, fidelity in rungs:
        with trio.move_on_after(SESSION_WITHIN):
            answer = await call(method, {**known.params, "sessionId": known.agent_id})
            if isinstance(answer.result, msgspec.Raw):
                return Recovered(id, known.agent_id, fidelity)
    with trio.move_on_after(SESSION_WITHIN):
        answer = await call("session/new", known.params)
        agent_id = answer.member("result", "sessionId")
        if isinstance(agent_id, str):
            return Recovered(id, agent_id, "new")
    return Recovered(id, known.agent_id, "lost")
