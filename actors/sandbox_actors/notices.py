"""What the daemon itself tells clients on a session's stream: JSON-RPC notifications beside the agent's own.

`_adapter/...` are those of the public wire, `_sandboxagent/...` are ours. ACP reserves the leading underscore for
extensions, so every client may ignore them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from .envelope import notification
from .framing import TooLong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw

    from sandbox_supervisor import ExitStatus

    from .directory_config import Skipped
    from .envelope import Json
    from .native import Setup
    from .native_turns import Turn
    from .permissions.permission import Permission
    from .recovery import Recovered

__all__ = [
    "agent_exited",
    "agent_failed",
    "agent_hibernated",
    "agent_restarted",
    "agent_restarting",
    "context_added",
    "invalid_stdout",
    "mcp_skipped",
    "permission_requested",
    "permission_resolved",
    "request_resolved",
    "session_claimed",
    "session_closed",
    "session_created",
    "session_forked",
    "session_recovered",
    "session_updated",
    "turn_ended",
    "turn_failed",
    "turn_queued",
    "turn_started",
]

RAW_LIMIT = 64 << 10
"""Bytes of an invalid line that are told."""


def invalid_stdout(line: bytes | TooLong, error: str) -> bytes:
    """The agent wrote a line that is no JSON-RPC message."""
    start = line.start if isinstance(line, TooLong) else line[:RAW_LIMIT]
    length = line.length if isinstance(line, TooLong) else len(line)
    params: dict[str, Json] = {"error": error, "raw": start.decode(errors="replace")}
    if length > len(start):
        params["length"] = length
    return notification("_adapter/invalid_stdout", params)


def agent_exited(incarnation: int, status: ExitStatus | None, stderr: tuple[str, ...], reason: str | None) -> bytes:
    """The agent's process has ended. `code` is null where a signal ended it, or where nobody saw how it ended."""
    code = status.code if status is not None else None
    params: dict[str, Json] = {"code": code, "success": code == 0, "incarnation": incarnation}
    if status is not None and status.signal is not None:
        params["signal"] = status.signal
    if stderr:
        params["stderr"] = list(stderr)
    if reason is not None:
        params["reason"] = reason
    return notification("_adapter/agent_exited", params)


def turn_failed(request_id: Raw, session_id: str | None, reason: str) -> bytes:
    """A prompt will never be answered by the agent. It is not repeated: what it did is done."""
    return notification(
        "_sandboxagent/turn/failed", {"requestId": request_id, "sessionId": session_id, "reason": reason}
    )


def request_resolved(request_id: Raw, method: str, outcome: str) -> bytes:
    """A question of the agent's to its clients is settled, nobody needs to answer it any more."""
    return notification(
        "_sandboxagent/request/resolved", {"requestId": request_id, "method": method, "outcome": outcome}
    )


def agent_restarting(incarnation: int, delay: float, crashes: int) -> bytes:
    """The next incarnation starts in `inMs` milliseconds, after so many crashes in a row."""
    params = {"incarnation": incarnation, "inMs": round(delay * 1000), "crashes": crashes}
    return notification("_sandboxagent/agent/restarting", params)


def agent_restarted(incarnation: int) -> bytes:
    """A new incarnation takes prompts."""
    return notification("_sandboxagent/agent/restarted", {"incarnation": incarnation})


def agent_failed(reason: str) -> bytes:
    """The agent crashed too often and is not started again before a client sends `initialize`."""
    return notification("_sandboxagent/agent/failed", {"reason": reason})


def agent_hibernated(reason: str, idle: float) -> bytes:
    """The agent is ended after so many seconds without activity, and started again by the next request."""
    params: dict[str, Json] = {"reason": reason, "idleMs": round(idle * 1000)}
    return notification("_sandboxagent/agent/hibernated", params)


def mcp_skipped(skipped: Skipped) -> bytes:
    """An MCP server that is stored for a directory is missing in a session there; `server` is null for all of them."""
    params = {"server": skipped.server, "reason": skipped.reason, "message": skipped.message}
    return notification("_sandboxagent/mcp/skipped", params)


def session_recovered(recovered: Recovered, incarnation: int) -> bytes:
    """How much of an ACP session the new incarnation still knows."""
    params: dict[str, Json] = {
        "sessionId": recovered.id,
        "fidelity": recovered.fidelity,
        "incarnation": incarnation,
    }
    if recovered.not_set:
        params["notSet"] = list(recovered.not_set)
    return notification("_sandboxagent/session/recovered", params)


def session_created(agent: str, setup: Setup) -> bytes:
    """A client has made the session. Of its variables only the names are told, and of MCP servers nothing."""
    params: dict[str, Json] = {"agent": agent, "cwd": setup.cwd, "env": sorted(setup.env), "tags": setup.tags}
    more = (("title", setup.title), ("resume", setup.resume), ("forkedFrom", setup.forked_from))
    params.update({name: value for name, value in more if value is not None})
    return notification("_sandboxagent/session/created", params)


def session_forked(into: str) -> bytes:
    """Another session goes on from where this one was."""
    return notification("_sandboxagent/session/forked", {"into": into})


def session_updated(changes: Mapping[str, Json], refused: Mapping[str, Json] | None = None) -> bytes:
    """The terms of the session have changed, or the agent has refused to change them."""
    params: dict[str, Json] = {"changes": changes}
    if refused:
        params["refused"] = refused
    return notification("_sandboxagent/session/updated", params)


def session_claimed(generation: int) -> bytes:
    """There is a new owner: from here on, requests of those before are refused."""
    return notification("_sandboxagent/session/claimed", {"generation": generation})


def session_closed() -> bytes:
    """A client has closed the session for good."""
    return notification("_sandboxagent/session/closed", {})


def context_added(session_id: str, request_id: Raw, size: int) -> bytes:
    """The agent has lost the conversation, and gets the transcript of it in front of this prompt."""
    params: dict[str, Json] = {"sessionId": session_id, "requestId": request_id, "bytes": size}
    return notification("_sandboxagent/context/added", params)


def turn_queued(turn: Turn, waiting: int) -> bytes:
    """A prompt was taken; so many wait before it."""
    return notification("_sandboxagent/turn/queued", {"turnId": turn.id, "waiting": waiting})


def turn_started(turn: Turn) -> bytes:
    """A turn's prompt goes to the agent."""
    params = {"turnId": turn.id, "requestId": turn.request_id, "sessionId": turn.acp_session}
    return notification("_sandboxagent/turn/started", params)


def turn_ended(turn: Turn) -> bytes:
    """A turn has its outcome."""
    params: dict[str, Json] = {"turnId": turn.id, "outcome": turn.outcome}
    more = (("stopReason", turn.stop_reason), ("error", turn.error), ("usage", turn.usage))
    params.update({name: value for name, value in more if value is not None})
    if turn.forced:
        params["forced"] = True
    return notification("_sandboxagent/turn/ended", params)


def permission_requested(permission: Permission) -> bytes:
    """The agent has asked for permission, or for something else that a person has to answer."""
    params: dict[str, Json] = {
        "permissionId": permission.id,
        "requestId": permission.request_id,
        "sessionId": permission.session_id,
        "kind": permission.kind,
    }
    if permission.kind == "permission":
        params |= {"options": permission.options, "toolCall": permission.tool_call}
    else:
        params["elicitation"] = permission.elicitation
    return notification("_sandboxagent/permission/requested", {k: v for k, v in params.items() if v is not UNSET})


def permission_resolved(permission: Permission) -> bytes:
    """It is settled: how, and by whom."""
    params: dict[str, Json] = {
        "permissionId": permission.id,
        "requestId": permission.request_id,
        "sessionId": permission.session_id,
        "outcome": permission.outcome,
    }
    if permission.option_id is not None:
        params["optionId"] = permission.option_id
    return notification("_sandboxagent/permission/resolved", {**params, "by": permission.by})
