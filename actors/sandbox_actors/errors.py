"""What the domain refuses, and why: every refusal is an `ActorError`, an answer and no crash.

`name` is the problem's stable name on the wire (`urn:sandbox-agent:error:<name>`). The HTTP layer owns the status and
the title; here stands what a program can act on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from sandbox_supervisor import ActorError, ActorStopped, MailboxFull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox_supervisor import ExitStatus

__all__ = [
    "PROBLEM_PREFIX",
    "AgentAuthRequired",
    "AgentBusy",
    "AgentLimitReached",
    "AgentNotInstalled",
    "AgentNotNamed",
    "AgentProcessExited",
    "AgentStartFailed",
    "AgentUnavailable",
    "ConfigNotFound",
    "IdempotencyConflict",
    "InstallFailed",
    "InstallTrouble",
    "InvalidRequest",
    "JournalUnavailable",
    "NotSupported",
    "Overloaded",
    "PermissionNotFound",
    "PermissionResolved",
    "QueueFull",
    "Refusal",
    "SessionBusy",
    "SessionClosed",
    "SessionConflict",
    "SessionCrashed",
    "SessionExists",
    "SessionNotFound",
    "SessionOpenFailed",
    "ShuttingDown",
    "TurnNotFound",
    "UnsupportedAgent",
    "as_refusal",
]


PROBLEM_PREFIX = "urn:sandbox-agent:error:"

InstallTrouble: TypeAlias = Literal[
    "checksum",
    "disk_full",
    "failed",
    "missing_tool",
    "network",
    "not_found",
    "nothing_to_install",
    "offline",
    "unsafe_archive",
    "unsupported_platform",
    "verification",
]
"""Why an install failed: `not_found`: no such package or version; `nothing_to_install`: the agent has no distribution;
`verification`: what was installed does not answer `initialize`; `failed`: anything else."""


class Refusal(ActorError):
    """The root. The message is a sentence for a person; `retry_after` is in seconds where trying again makes sense."""

    name: ClassVar[str]
    retry_after: float | None = None

    @property
    def type(self) -> str:
        return PROBLEM_PREFIX + self.name

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        """What a program can act on beside the type."""
        return {}


class SessionNotFound(Refusal):
    name = "session_not_found"

    def __init__(self, id: str) -> None:
        super().__init__(f"session not found: {id}")
        self.id = id


class SessionConflict(Refusal):
    """The id is taken by a session with another agent."""

    name = "conflict"

    def __init__(self, id: str, agent: str, requested: str) -> None:
        super().__init__(f"server '{id}' already exists for agent '{agent}'; requested '{requested}'")


class SessionClosed(Refusal):
    """The session was deleted, or the daemon is shutting down, while the request was under way."""

    name = "session_closed"

    def __init__(self) -> None:
        super().__init__("the session was closed")


class ShuttingDown(Refusal):
    name = "shutting_down"
    retry_after = 5.0

    def __init__(self) -> None:
        super().__init__("the daemon is shutting down")


class AgentNotNamed(Refusal):
    """A session is to be made and nobody said with which agent."""

    name = "invalid_request"

    def __init__(self, id: str) -> None:
        super().__init__(f"missing required 'agent' query parameter for first POST to /v1/acp/{id}")


class UnsupportedAgent(Refusal):
    name = "unsupported_agent"

    def __init__(self, agent: str, known: Sequence[str]) -> None:
        super().__init__(f"unsupported agent: {agent}; known agents: {', '.join(known)}")
        self.agent = agent


class AgentNotInstalled(Refusal):
    name = "agent_not_installed"

    def __init__(self, agent: str, how: str) -> None:
        super().__init__(f"agent not installed: {agent}; {how}")
        self.agent = agent


class InstallFailed(Refusal):
    """An agent could not be installed. What was installed before, if anything, is as it was.

    Attributes:
      reason: stable, for programs.
      stderr: the last lines of the tool that failed, without secrets.
    """

    name = "install_failed"

    def __init__(self, agent: str, reason: InstallTrouble, message: str, stderr: Sequence[str] = ()) -> None:
        super().__init__(f"install failed: {agent}: {message}")
        self.agent = agent
        self.reason: InstallTrouble = reason
        self.stderr = list(stderr)

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        # As on the public wire `stderr` is one text, and begins with what went wrong.
        return {"reason": self.reason, "stderr": "\n".join([str(self), *self.stderr])}


class InvalidRequest(Refusal):
    """What is asked for makes no sense. The message says what would."""

    name = "invalid_request"


class ConfigNotFound(Refusal):
    """There is no such entry in a directory's MCP or skills configuration."""

    name = "session_not_found"  # the public wire has no name of its own for it

    def __init__(self, kind: Literal["mcp", "skills"], entry: str) -> None:
        self.id = f"{kind}:{entry}"
        super().__init__(f"session not found: {self.id}")


class AgentStartFailed(Refusal):
    """The agent's process could not be started at all."""

    name = "stream_error"

    def __init__(self, reason: str) -> None:
        super().__init__(f"failed to start agent process: {reason}")


class AgentProcessExited(Refusal):
    """The agent's process ended while it worked on the request. The request is not repeated: it may have acted."""

    name = "agent_process_exited"

    def __init__(self, status: ExitStatus | None, stderr: Sequence[str]) -> None:
        if status is None:
            how = "the agent process could not be brought up"
        elif status.signal is not None:
            how = f"the agent process was ended by signal {status.signal}"
        else:
            how = f"the agent process exited with code {status.code}"
        super().__init__(f"{how} before it answered")
        self.status = status
        self.stderr = list(stderr)

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        details: dict[str, str | int | list[str]] = {}
        if self.status is not None and self.status.code is not None:
            details["exitCode"] = self.status.code
        if self.status is not None and self.status.signal is not None:
            details["signal"] = self.status.signal
        if self.stderr:
            details["stderr"] = self.stderr
        return details


class AgentUnavailable(Refusal):
    """There is no agent process at present: it crashed and will be started again, or it crashed too often."""

    name = "agent_unavailable"

    def __init__(self, reason: str, retry_after: float | None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class AgentBusy(Refusal):
    """The agent does not read what it is sent, or does not answer."""

    name = "agent_busy"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the agent does not keep up: too much is waiting for it")


class AgentLimitReached(Refusal):
    """As many agents run as may, and none of them can be ended for another one."""

    name = "agent_limit"
    retry_after = 5.0

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} agents run already, as many as may, and none of them is idle")


class JournalUnavailable(Refusal):
    """Events cannot be made durable at present, so no new work is taken."""

    name = "journal_unavailable"
    retry_after = 5.0

    def __init__(self, trouble: str) -> None:
        super().__init__(f"events cannot be written to disk ({trouble}); free some space, and try again")


class Overloaded(Refusal):
    """More is asked of the session than it can take in at once."""

    name = "overloaded"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("too many messages wait for the session")


class SessionExists(Refusal):
    """A session is to be made under an id that is taken."""

    name = "conflict"

    def __init__(self, id: str) -> None:
        super().__init__(f"there is already a session {id!r}")


class SessionBusy(Refusal):
    """The agent works, and what is asked for would end that."""

    name = "session_busy"

    def __init__(self) -> None:
        super().__init__("the agent has something to do: cancel it, or wait for its end")


class SessionOpenFailed(Refusal):
    """The agent runs, but does not open the session as it was asked for.

    Attributes:
      error: the agent's own, where it told one.
    """

    name = "session_open_failed"

    def __init__(self, reason: str, error: Mapping[str, int | str] | None = None) -> None:
        super().__init__(reason)
        self.error = error

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        return {} if self.error is None else {f"agent{name.capitalize()}": told for name, told in self.error.items()}


class AgentAuthRequired(Refusal):
    """The agent wants somebody to log in before it opens a session."""

    name = "agent_auth_required"

    def __init__(self, agent: str, methods: Sequence[str]) -> None:
        offered = f"; it offers: {', '.join(methods)}" if methods else ""
        super().__init__(f"the agent {agent} wants a login: give it credentials, or log in with its own tool{offered}")
        self.methods = list(methods)

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        return {"authMethods": self.methods}


class QueueFull(Refusal):
    """As many prompts wait as the session was set up for."""

    name = "queue_full"
    retry_after = 5.0

    def __init__(self, limit: int) -> None:
        super().__init__(f"a turn is running and {limit} prompts wait already: no more are taken at present")


class TurnNotFound(Refusal):
    name = "turn_not_found"

    def __init__(self, id: str) -> None:
        super().__init__(f"turn not found: {id}")


class IdempotencyConflict(Refusal):
    """A key was used before, for something else."""

    name = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(f"the idempotency key {key!r} was used for a different request")


class PermissionNotFound(Refusal):
    name = "permission_not_found"

    def __init__(self, id: str) -> None:
        super().__init__(f"permission not found: {id}")


class PermissionResolved(Refusal):
    """Somebody, or something, else was first."""

    name = "permission_resolved"

    def __init__(self, id: str, outcome: str, by: str, option_id: str | None) -> None:
        super().__init__(f"permission {id} is settled already: {option_id or outcome}, by {by}")
        self.outcome = outcome
        self.by = by
        self.option_id = option_id

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        option: dict[str, str | int | list[str]] = {} if self.option_id is None else {"optionId": self.option_id}
        return {"outcome": self.outcome, "by": self.by, **option}


class NotSupported(Refusal):
    """The agent of this session cannot do that."""

    name = "not_supported"


class SessionCrashed(Refusal):
    """A bug of the daemon's own ended the session while it worked on the request."""

    name = "internal_error"

    def __init__(self) -> None:
        super().__init__("the session failed unexpectedly; the daemon's log says why")


def as_refusal(error: ActorError) -> Refusal:
    """What an actor's answer means on the wire, also where it stems from the ground floor."""
    match error:
        case Refusal():
            return error
        case MailboxFull():
            return Overloaded()
        case ActorStopped():
            return SessionClosed()
        case _:
            return SessionCrashed()
