"""What goes wrong on this side: connections, providers, stores. And the root of all errors."""

from __future__ import annotations

from typing import Any, cast

__all__ = [
    "AgentError",
    "ConnectionFailed",
    "LeaseHeld",
    "LeaseLost",
    "MissingExtra",
    "PersistenceError",
    "ProviderError",
    "RecoveryFailed",
    "RequestTimeout",
    "SandboxAgentError",
    "SandboxDestroyed",
    "StoreUnavailable",
    "UnsupportedByProvider",
    "UnsupportedByServer",
]


class SandboxAgentError(Exception):
    """The root of this package's errors."""


class AgentError(SandboxAgentError):
    """The agent, or the server for it, answered a request with a JSON-RPC error.

    Attributes:
      code, message, data: of the error.
      type: of the problem that the server tells in `data`, without its prefix; empty where the agent itself refused.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        told = cast("dict[str, Any]", data).get("type") if isinstance(data, dict) else None
        self.type = told.rpartition(":")[2] if isinstance(told, str) else ""

    def __reduce__(self) -> tuple[object, ...]:  # for copies and pickles, which know the message alone
        return type(self), (self.code, self.message, self.data)


class UnsupportedByServer(SandboxAgentError):
    """The server at the other end does not have this route; the message says which server has."""


class ConnectionFailed(SandboxAgentError):
    """The server cannot be reached, or the connection broke. The message says where it may have happened."""


class RequestTimeout(ConnectionFailed):
    """No answer came in time."""


class ProviderError(SandboxAgentError):
    """The sandbox could not be made, reached or kept; the message has the provider's own words."""


class MissingExtra(ProviderError):
    """A provider's own package is not installed; the message has the command."""


class UnsupportedByProvider(ProviderError):
    """This provider cannot do it, say pause."""


class SandboxDestroyed(ProviderError):
    """The sandbox is gone for good, with all that was in it."""


class RecoveryFailed(ProviderError):
    """The server does not come back, as often as it was tried."""


class PersistenceError(SandboxAgentError):
    """The application's store refuses, or cannot be used."""


class StoreUnavailable(PersistenceError):
    """It cannot be reached now, or is overloaded, or has no room: try again."""


class LeaseHeld(PersistenceError):
    """Another owner has the lease.

    Attributes:
      owner: who.
      expires_in: seconds until it may be taken, unless it is renewed.
    """

    def __init__(self, message: str, owner: str, expires_in: float) -> None:
        super().__init__(message)
        self.owner = owner
        self.expires_in = expires_in

    def __reduce__(self) -> tuple[object, ...]:  # as `AgentError`
        return type(self), (str(self), self.owner, self.expires_in)


class LeaseLost(PersistenceError):
    """The lease was ours, and is not any more: stop, another owner may act."""
