"""A client of the remote transport by HTTP, byte by byte: envelopes up by POST, everything down on event streams."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .wire import Answer, Stream, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .daemon import Daemon

__all__ = ["JSON", "SSE", "Events", "Remote", "Told"]

Json: TypeAlias = Any

JSON = {"Content-Type": "application/json"}
SSE = {"Accept": "text/event-stream"}
EVENT = re.compile(rb"event: message\n(?:id: ([\d-]+)\n)?data: (.*)\n\n")


class Told(NamedTuple):
    """One event of a stream; `id` is empty where it has none."""

    id: str
    message: Json


class Events:
    """An open event stream."""

    def __init__(self, stream: Stream) -> None:
        self.head = stream.head
        self._stream = stream

    @property
    def seen(self) -> list[Told]:
        """What it has told so far."""
        return [Told(id.decode(), json.loads(data)) for id, data in EVENT.findall(self._stream.body)]

    @property
    def text(self) -> str:
        """What the agent has said in it so far, as far as that is text."""
        updates = [told.message["params"]["update"] for told in self.seen if "update" in told.message.get("params", {})]
        return "".join(update["content"]["text"] for update in updates if "text" in update.get("content", {}))

    async def until(self, wanted: Callable[[Json], object]) -> Told:
        """The first event that is wanted, once it is there; fails where the stream ends before."""
        while True:
            for told in self.seen:
                if wanted(told.message):
                    return told
            assert await self._stream.more(), f"ended before that: {self._stream.body!r}"

    async def answer(self, id: Json) -> Json:
        """The answer to a request."""
        return (await self.until(lambda message: "method" not in message and message.get("id") == id)).message

    async def method(self, method: str) -> Json:
        """The first request or notification of a method."""
        return (await self.until(lambda message: message.get("method") == method)).message

    async def end(self) -> None:
        """Read to the proper end."""
        while await self._stream.more():
            pass


class Remote:
    """One connection.

    Attributes:
      id: of the connection.
      introduction: the answer to `initialize`.
    """

    def __init__(self, daemon: Daemon, answer: Answer) -> None:
        assert answer.status == 200, answer
        self.introduction = answer.json
        self.id = answer.headers["acp-connection-id"]
        self._daemon = daemon
        self._numbers = 1

    @classmethod
    async def connect(cls, daemon: Daemon, query: str = "?agent=mock", **headers: str) -> Remote:
        initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
        told = {**daemon.headers, **JSON, **headers}
        body = json.dumps(initialize).encode()
        return cls(daemon, await exchange(daemon.port, "POST", f"/acp{query}", told, body))

    @property
    def headers(self) -> dict[str, str]:
        return {**self._daemon.headers, **JSON, "Acp-Connection-Id": self.id}

    async def post(self, envelope: Json, **headers: str) -> Answer:
        """Send anything."""
        body = envelope if isinstance(envelope, bytes) else json.dumps({"jsonrpc": "2.0", **envelope}).encode()
        return await exchange(self._daemon.port, "POST", "/acp", {**self.headers, **headers}, body)

    async def send(self, method: str, params: Json, id: Json = None) -> Json:
        """Send a request that must be taken; gives its id."""
        if id is None:
            self._numbers += 1
            id = self._numbers
        answer = await self.post({"id": id, "method": method, "params": params})
        assert (answer.status, answer.body) == (202, b""), answer
        return id

    async def notify(self, method: str, params: Json) -> None:
        answer = await self.post({"method": method, "params": params})
        assert (answer.status, answer.body) == (202, b""), answer

    async def reply(self, question: Json, result: Json) -> None:
        answer = await self.post({"id": question["id"], "result": result})
        assert (answer.status, answer.body) == (202, b""), answer

    async def prompt(self, session: str, text: str) -> Json:
        """Send a prompt; gives the request's id."""
        return await self.send("session/prompt", {"sessionId": session, "prompt": [{"type": "text", "text": text}]})

    @asynccontextmanager
    async def events(self, session: str | None = None, after: str | None = None) -> AsyncGenerator[Events]:
        """The stream of the connection, or of one of its ACP sessions, which must open."""
        headers = {**self.headers, **SSE}
        if session is not None:
            headers["Acp-Session-Id"] = session
        if after is not None:
            headers["Last-Event-ID"] = after
        async with Stream.open(self._daemon.port, "/acp", headers) as stream:
            assert stream.head.status == 200, stream.head
            yield Events(stream)

    async def new_session(self) -> str:
        """An ACP session, made on a stream of its own."""
        async with self.events() as events:
            answer = await events.answer(await self.send("session/new", {"cwd": "/", "mcpServers": []}))
        session: str = answer["result"]["sessionId"]
        return session

    async def delete(self) -> Answer:
        return await exchange(self._daemon.port, "DELETE", "/acp", self.headers)
