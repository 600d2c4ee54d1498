"""The SDK without async: the same classes and methods, for programs that have no event loop.

    with SandboxAgent.start(LocalProvider()) as sandbox:
        session = sandbox.create_session("claude")
        result = session.prompt("Hello")

One loop runs in a thread of its own for as long as the block does; any thread may use the sandbox. Values, errors and
providers are those of `sandbox_agent`.
"""

from __future__ import annotations

from .callbacks import OnPermission, OnRecovery
from .client import SandboxAgent
from .session import Session
from .store import Store, open_store
from .turn_stream import TurnStream

__all__ = ["OnPermission", "OnRecovery", "SandboxAgent", "Session", "Store", "TurnStream", "open_store"]
