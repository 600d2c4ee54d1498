"""Request bodies, taken in here because Quart would buffer them without any bound and without pushing back.

Each route that is not streamed gets its whole body as one message, at most `limit` bytes of it; what is longer is
answered with 413 after the rest has been thrown away for a while, so that the client gets to read the answer instead
of a reset connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .admission import is_stranger
from .guard import PROBLEM_TYPE, answer
from .problems import Problem

if TYPE_CHECKING:
    from .guard import ASGIApp, AsgiMessage, Receive, Scope, Send

__all__ = ["BodyLimit"]

DISCARD_WITHIN = 2.0
"""Seconds for which the rest of a body that is too large is read and dropped."""


STALLED_AFTER = 30.0
"""Seconds without a byte after which a body is given up: its sender is gone, and holds memory and a connection."""


STRANGERS_LIMIT = 1 << 20
"""Bytes of a body that comes without a token, on a route that needs none: nobody may fill the memory who has none."""


class BodyLimit:
    """ASGI middleware between the guard and Quart."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = min(self._limit, STRANGERS_LIMIT) if is_stranger(scope) else self._limit
        parts: list[bytes] = []
        read, size = 0, _declared(scope)
        more = True
        while more and size <= limit:
            message: AsgiMessage = None
            with trio.move_on_after(STALLED_AFTER):
                message = await receive()
            if message is None:
                await _refuse(scope, send, _stalled())
                return
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            read += len(parts[-1])
            size = max(size, read)
            more = message.get("more_body", False)
        if size > limit:
            parts.clear()
            with trio.move_on_after(DISCARD_WITHIN):
                while more:
                    more = (await receive()).get("more_body", False)
            await _refuse(scope, send, _too_large(limit))
            return
        body: AsgiMessage | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}
        parts.clear()

        async def whole() -> AsgiMessage:
            nonlocal body
            if body is not None:
                message, body = body, None
                return message
            return await receive()

        await self._app(scope, whole, send)


async def _refuse(scope: Scope, send: Send, problem: Problem) -> None:
    # The connection may hold the rest of the body: it is of no further use.
    await answer(scope, send, problem.status, [PROBLEM_TYPE, (b"connection", b"close")], problem.body)


def _declared(scope: Scope) -> int:
    """The length that the client says the body has; 0 where it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(limit: int) -> Problem:
    return Problem(
        "invalid_request",
        f"the body is larger than {limit} bytes; raise --max-body, or send less",
        status=413,
        title="Payload Too Large",
    )


def _stalled() -> Problem:
    return Problem("timeout", f"nothing of the body came for {STALLED_AFTER:g} s", status=408, title="Request Timeout")
