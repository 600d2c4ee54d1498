"""The end of a WebSocket by our hand: over once the client has answered our close frame (RFC 6455, section 7.1.1).

Were the connection closed at once, whatever the client still sends would be answered by a reset, and that overtakes
what it has not read yet: Node.js then never sees the last frames, such as the exit code of a terminal.
"""

from __future__ import annotations

import trio
from quart import websocket

__all__ = ["ANSWER_WITHIN", "close_socket"]

ANSWER_WITHIN = 2.0
"""Seconds that a client has for it. One that is gone, or stalled, takes no longer."""


async def close_socket(code: int, reason: str = "") -> None:
    """Say that the conversation is over, and drop what the client says until it says so, too."""
    await websocket.close(code, reason)
    with trio.move_on_after(ANSWER_WITHIN):
        while True:
            await websocket.receive()  # Quart cancels this task when the connection is over
