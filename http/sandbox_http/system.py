"""What the daemon tells of itself: is it alive, does it take work, and what runs in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from quart import Blueprint, Response

from .problems import Problem

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json
    from sandbox_actors.journal import Journal
    from sandbox_supervisor import Node, Snapshot

    from .streams import Streams

__all__ = ["system_routes"]

HEALTHY = b'{"status":"ok"}'


def system_routes(root: Node, journal: Journal, streams: Streams) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("system", __name__)

    @routes.get("/")
    async def about() -> Response:
        return _json(msgspec.json.encode({"docs": "https://sandboxagent.dev", "name": "Sandbox Agent"}))

    @routes.get("/v1/health")
    async def health() -> Response:
        return _json(HEALTHY)

    @routes.get("/v1/ready")
    async def ready() -> Response:
        if streams.draining:
            raise Problem("shutting_down", "the daemon is shutting down")
        if journal.trouble is not None:
            raise Problem("journal_unavailable", f"events cannot be written to disk: {journal.trouble}")
        return _json(b'{"status":"ready"}')

    @routes.get("/v1/supervisor")
    async def tree() -> Response:
        return _json(msgspec.json.encode({"epoch": journal.epoch, "tree": _shown(root.snapshot())}))

    return routes


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")


def _shown(node: Snapshot) -> dict[str, Json]:
    return {
        "name": node.name,
        "kind": node.kind,
        "state": node.state,
        "incarnation": node.incarnation,
        "crashes": node.crashes,
        "sinceMs": node.since_ms,
        "mailbox": node.mailbox,
        "details": dict(node.details),
        "children": [_shown(child) for child in node.children],
    }
