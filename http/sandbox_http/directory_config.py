"""`/v1/config/mcp` and `/v1/config/skills`: what is stored for a directory, as clients of the public wire know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from quart import Blueprint, Response, request

from sandbox_actors.directory_config import MCP, SKILLS, InvalidEntry

from .problems import Problem

if TYPE_CHECKING:
    from sandbox_actors.directory_config import Kind
    from sandbox_actors.envelope import Json
    from sandbox_actors.sessions import Sessions

__all__ = ["directory_config_routes"]

E = TypeVar("E")


def directory_config_routes(sessions: Sessions) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("directory_config", __name__)
    _add(routes, sessions, MCP, "mcpName", "mcp_name")
    _add(routes, sessions, SKILLS, "skillName", "skill_name")
    return routes


def _add(routes: Blueprint, sessions: Sessions, kind: Kind[E], parameter: str, alias: str) -> None:
    path = f"/v1/config/{kind.name}"

    def names() -> tuple[str, str]:
        """The directory and the name of the entry that a request is about."""
        return _named("directory"), _named(parameter, alias)

    @routes.get(path, endpoint=f"get_{kind.name}")
    async def get() -> Response:
        entry = await sessions.directory_config.get(kind, *names())
        return Response(msgspec.json.encode(entry), content_type="application/json")

    @routes.put(path, endpoint=f"put_{kind.name}")
    async def put() -> Response:
        directory, name = names()
        await sessions.directory_config.put(kind, directory, name, _entry(kind, bytes(await request.body)))
        return _empty()

    @routes.delete(path, endpoint=f"delete_{kind.name}")
    async def delete() -> Response:
        await sessions.directory_config.delete(kind, *names())
        return _empty()


def _named(parameter: str, alias: str | None = None) -> str:
    value = request.args.get(parameter)
    if value is None and alias is not None:
        value = request.args.get(alias)
    if value is None or not value.strip():
        raise Problem("invalid_request", f"missing required '{parameter}' query parameter")
    return value


def _entry(kind: Kind[E], body: bytes) -> E:
    if request.mimetype != "application/json":
        raise Problem("unsupported_media_type", "content-type must be application/json")
    try:
        data: Json = msgspec.json.decode(body)
    except (UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
        raise Problem("invalid_request", f"invalid JSON body: {error}") from None
    try:
        return kind.parse(data)
    except InvalidEntry as error:
        raise Problem("invalid_request", str(error), status=422, title="Unprocessable Content") from None


def _empty() -> Response:
    response = Response(b"", 204)
    del response.headers["Content-Type"]
    return response
