"""`/v1/ports`: who listens in the sandbox, and the way through to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ports import LARGEST_PORT, LONGEST_WAIT_MS, WAIT_MS
from .answers import document
from .operation import Answer, Body, Operation, Shape, Trouble
from .parameters import part, query
from .schema import COUNT, FLAG, TEXT, integer, items, optional, record
from .troubles import NO_ENDPOINT, OVERLOADED

if TYPE_CHECKING:
    from .operation import Method

__all__ = ["OPERATIONS"]

PORT = part("port", "A TCP port of this sandbox.", integer(1, LARGEST_PORT), example=3000)

LISTENER = Shape(
    "Listener",
    record(
        {
            "port": COUNT,
            "addresses": items(TEXT),
            "onLoopback": FLAG,
            "pid": optional(COUNT),
            "command": optional(TEXT),
        }
    ),
)

PROXY_TROUBLES = (
    NO_ENDPOINT,
    Trouble("timeout", 408),
    Trouble("port_unreachable"),
    OVERLOADED,
    Trouble("timeout"),
)

METHODS: tuple[Method, ...] = ("get", "head", "post", "put", "patch", "delete", "options")

THROUGH = Answer(None, "What the application answers, whatever its status.", {"*/*": None})

SOCKET = "Every message is passed on, both ways, with the subprotocol that the application has chosen."


PREFLIGHT = Answer(200, "The daemon's own answer to a preflight, which is not passed on, or the application's.")


def _through(method: Method) -> Operation:
    return Operation(
        method,
        "/v1/ports/{port}/proxy/{path}",
        f"proxy{method.capitalize()}",
        "ports",
        f"{method.upper()} to the application that listens on a port",
        (THROUGH, PREFLIGHT) if method == "options" else (THROUGH,),
        PROXY_TROUBLES,
        (PORT, part("path", "The path at the application: empty, or any, with slashes.", TEXT, example="index.html")),
        None if method in ("get", "head", "options") else Body({"*/*": None}, "Anything.", required=False),
        "Any other method is passed on as well.",
        SOCKET if method == "get" else "",
    )


OPERATIONS = (
    Operation(
        "get",
        "/v1/ports",
        "listPorts",
        "ports",
        "Who listens",
        (document("By port, without this server's own.", record({"ports": items(LISTENER)})),),
    ),
    Operation(
        "get",
        "/v1/ports/{port}/wait",
        "waitForPort",
        "ports",
        "Wait until somebody listens",
        (document("Who it is.", LISTENER),),
        (Trouble("timeout"),),
        (PORT, query("timeoutMs", "How long.", integer(0, LONGEST_WAIT_MS, WAIT_MS))),
    ),
    Operation(
        "get",
        "/v1/ports/{port}/proxy",
        "proxyRoot",
        "ports",
        "To the first page of the application that listens on a port",
        (Answer(308, "The same with a slash behind it.", headers={"Location": "There."}),),
        PROXY_TROUBLES,
        (PORT,),
        description="Other methods than GET and HEAD, and WebSockets, go to the application's `/`.",
    ),
    *(_through(method) for method in METHODS),
)
