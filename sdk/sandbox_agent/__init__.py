"""Sandbox Agent: run coding agents in a sandbox and drive them from outside.

    async with SandboxAgent.start(LocalProvider()) as sandbox:
        session = await sandbox.create_session("claude")
        result = await session.prompt("Hello")

Works under asyncio and Trio. The `sandbox-agent` command is in `sandbox_agent.cli`. Names are imported when they are
first used: the command needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors, events, models, providers
    from .client import SandboxAgent
    from .errors import AgentError, ApiError, ConnectionFailed, ProviderError, SandboxAgentError, SandboxDestroyed
    from .models import Answer, Permission, PromptResult, SessionInfo
    from .providers.provider import Endpoint, Provider
    from .recovery import Recovery, RecoveryEvent
    from .session import Session
    from .transport import Timeouts
    from .turn_stream import TurnStream

__version__ = "0.1.0"

__all__ = [
    "AgentError",
    "Answer",
    "ApiError",
    "ConnectionFailed",
    "Endpoint",
    "Permission",
    "PromptResult",
    "Provider",
    "ProviderError",
    "Recovery",
    "RecoveryEvent",
    "SandboxAgent",
    "SandboxAgentError",
    "SandboxDestroyed",
    "Session",
    "SessionInfo",
    "Timeouts",
    "TurnStream",
    "__version__",
    "errors",
    "events",
    "models",
    "providers",
]

_WHERE = {
    "AgentError": "errors",
    "Answer": "models",
    "ApiError": "errors",
    "ConnectionFailed": "errors",
    "Endpoint": "providers.provider",
    "Permission": "models",
    "PromptResult": "models",
    "Provider": "providers.provider",
    "ProviderError": "errors",
    "Recovery": "recovery",
    "RecoveryEvent": "recovery",
    "SandboxAgent": "client",
    "SandboxAgentError": "errors",
    "SandboxDestroyed": "errors",
    "Session": "session",
    "SessionInfo": "models",
    "Timeouts": "transport",
    "TurnStream": "turn_stream",
}


def __getattr__(name: str) -> object:
    if name in _WHERE:
        value: object = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    elif name in ("errors", "events", "models", "providers"):
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
