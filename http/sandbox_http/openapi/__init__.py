"""`GET /openapi.json`: every route of the daemon, described beside the code that serves it.

Each family of routes has a module here that exports `OPERATIONS`, one `Operation` for each method and path. To describe
more routes, write such a module and add it to `FAMILIES`:

1. What a body or an answer looks like is a struct that the routes themselves decode or encode, or else a schema by hand
   (`schema`); give one that is used twice, or has a name among people, that name (`Shape`). A struct is called as in
   the code, or else as `components.NAMES` has it.
2. Problems are named as in the table of `sandbox_http.problems`. Those that every operation has are added.
3. A WebSocket is told with the `GET` of its path (`socket`).
4. An example is one that works.

The tests fail for a route that is not described, and for a description without a route.
"""

from __future__ import annotations

from functools import cache

import msgspec
from quart import Blueprint, Response

from . import (
    acp,
    agents,
    archives,
    directory_config,
    files,
    git,
    history,
    init,
    permissions,
    ports,
    processes,
    remote,
    searching,
    sessions,
    system,
    terminals,
    tokens,
    turns,
)
from .document import make_document

__all__ = ["OPERATIONS", "openapi_routes"]

FAMILIES = (
    *(system, init, tokens),
    *(sessions, turns, permissions, history, acp, remote, agents, directory_config),
    *(files, archives, searching, processes, terminals, ports, git),
)

OPERATIONS = tuple(operation for family in FAMILIES for operation in family.OPERATIONS)


def openapi_routes() -> Blueprint:
    """The route of the document."""
    routes = Blueprint("openapi", __name__)

    @routes.get("/openapi.json")
    async def document() -> Response:
        return Response(_text(), content_type="application/json")

    return routes


@cache
def _text() -> bytes:
    return msgspec.json.encode(make_document(OPERATIONS))
