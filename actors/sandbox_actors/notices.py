"""What the daemon itself tells clients on a session's stream: JSON-RPC notifications beside the agent's own.

`_adapter/...` are those of the public wire, `_sandboxagent/...` are ours. ACP reserves the leading underscore for
extensions, so every client may ignore them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .envelope import notification
from .framing import TooLong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw

    from sandbox_supervisor import ExitStatus

    from .directory_config import Skipped
    from .envelope import Json
    from .recovery import Recovered

__all__ = [
    "agent_exited",
    "agent_failed",
    "agent_restarted",
    "agent_restarting",
    "invalid_stdout",
    "mcp_skipped",
    "request_resolved",
    "session_recovered",
    "turn_failed",
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


def mcp_skipped(skipped: Skipped) -> bytes:
    """An MCP server that is stored for a directory is missing in a session there; `server` is null for all of them."""
    params = {"server": skipped.server, "reason": skipped.reason, "message": skipped.message}
    return notification("_sandboxagent/mcp/skipped", params)


def session_recovered(recovered: Recovered, incarnation: int) -> bytes:
    """How much of an ACP session the new incarnation still knows."""
    params: Mapping[str, Json] = {
        "sessionId": recovered.id,
        "fidelity": recovered.fidelity,
        "incarnation": incarnation,
    }
    return notification("_sandboxagent/session/recovered", params)
