"""What requests about sessions, connections and tokens that are made up are kept from doing: see `harmless`.

Agents are processes, so not many are started. What would end a session that others need is done to one of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["INITIALIZE", "SESSION_RULES", "SessionWorld"]

Json: TypeAlias = Any
Case: TypeAlias = Any

SESSIONS = 8
"""That requests to make one may make; further ones ask for a name that is taken."""

KEPT = ("demo", "rested", "asking", "s1")
"""Sessions that stay as they are. Schemathesis has heard of all of them, not only of the one that examples name."""

DOOMED = 2
"""Sessions that may be ended, in each way that there is; and forks."""

CONNECTION = "Acp-Connection-Id"
SESSION = "Acp-Session-Id"

ASKED_WITHIN = 10.0
"""Seconds for the mock agent to ask."""


class SessionWorld:
    """The sessions, connections and tokens that examples name.

    Attributes:
      turn: the id of a turn of the session `demo`.
      connection: the id of one that has come to the session `s1`, which is there.
      acp_session: the id of one of that session's.
      introduced: whether a connection was asked for.
    """

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self._made = self._forks = 0
        self.introduced = False
        self._ended: dict[str, int] = {}
        for name in ("demo", "rested", "asking"):
            self.make(name)
        self.turn = str(self._post("/v1/sessions/demo/prompt?wait=true", {"content": "Hello"})["turnId"])
        self.connection = self.connect()
        self._api.post("/acp", headers={CONNECTION: self.connection}, json=NEW_SESSION).raise_for_status()
        self._until(lambda: self._session("s1")["acpSessionId"] is not None)
        self.acp_session = str(self._session("s1")["acpSessionId"])
        self._post("/v1/sessions/s1/prompt?wait=true", {"content": "Hello"})

    def make(self, name: str) -> str:
        """A session of the mock agent."""
        self._post("/v1/sessions", {"agent": "mock", "id": name})
        return name

    def connect(self) -> str:
        """The id of a connection of its own."""
        answer = self._api.post("/acp", params={"agent": "mock", "session": "s1"}, json=INITIALIZE)
        answer.raise_for_status()
        return str(answer.headers[CONNECTION])

    def next_name(self) -> str:
        """The id of a session that is to be made: a new one, or one that is taken, once there have been enough."""
        self._made += 1
        return f"made-{self._made}" if self._made <= SESSIONS else "demo"

    def doomed(self, how: str) -> str:
        """A session that may be ended in this way; one that is not there, once there have been enough."""
        self._ended[how] = number = self._ended.get(how, 0) + 1
        return self.make(f"{how}-{number}") if number <= DOOMED else "nobody"

    def forked(self) -> str:
        """A session that may be forked; one that is not there, once there are enough of them."""
        self._forks += 1
        return "demo" if self._forks <= DOOMED else "nobody"

    def question(self) -> str:
        """The id of what the agent of `asking` asks."""
        asks = "/v1/sessions/asking/permissions"
        if not self._get(asks)["permissions"]:
            self._post("/v1/sessions/asking/prompt", {"content": "/permission execute: ls"})
            self._until(lambda: self._get(asks)["permissions"] != [])
        return str(self._get(asks)["permissions"][0]["permissionId"])

    def have_token(self) -> None:
        """See to it that there is a token `dashboard`, where there are tokens at all."""
        self._api.post("/v1/tokens", json={"name": "dashboard", "scopes": ["read"]})

    def _session(self, id: str) -> Json:
        return self._get(f"/v1/sessions/{id}")

    def _get(self, path: str) -> Json:
        answer = self._api.get(path)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, body: Json) -> Json:
        answer = self._api.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ASKED_WITHIN
        while not done():
            assert time.monotonic() < deadline, "the mock agent is silent"
            time.sleep(0.01)


INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
NEW_SESSION = {"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}}


def sessions(world: SessionWorld, case: Case) -> None:
    parts = case.path_parameters
    if case.path == "/v1/sessions":
        body: Json = case.body if isinstance(case.body, dict) else {}
        if case.method == "POST" and body.get("agent") == "mock" and _is_id(body.get("id")):
            body["id"] = world.next_name()
        return
    if parts.get("turnId") == "turn_1":
        parts["turnId"] = world.turn
    if parts.get("permissionId") == "perm_1":
        parts |= {"id": "asking", "permissionId": world.question()}
    if parts.get("id") not in KEPT:
        return
    match case.method, case.path.rpartition("/")[2]:
        case "DELETE", _:
            parts["id"] = world.doomed("deleted")
        case _, "close" | "restart" as how:
            parts["id"] = world.doomed(how)
        case _, "fork":
            parts["id"] = world.forked()
        case ("PATCH", _) | (_, "hibernate"):
            parts["id"] = "rested"
        case _:
            pass


def _is_id(given: object) -> bool:
    return given is None or (isinstance(given, str) and 0 < len(given) <= 256)


def remote(world: SessionWorld, case: Case) -> None:
    if case.headers.get(SESSION) == "mock-1":
        case.headers[SESSION] = world.acp_session
    if case.headers.get(CONNECTION) != "acpc_1":
        return
    if case.method == "POST" and case.body == NEW_SESSION and not world.introduced:
        del case.headers[CONNECTION]
        case.body = INITIALIZE
        case.query |= {"agent": "mock", "session": "s1"}
        world.introduced = True
        return
    case.headers[CONNECTION] = world.connect() if case.method == "DELETE" else world.connection
    if case.method == "GET":  # so that there is something to tell
        case.headers.setdefault("Last-Event-ID", "0")


def tokens(world: SessionWorld, case: Case) -> None:
    if case.path_parameters.get("name") == "dashboard":
        world.have_token()
    elif case.path_parameters.get("name") == "default":  # which is our own
        case.path_parameters["name"] = "nobody"


SESSION_RULES: dict[str, Callable[[SessionWorld, Case], None]] = {
    "/v1/sessions": sessions,
    "/acp": remote,
    "/v1/tokens": tokens,
}
