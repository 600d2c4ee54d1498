"""Every error on the wire, in one table: `application/problem+json` with a stable `type` (RFC 9457).

`type` is `urn:sandbox-agent:error:<name>`. Members beyond the standard ones say what a program can act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from quart import Response

from sandbox_actors.errors import (
    PROBLEM_PREFIX,
    AgentNotInstalled,
    ConfigNotFound,
    InstallFailed,
    Refusal,
    SessionNotFound,
    UnsupportedAgent,
)
from sandbox_actors.processes import ProcessNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_actors.envelope import Json

__all__ = ["TABLE", "Cut", "HttpError", "Problem", "endpoint_not_found", "of_refusal", "retry_after"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One row: status, title, what stands before the message in `detail`, and whether `details.message` repeats it."""

    status: int
    title: str
    before: str = ""
    repeats: bool = False


TABLE: Mapping[str, _Kind] = {
    "invalid_request": _Kind(400, "Invalid Request", "invalid request: "),
    "unsupported_agent": _Kind(400, "Unsupported Agent"),
    "token_invalid": _Kind(401, "Token Invalid", "token invalid", repeats=True),
    "forbidden_scope": _Kind(403, "Forbidden Scope"),
    "permission_denied": _Kind(403, "Permission Denied", "permission denied", repeats=True),
    "agent_not_installed": _Kind(404, "Agent Not Installed"),
    "not_found": _Kind(404, "Not Found", "not found: "),
    "permission_not_found": _Kind(404, "Permission Not Found"),
    "repository_not_found": _Kind(404, "Repository Not Found"),
    "session_not_found": _Kind(404, "Session Not Found"),
    "turn_not_found": _Kind(404, "Turn Not Found"),
    "not_acceptable": _Kind(406, "Not Acceptable", "not acceptable: ", repeats=True),
    "already_initialized": _Kind(409, "Already Initialized"),
    "conflict": _Kind(409, "Conflict", "conflict: ", repeats=True),
    "git_failed": _Kind(409, "Git Failed"),
    "permission_resolved": _Kind(409, "Permission Resolved"),
    "restarted": _Kind(409, "Restarted"),
    "session_busy": _Kind(409, "Session Busy"),
    "session_closed": _Kind(409, "Session Closed"),
    "stale_generation": _Kind(409, "Stale Generation"),
    "precondition_failed": _Kind(412, "Precondition Failed"),
    "unsupported_media_type": _Kind(415, "Unsupported Media Type", "unsupported media type: ", repeats=True),
    "range_not_satisfiable": _Kind(416, "Range Not Satisfiable"),
    "idempotency_conflict": _Kind(422, "Idempotency Conflict"),
    "agent_auth_required": _Kind(424, "Agent Login Required"),
    "queue_full": _Kind(429, "Queue Full"),
    "agent_process_exited": _Kind(500, "Agent Process Exited"),
    "install_failed": _Kind(500, "Install Failed"),
    "internal_error": _Kind(500, "Internal Error"),
    "git_not_installed": _Kind(501, "Git Not Installed"),
    "not_supported": _Kind(501, "Not Supported"),
    "git_remote_failed": _Kind(502, "Git Remote Failed"),
    "port_unreachable": _Kind(502, "Port Unreachable"),
    "session_open_failed": _Kind(502, "Session Open Failed"),
    "stream_error": _Kind(502, "Stream Error", "stream error: ", repeats=True),
    "agent_busy": _Kind(503, "Agent Busy"),
    "agent_unavailable": _Kind(503, "Agent Unavailable"),
    "agent_limit": _Kind(503, "Agent Limit Reached"),
    "awaiting_init": _Kind(503, "Awaiting Init"),
    "journal_unavailable": _Kind(503, "Journal Unavailable"),
    "overloaded": _Kind(503, "Overloaded"),
    "shutting_down": _Kind(503, "Shutting Down"),
    "timeout": _Kind(504, "Timeout"),
    "insufficient_storage": _Kind(507, "Insufficient Storage"),
}


class HttpError(Exception):
    """The root of this package's errors."""


class Cut(HttpError):
    """An answer that has begun cannot be ended: its client is told by the cut connection, and the log by the message.

    Raised by what makes the body of an answer.
    """


class Problem(HttpError):
    """An answer with an error status.

    Args:
      name: a row of the table.
      message: a sentence that says what to do.
      status, title: instead of the table's, where the public wire has it so.
      headers: beside the content type.
      extra: further members, told in alphabetical order.
    """

    def __init__(
        self,
        name: str,
        message: str,
        *,
        status: int | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Json,
    ) -> None:
        super().__init__(message)
        kind = TABLE[name]
        self.status = status or kind.status
        self.headers = dict(headers or {})
        # "token invalid" is the whole detail on the public wire: what was wrong stands in `details` alone.
        bare = kind.before and not kind.before.endswith(": ")
        if kind.repeats:
            extra["details"] = {"message": message}
        self.members: dict[str, Json] = {
            "type": PROBLEM_PREFIX + name,
            "title": title or kind.title,
            "status": self.status,
            "detail": kind.before if bare else kind.before + message,
            **dict(sorted(extra.items())),
        }

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.members)

    def response(self) -> Response:
        response = Response(self.body, self.status, content_type="application/problem+json")
        response.headers.update(self.headers)
        return response


def endpoint_not_found() -> Problem:
    # The public wire names it an invalid request with the status of a missing thing.
    problem = Problem("invalid_request", "endpoint not found", status=404, title="Not Found")
    problem.members["detail"] = "endpoint not found"
    return problem


def retry_after(refusal: Refusal) -> dict[str, str]:
    """The header that tells when to try again; none where that makes no sense (RFC 9110, section 10.2.3)."""
    return {} if refusal.retry_after is None else {"Retry-After": str(max(1, round(refusal.retry_after)))}


def of_refusal(refusal: Refusal) -> Problem:
    """How a refusal of the domain is told where it is the answer to the HTTP request itself."""
    details: dict[str, Json] = dict(refusal.details)
    extra: dict[str, Json] = {"details": details} if isinstance(refusal, (InstallFailed, ProcessNotFound)) else details
    match refusal:
        case SessionNotFound() | ConfigNotFound():
            extra["sessionId"] = refusal.id
        case UnsupportedAgent() | AgentNotInstalled() | InstallFailed():
            extra["agent"] = refusal.agent
        case _:
            pass
    return Problem(refusal.name, str(refusal), headers=retry_after(refusal), **extra)
