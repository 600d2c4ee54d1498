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

from sandbox_actors.directory_config import stored_servers
from sandbox_actors.envelope import InvalidEnvelope, as_line, decode, error_response
from sandbox_actors.errors import AgentNotNamed, Refusal, as_refusal
from sandbox_actors.messages import Say
from sandbox_supervisor import ActorError

from .numbers import event_number
from .problems import Problem, retry_after
from .requests import accepts, path_part, require_json
from .sockets import converse
from .streams import server_sent_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sandbox_actors.journal import Journal
    from sandbox_actors.sessions import Sessions
    from sandbox_supervisor import Reply

    from .config import Config
    from .streams import Streams

__all__ = ["acp_routes"]

HEAD_WITHIN = 5.0
"""Seconds after which a request that is not answered gets its head and, from then on, blanks: Node's fetch gives up
after 300 s without a head, proxies after 30 to 60 s without a byte. JSON may begin with blanks."""

BLANK_EVERY = 10.0
"""Seconds between two blanks."""

NO_ID = Raw(b"null")
"""The id of the answer to a notification, which has none, that could not be passed on (JSON-RPC 2.0, section 5)."""

GET_WAITS = 1.0
"""Seconds that a stream's request waits for its session: clients send it beside the POST that makes the session."""


class _Timeout(Refusal):
    """The time for requests that the daemon was started with is over. The answer still comes on the streams."""

    name = "timeout"


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
        try:
            session = await sessions.obtain(server, request.args.get("agent"))
        except AgentNotNamed:
            # Clients do not wait for what they notify or answer, so their DELETE may overtake the last of it.
            if head.request_id is None and sessions.was_deleted(server):
                return _empty(202)
            raise
        try:
            servers = await stored_servers(sessions.directory_config, head.method_name, head.params)
            accepted = await session.ref.ask(Say(envelope, head, servers))
        except ActorError as error:
            refusal = as_refusal(error)
            response = _json(error_response(head.request_id or NO_ID, refusal))
            response.headers.update(retry_after(refusal))
            return response
        answer, id = accepted.answer, head.request_id
        if answer is None or id is None:
            return _empty(202)

        async def told() -> bytes:
            envelope = await _told(answer, id)
            await streams.level(session.log)  # whoever has the answer shall have had the updates before it
            return envelope

        return await _answered(told, id, config.request_timeout)

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


def _json(body: bytes | AsyncIterator[bytes]) -> Response:
    return Response(body, content_type="application/json")


async def _answered(told: Callable[[], Awaitable[bytes]], id: Raw, timeout: float | None) -> Response:
    deadline = trio.current_time() + (timeout if timeout is not None else float("inf"))
    with trio.move_on_at(min(deadline, trio.current_time() + HEAD_WITHIN)):
        return _json(await told())
    if trio.current_time() >= deadline:
        return _json(_late(id))

    async def slowly() -> AsyncIterator[bytes]:
        envelope: bytes | None = None
        while envelope is None and trio.current_time() < deadline:
            yield b" "
            with trio.move_on_at(min(deadline, trio.current_time() + BLANK_EVERY)):
                envelope = await told()
        yield envelope if envelope is not None else _late(id)

    response = _json(slowly())
    response.timeout = None
    return response


async def _told(answer: Reply[bytes], id: Raw) -> bytes:
    try:
        return await answer.wait()
    except ActorError as error:
        return error_response(id, as_refusal(error))


def _late(id: Raw) -> bytes:
    return error_response(id, _Timeout("the agent has not answered in time; its answer will come on the event stream"))
