"""`/v1/ports`: who listens in the sandbox. What listens is reached through `proxy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from quart import Blueprint, Response, request

from sandbox_actors.ports import Listener, listeners, wait_for_listener

from .problems import Problem

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json

__all__ = ["port_routes"]

LARGEST_PORT = 65535

WAIT_MS = 30_000
LONGEST_WAIT_MS = 600_000


def port_routes() -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("ports", __name__)

    @routes.get("/v1/ports")
    async def list_ports() -> Response:
        server = request.scope["server"]
        own = [] if server is None or server[1] is None else [server[1]]
        found = await listeners(without=own)
        return _json({"ports": [_shown(listener) for listener in found]})

    @routes.get("/v1/ports/<port>/wait")
    async def wait(port: str) -> Response:
        number = _number("the port", port, 1, LARGEST_PORT)
        limit = _number("'timeoutMs'", request.args.get("timeoutMs", str(WAIT_MS)), 0, LONGEST_WAIT_MS)
        return _json(_shown(await wait_for_listener(number, limit / 1000)))

    return routes


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or not least <= int(text) <= most:
        raise Problem("invalid_request", f"{name} must be a number from {least} to {most}")
    return int(text)


def _shown(listener: Listener) -> dict[str, Json]:
    return {
        "port": listener.port,
        "addresses": list(listener.addresses),
        "onLoopback": listener.on_loopback,
        "pid": listener.pid,
        "command": listener.command,
    }


def _json(document: Json) -> Response:
    return Response(msgspec.json.encode(document), content_type="application/json")
