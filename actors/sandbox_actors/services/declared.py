"""Which requests of agents a client has said that it serves itself (ACP protocol version 1, Initialization)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..envelope import members_of, text_of

if TYPE_CHECKING:
    from ..memory import Memory

__all__ = ["SERVED", "declared"]

OURSELVES = "sandbox-agent"
"""The name by which the daemon introduces itself to the agent of a native session."""

SERVED = {
    "fs/read_text_file": ("fs", "readTextFile"),
    "fs/write_text_file": ("fs", "writeTextFile"),
    "terminal/create": ("terminal",),
    "terminal/output": ("terminal",),
    "terminal/wait_for_exit": ("terminal",),
    "terminal/kill": ("terminal",),
    "terminal/release": ("terminal",),
}
"""What the daemon can serve, each with the capability of a client that serves it itself."""


def declared(memory: Memory, method: str) -> bool:
    """Whether the client that introduced itself last serves a method. What is said otherwise than so is not said."""
    introduction = members_of(memory.initialize)
    if memory.setup.native and text_of(members_of(introduction.get("clientInfo")).get("name")) == OURSELVES:
        return False
    said = introduction.get("clientCapabilities")
    for name in SERVED[method]:
        said = members_of(said).get(name)
    return said is not None and bytes(said) == b"true"
