"""What the server says no with: one class for each `type` of problem, below one for each way to react."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from .own import SandboxAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AgentAuthRequired",
    "AgentBusy",
    "AgentLimit",
    "AgentNotInstalled",
    "AgentProcessExited",
    "AgentUnavailable",
    "AlreadyInitialized",
    "ApiError",
    "AwaitingInit",
    "BadRequest",
    "Conflict",
    "Forbidden",
    "ForbiddenScope",
    "GitFailed",
    "GitNotInstalled",
    "GitRemoteFailed",
    "IdempotencyConflict",
    "InstallFailed",
    "InsufficientStorage",
    "InternalError",
    "InvalidRequest",
    "JournalUnavailable",
    "NotAcceptable",
    "NotFound",
    "NotSupported",
    "Overloaded",
    "PermissionDenied",
    "PermissionNotFound",
    "PermissionResolved",
    "PortUnreachable",
    "PreconditionFailed",
    "QueueFull",
    "RangeNotSatisfiable",
    "RepositoryNotFound",
    "Restarted",
    "ServerError",
    "ServerTimeout",
    "SessionBusy",
    "SessionClosed",
    "SessionDeleted",
    "SessionNotFound",
    "SessionOpenFailed",
    "ShuttingDown",
    "StaleGeneration",
    "StreamError",
    "TokenInvalid",
    "TurnNotFound",
    "Unauthorized",
    "Unavailable",
    "UnsupportedAgent",
    "UnsupportedMediaType",
    "api_error",
]

PROBLEM_PREFIX = "urn:sandbox-agent:error:"


class ApiError(SandboxAgentError):
    """The server answered with an error.

    Attributes:
      status: of HTTP.
      type: the problem's, without its prefix; empty where the answer was no problem document.
      problem: the whole document.
      retry_after: seconds, where the server said when to try again.
    """

    kind: ClassVar[str] = ""
    """The `type` that a class stands for."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.problem = dict(problem)
        self.type = _name_of(problem)
        self.retry_after = retry_after
        details = self.problem.get("details")
        # "token invalid" is the whole detail on the public wire: what was wrong stands beside it.
        said = cast("dict[str, Any]", details).get("message") if isinstance(details, dict) else None
        detail = self.problem.get("detail")
        text = detail if isinstance(detail, str) and detail else self.problem.get("title") or f"HTTP status {status}"
        super().__init__(f"{text}: {said}" if isinstance(said, str) and said not in str(text) else str(text))

    def __reduce__(self) -> tuple[object, ...]:  # for copies and pickles, which know the message alone
        return type(self), (self.status, self.problem, self.retry_after)


class BadRequest(ApiError):
    """Ask for something else: the same request fails again."""


class InvalidRequest(BadRequest):
    kind = "invalid_request"


class UnsupportedAgent(BadRequest):
    kind = "unsupported_agent"


class NotAcceptable(BadRequest):
    kind = "not_acceptable"


class UnsupportedMediaType(BadRequest):
    kind = "unsupported_media_type"


class RangeNotSatisfiable(BadRequest):
    kind = "range_not_satisfiable"


class IdempotencyConflict(BadRequest):
    """The key was used for a different request."""

    kind = "idempotency_conflict"


class Unauthorized(ApiError):
    """The token is wrong, has ended, or is missing."""


class TokenInvalid(Unauthorized):
    kind = "token_invalid"


class AgentAuthRequired(ApiError):
    """The agent wants a login; `problem["authMethods"]` says which."""

    kind = "agent_auth_required"


class Forbidden(ApiError):
    """The token, or the file system, does not allow it."""


class ForbiddenScope(Forbidden):
    kind = "forbidden_scope"


class PermissionDenied(Forbidden):
    kind = "permission_denied"


class NotFound(ApiError):
    """There is no such thing."""

    kind = "not_found"


class AgentNotInstalled(NotFound):
    kind = "agent_not_installed"


class PermissionNotFound(NotFound):
    kind = "permission_not_found"


class RepositoryNotFound(NotFound):
    kind = "repository_not_found"


class SessionNotFound(NotFound):
    kind = "session_not_found"


class SessionDeleted(SessionNotFound):
    """It was deleted while it was read."""

    kind = ""


class TurnNotFound(NotFound):
    kind = "turn_not_found"


class Conflict(ApiError):
    """Things are not as the request takes them to be: look, then decide."""

    kind = "conflict"


class AlreadyInitialized(Conflict):
    kind = "already_initialized"


class GitFailed(Conflict):
    kind = "git_failed"


class PermissionResolved(Conflict):
    """Somebody was first: `problem["outcome"]`, `problem["by"]`."""

    kind = "permission_resolved"


class Restarted(Conflict):
    kind = "restarted"


class SessionBusy(Conflict):
    kind = "session_busy"


class SessionClosed(Conflict):
    kind = "session_closed"


class StaleGeneration(Conflict):
    """Another owner drives this session now."""

    kind = "stale_generation"


class PreconditionFailed(Conflict):
    kind = "precondition_failed"


class NotSupported(ApiError):
    """The agent, or this machine, cannot do it."""

    kind = "not_supported"


class GitNotInstalled(NotSupported):
    kind = "git_not_installed"


class Unavailable(ApiError):
    """Not now: try again, after `retry_after` seconds where it says so."""


class QueueFull(Unavailable):
    kind = "queue_full"


class AgentBusy(Unavailable):
    kind = "agent_busy"


class AgentUnavailable(Unavailable):
    kind = "agent_unavailable"


class AgentLimit(Unavailable):
    kind = "agent_limit"


class AwaitingInit(Unavailable):
    kind = "awaiting_init"


class JournalUnavailable(Unavailable):
    kind = "journal_unavailable"


class Overloaded(Unavailable):
    kind = "overloaded"


class ShuttingDown(Unavailable):
    kind = "shutting_down"


class ServerError(ApiError):
    """Something failed behind the request."""


class AgentProcessExited(ServerError):
    kind = "agent_process_exited"


class InstallFailed(ServerError):
    kind = "install_failed"


class InternalError(ServerError):
    kind = "internal_error"


class GitRemoteFailed(ServerError):
    kind = "git_remote_failed"


class PortUnreachable(ServerError):
    kind = "port_unreachable"


class SessionOpenFailed(ServerError):
    kind = "session_open_failed"


class StreamError(ServerError):
    kind = "stream_error"


class ServerTimeout(ServerError):
    kind = "timeout"


class InsufficientStorage(ServerError):
    kind = "insufficient_storage"


def api_error(status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> ApiError:
    """The error for an answer: by its problem's type, else by its status."""
    kind = _BY_TYPE.get(_name_of(problem)) or _BY_STATUS.get(status) or (ServerError if status >= 500 else BadRequest)
    return kind(status, problem, retry_after)


def _name_of(problem: Mapping[str, Any]) -> str:
    type = problem.get("type")
    return type.removeprefix(PROBLEM_PREFIX) if isinstance(type, str) else ""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    429: Unavailable,
    501: NotSupported,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
"""Without a type of ours it is something in between that has answered: a gateway whose server is away, say."""


def _leaves(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *(leaf for below in kind.__subclasses__() for leaf in _leaves(below))]


_BY_TYPE: Mapping[str, type[ApiError]] = {leaf.kind: leaf for leaf in _leaves(ApiError) if leaf.kind}
