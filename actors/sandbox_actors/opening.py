"""How the daemon opens the ACP session of a native session for the first time.

A new one, or one of the agent's own that a client wants to go on with. Then mode, model and config options are set as
the client asked. What the agent does not do is refused in its own words, and there is no session. (ACP protocol version
1, Initialization and Session Setup.)
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import UNSET, Raw

from .acp_session import Told
from .configuring import Wanted, configure
from .envelope import members_of, text_of
from .errors import AgentAuthRequired, InvalidRequest, SessionOpenFailed
from .login import wants_login

if TYPE_CHECKING:
    from .configuring import CallAgent
    from .envelope import Head, Json
    from .login import Login
    from .native import Setup
    from .recovery import Introduced

__all__ = ["introduction", "no_answer", "open_session", "refused"]

OPEN_WITHIN = 60.0
"""Seconds for an agent to open one session: it may start a server or two for it, and load a long conversation."""

MESSAGE_LIMIT = 500
"""Characters of an agent's own words in a refusal."""


def introduction(*, serves_files: bool, serves_terminals: bool) -> dict[str, Json]:
    """How the daemon introduces itself to an agent, as its client.

    Args:
      serves_files, serves_terminals: what the daemon does for agents. A client must offer nothing else.
    """
    return {
        "protocolVersion": 1,
        "clientInfo": {"name": "sandbox-agent", "title": "Sandbox Agent", "version": version("trio-sandbox-agent")},
        "clientCapabilities": {
            "fs": {"readTextFile": serves_files, "writeTextFile": serves_files},
            "terminal": serves_terminals,
            "elicitation": {"form": {}},
        },
    }


async def open_session(agent: str, setup: Setup, introduced: Introduced, login: Login, call: CallAgent) -> str:
    """Open the ACP session as a client asked for it; gives its id.

    Raises:
      AgentAuthRequired, SessionOpenFailed: the agent does not open it.
      InvalidRequest: it has no such mode, model, option, or way to go on with a session.
    """
    method, params = _request(agent, setup, introduced)
    answer = None
    with trio.move_on_after(OPEN_WITHIN):
        answer = await login.ask(call, method, params)
    if answer is None:
        raise no_answer(agent, method, OPEN_WITHIN)
    if wants_login(answer):
        raise AgentAuthRequired(agent, [one.id for one in login.methods])
    if not isinstance(answer.result, Raw):
        raise refused(agent, method, answer)
    id = setup.resume if setup.resume is not None else text_of(members_of(answer.result).get("sessionId"))
    if id is None:
        raise SessionOpenFailed(f"the agent {agent} told no id of the session that it opened")
    wanted, told = Wanted(setup.mode, setup.model, setup.config), Told.of(answer.result)
    if setup.forked_from is not None:
        wanted = wanted.where_told(told)  # it is what the other session has, and the agent may have kept it
    for failed in await configure(id, wanted, told, call):
        raise SessionOpenFailed(failed.reason) if failed.offered else InvalidRequest(failed.reason)
    return id


def _request(agent: str, setup: Setup, introduced: Introduced) -> tuple[str, dict[str, Json]]:
    servers = [] if setup.mcp_servers is UNSET else setup.mcp_servers
    params: dict[str, Json] = {"cwd": setup.cwd or "/", "mcpServers": servers}
    if setup.resume is None:
        return "session/new", params
    params = {"sessionId": setup.resume, **params}
    if introduced.resumes:
        return "session/resume", params
    if introduced.loads:
        return "session/load", params
    raise InvalidRequest(f"the agent {agent} cannot go on with a session: it offers neither resume nor load")


def no_answer(agent: str, method: str, seconds: float) -> SessionOpenFailed:
    """The agent is silent."""
    return SessionOpenFailed(f"the agent {agent} did not answer {method} within {seconds:g} s")


def refused(agent: str, method: str, answer: Head) -> SessionOpenFailed:
    """The agent does not do it, in its own words."""
    told = members_of(answer.error)
    message = (text_of(told.get("message")) or "no reason told")[:MESSAGE_LIMIT]
    error: dict[str, int | str] = {"message": message}
    try:
        error["code"] = msgspec.json.decode(told.get("code", b""), type=int)
    except msgspec.MsgspecError:
        error["code"] = 0
    return SessionOpenFailed(f"the agent {agent} refuses {method}: {message}", error)
