"""An application that speaks the native session API."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from .serving import serving
from .wire import Stream, WebSocket, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from .daemon import Daemon
    from .wire import Answer

__all__ = ["SessionClient", "parse_frames", "session_client"]

Json: TypeAlias = Any

WITHIN = 30
"""Seconds for a whole test: agents are real processes."""


class SessionClient:
    """Requests of one application to a daemon.

    Attributes:
      id: the session that is meant where a path begins with a slash.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.id = ""

    def target(self, path: str) -> str:
        return f"/v1/sessions{path}" if not self.id else f"/v1/sessions/{self.id}{path}"

    async def ask(
        self, method: str, path: str, body: Json = None, headers: Mapping[str, str] | None = None, *, raw: bytes = b""
    ) -> Answer:
        """Any request; the answer whatever its status."""
        told = {**self.daemon.headers, **(headers or {})}
        if body is not None or raw:
            told = {"Content-Type": "application/json", **told}
        data = raw if body is None else json.dumps(body).encode()
        return await exchange(self.daemon.port, method, self.target(path), told, data, within=WITHIN)

    async def get(self, path: str = "") -> Json:
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.json

    async def post(self, path: str, body: Json = None, status: int = 200) -> Json:
        answer = await self.ask("POST", path, body)
        assert answer.status == status, answer
        return answer.json

    async def create(self, agent: str = "mock", **members: Json) -> Json:
        """Make a session, and mean it from now on."""
        self.id = ""
        view = await self.post("", {"agent": agent, **members}, 201)
        self.id = view["id"]
        return view

    async def prompt(self, content: Json, **headers: str) -> Json:
        """Have a prompt taken."""
        answer = await self.ask("POST", "/prompt", {"content": content}, headers)
        assert answer.status == 202, answer
        return answer.json

    async def say(self, content: Json) -> Json:
        """Prompt, and wait for what becomes of it."""
        return await self.post("/prompt?wait=true", {"content": content})

    async def events(self, query: str = "") -> Json:
        return await self.get(f"/events{query}")

    def stream(self, query: str = "", **headers: str) -> Any:
        told = {"Accept": "text/event-stream", **self.daemon.headers, **headers}
        return Stream.open(self.daemon.port, self.target(f"/events{query}"), told)

    def socket(self, query: str = "") -> Any:
        return WebSocket.open(self.daemon.port, self.target(f"/events{query}"), self.daemon.headers)


def parse_frames(body: bytes) -> list[Json]:
    """The whole frames of an event stream; each is checked to be told under its own type and number."""
    frames: list[Json] = []
    for block in body.split(b"\n\n")[:-1]:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and not line.startswith(b":"))
        if not fields:
            continue
        frame = json.loads(fields[b"data"])
        assert fields[b"event"].decode() == frame["type"]
        if frame["type"] == "event":
            assert int(fields[b"id"]) == frame["seq"]
        frames.append(frame)
    return frames


@asynccontextmanager
async def session_client(home: Path, **config: Any) -> AsyncGenerator[SessionClient]:
    """An application of a daemon of its own, with a session of the mock agent."""
    with trio.fail_after(WITHIN):
        async with serving(home, **config) as daemon:
            client = SessionClient(daemon)
            await client.create(cwd=str(home))
            yield client
