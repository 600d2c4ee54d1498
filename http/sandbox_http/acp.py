"""`/v1/acp`: raw ACP over HTTP, as clients of the public 0.4 wire speak it, and a WebSocket on the same path.

What happens while an agent works is no error of HTTP: clients of this wire give up their connection for good at any
status but 2xx. So once an envelope is accepted the answer is 200 and JSON-RPC, whatever became of the agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Raw
from quart import Blueprint, Response, request, websocket

from sandbox_actors.envelope import InvalidEnvelope, as_line, decode, error_response
from sandbox_actors.errors import AgentNotNamed, as_refusal
from sandbox_supervisor import ActorError

from .exchange import Exchange, json_response
from .numbers import event_number
from .problems import Problem, retry_after
from .requests import accepts, path_part, require_json
from .sockets import converse
from .streams import server_sent_events

if TYPE_CHECKING:
    from sandbox_actors.journal import Journal
    from sandbox_actors.sessions import Sessions

    from .config import Config
    from .streams import Streams

__all__ = ["acp_routes"]

NO_ID = Raw(b"null")
"""The id of the answer to a notification, which has none, that could not be passed on (JSON-RPC 2.0, section 5)."""

GET_WAITS = 1.0
"""Seconds that a stream's request waits for its session: clients send it beside the POST that makes the session."""


def acp_routes(sessions: Sessions, journal: Journal, streams: Streams, config: Config) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("acp", __name__)

    @routes.get("/v1/acp")
    async def list_servers() -> Response:
        servers = [
            {
                "serverId": session.log.row.id,
                "agent": session.log.row.agent,
                "createdAtMs": session.log.row.created_ms,
                "status": session.state,
            }
            for session in sessions.all()
        ]
        return Response(msgspec.json.encode({"servers": servers}), content_type="application/json")

    @routes.post("/v1/acp/<server_id>")
    async def post(server_id: str) -> Response:
        server = path_part(server_id, "server_id")
        require_json()
        if not accepts("application/json"):
            raise Problem("not_acceptable", "accept must allow application/json")
        envelope = as_line(bytes(await request.body))
        try:
            head = decode(envelope)
        except InvalidEnvelope as error:
            if str(error) == "not a JSON object":
                raise Problem("invalid_request", "request body must be a JSON-RPC object") from None
            raise Problem("invalid_request", f"invalid JSON body: {error}") from None
        id = head.request_id
        deadline = trio.current_time() + (config.request_timeout or float("inf"))
        exchange = Exchange(sessions, streams, server, request.args.get("agent"), envelope, head, deadline)
        if id is not None and not await exchange.prepared():
            return await exchange.response(id)
        try:
            session = await exchange.obtained()
        except AgentNotNamed:
            # Clients do not wait for what they notify or answer, so their DELETE may overtake the last of it.
            if id is None and sessions.was_deleted(server):
                return _empty(202)
            raise
        try:
            answered = await exchange.said(session)
        except ActorError as error:
            refusal = as_refusal(error)
            response = json_response(error_response(id or NO_ID, refusal))
            response.headers.update(retry_after(refusal))
            return response
        return await exchange.response(id) if answered and id is not None else _empty(202)

    @routes.get("/v1/acp/<server_id>")
    async def events(server_id: str) -> Response:
        if not accepts("text/event-stream"):
            raise Problem("not_acceptable", "accept must allow text/event-stream")
        after = event_number(request.headers.get("Last-Event-ID", ""), "Last-Event-ID")
        session = await sessions.wait_for(path_part(server_id, "server_id"), GET_WAITS)
        cursor = session.log.cursor(session.log.floor - 1 if after is None else after, request.args.get("epoch"))
        body = server_sent_events(cursor, streams, journal.epoch) if request.method == "GET" else b""
        response = Response(body, content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"
        response.headers["Sandbox-Agent-Epoch"] = journal.epoch
        response.timeout = None
        return response

    @routes.delete("/v1/acp/<server_id>")
    async def delete(server_id: str) -> Response:
        await sessions.delete(path_part(server_id, "server_id"))
        return _empty(204)

    @routes.websocket("/v1/acp/<server_id>")
    async def socket(server_id: str) -> Response | None:
        id, agent = path_part(server_id, "server_id"), websocket.args.get("agent")
        after = event_number(websocket.args.get("after", ""), "after")
        session = await (sessions.wait_for(id, GET_WAITS) if agent is None else sessions.obtain(id, agent))
        cursor = session.log.cursor(session.log.head if after is None else after, websocket.args.get("epoch"))
        numbered = websocket.args.get("seq") == "true"
        await converse(session, sessions.directory_config, cursor, streams, journal.epoch, numbered=numbered)
        return None

    return routes


def _empty(status: int) -> Response:
    response = Response(b"", status)
    del response.headers["Content-Type"]
    return response
