"""Who of a session's owners asks: a number that grows with each of them, see `sandbox_actors.fencing`."""

from __future__ import annotations

from quart import has_websocket_context, request, websocket

from ..numbers import LARGEST
from ..problems import Problem

__all__ = ["GENERATION", "generation"]

GENERATION = "Sandbox-Agent-Generation"

LONGEST = 19
"""Digits of the largest."""


def generation() -> int | None:
    """What the present request names; at a WebSocket's handshake also by the parameter `generation`. None: nothing.

    Raises:
      Problem: it is no positive number.
    """
    socket = has_websocket_context()
    text = (websocket if socket else request).headers.get(GENERATION)
    if text is None and socket:
        text = websocket.args.get("generation")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > LONGEST or not 0 < int(text) <= LARGEST:
        raise Problem("invalid_request", f"{GENERATION} must be a positive integer, up to {LARGEST}")
    return int(text)
