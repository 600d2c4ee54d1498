"""`/acp` by HTTP: requests go up one by one, all comes down on event streams; and the WebSocket on the same path.

    POST    one envelope. `initialize` makes a connection and is answered at once; all else is 202
    GET     the stream of a connection, or with `Acp-Session-Id` of one of its ACP sessions
    DELETE  ends a connection

Which agent: `?agent=`, else a header `Sandbox-Agent` or `Acp-Agent`, else the daemon's default. A connection gets a
session of its own, or with `?session=` comes to one that is there. What is refused is a problem, never a 202: a client
that reads only the status must not wait for an answer that will not come.

Sources: the RFD "Streamable HTTP & WebSocket Transport" of the Agent Client Protocol, and where it is unclear, what its
SDKs do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import UNSET, Raw
from quart import Blueprint, Response, has_websocket_context, request, websocket

from sandbox_actors.envelope import InvalidEnvelope, as_line, decode, members_of, replace_members
from sandbox_actors.errors import SessionNotFound

from ..admission import granted
from ..exchange import Exchange
from ..numbers import event_number
from ..problems import Problem
from ..requests import accepts, require_json
from .connections import new_id
from .event_stream import events_of, go_on_at
from .feed import Feed
from .socket import converse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.envelope import Head
    from sandbox_actors.journal import Journal
    from sandbox_actors.session import Session
    from sandbox_actors.sessions import Sessions

    from ..config import Config
    from ..streams import Streams
    from .connection import Connection
    from .connections import Connections

__all__ = ["remote_routes"]

CONNECTION = "Acp-Connection-Id"
SESSION = "Acp-Session-Id"


def remote_routes(
    sessions: Sessions, connections: Connections, journal: Journal, streams: Streams, config: Config
) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("remote", __name__)

    @routes.post("/acp")
    async def post() -> Response:
        require_json()
        envelope, head = _envelope(bytes(await request.body))
        if head.method_name == "initialize" and CONNECTION not in request.headers:
            return await introduce(envelope, head)
        connection = _connection(connections)
        with connection.used():
            await connection.say(envelope, head, request.headers.get(SESSION))
        return _empty(202)

    async def introduce(envelope: bytes, head: Head) -> Response:
        own_id = head.request_id
        if own_id is None:
            raise Problem("invalid_request", "initialize must be a request, with an id")
        server, agent, made = _session_wanted(sessions, config)
        connection = connections.open(granted(request.scope).name)

        def met(session: Session) -> None:
            connections.enter(connection, session, made=made)

        def told(answer: bytes) -> bytes:
            if decode(answer).result is UNSET:
                connections.end(connection)
            return _introduction(answer, own_id, connection.id)

        labelled = replace_members(envelope, {"id": connection.label("initialize", None, own_id)})
        deadline = trio.current_time() + (config.request_timeout or float("inf"))
        exchange = Exchange(sessions, streams, server, agent, labelled, decode(labelled), deadline, met, told)
        if await exchange.prepared():
            try:
                await exchange.said(await exchange.obtained())
            except BaseException:
                connections.end(connection)
                raise
        response = await exchange.response(own_id)
        response.headers[CONNECTION] = connection.id
        return response

    @routes.get("/acp")
    async def events() -> Response:
        if not accepts("text/event-stream"):
            raise Problem("not_acceptable", "accept must allow text/event-stream")
        connection = _connection(connections)
        acp_session = request.headers.get(SESSION)
        last_event_id = request.headers.get("Last-Event-ID", "").strip()
        if request.method == "HEAD":
            # It opens no stream: what there is to tell stays with the one that is open, and where that was.
            if acp_session is not None and not connection.knows(acp_session):
                raise SessionNotFound(acp_session)
            return _stream(connection, b"")
        if acp_session is None:
            if last_event_id:
                go_on_at(connection, last_event_id)
            feed = Feed(connection, None, journal.epoch)
        else:
            attachment = connection.follow(acp_session)
            after = event_number(last_event_id, "Last-Event-ID")
            if after is not None:
                attachment.opened[acp_session] = after
            feed = Feed(connection, acp_session, journal.epoch, attachment)
        return _stream(connection, events_of(connection, feed, streams))

    @routes.delete("/acp")
    async def delete() -> Response:
        connections.end(_connection(connections))
        return _empty(202)

    @routes.websocket("/acp")
    async def socket() -> Response | None:
        server, agent, made = _session_wanted(sessions, config)
        connection = connections.open(granted(websocket.scope).name)
        try:
            connections.enter(connection, await sessions.obtain(server, agent), made=made)
            await converse(connection, streams, journal.epoch, {CONNECTION: connection.id})
        finally:
            connections.end(connection)
        return None

    return routes


def _envelope(body: bytes) -> tuple[bytes, Head]:
    envelope = as_line(body)
    if envelope.startswith(b"["):
        raise Problem("not_supported", "batches are not supported: send one envelope at a time")
    try:
        return envelope, decode(envelope)
    except InvalidEnvelope as error:
        raise Problem("invalid_request", f"the body is no JSON-RPC envelope: {error}") from None


def _connection(connections: Connections) -> Connection:
    id = request.headers.get(CONNECTION)
    if id is None:
        raise Problem(
            "invalid_request", f"the header {CONNECTION} is missing: send initialize first, its answer has one"
        )
    connection = connections.get(id)
    if connection is None or connection.owner != granted(request.scope).name:
        raise Problem("not_found", f"there is no connection {id!r}, or not any more: send initialize again")
    return connection


def _session_wanted(sessions: Sessions, config: Config) -> tuple[str, str | None, bool]:
    """The session that a connection comes to, its agent where it may have to be made, and whether it is one of its own.

    Raises:
      Problem: nobody says which agent.
      SessionNotFound: it comes to one that is not there.
    """
    asked = websocket if has_websocket_context() else request
    agent = asked.args.get("agent") or asked.headers.get("Sandbox-Agent") or asked.headers.get("Acp-Agent")
    server = asked.args.get("session")
    if server is not None:
        if agent is None and all(session.log.row.id != server for session in sessions.all()):
            raise SessionNotFound(server)
        return server, agent, False
    agent = agent or config.default_agent
    if agent is None:
        raise Problem("invalid_request", "name the agent: ?agent=, the header Sandbox-Agent, or --default-agent")
    return new_id("acp"), agent, True


def _introduction(answer: bytes, id: Raw, connection: str) -> bytes:
    """The answer to `initialize`, under the client's own id and with the id of the connection."""
    members: dict[str, Raw] = {"id": id}
    result = decode(answer).result
    if isinstance(result, Raw) and members_of(result):
        added = {"connectionId": Raw(msgspec.json.encode(connection))}
        members["result"] = Raw(replace_members(bytes(result), added))
    return replace_members(answer, members)


def _stream(connection: Connection, body: AsyncIterator[bytes] | bytes) -> Response:
    response = Response(body, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"
    response.headers[CONNECTION] = connection.id
    response.timeout = None
    return response


def _empty(status: int) -> Response:
    response = Response(b"", status)
    del response.headers["Content-Type"]
    return response
