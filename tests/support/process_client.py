"""An application that has processes run: its requests, and the streams it follows them by."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from .wire import Answer, Stream, exchange

if TYPE_CHECKING:
    from .daemon import Daemon

__all__ = ["ProcessClient", "log_bytes", "parse_log_events"]

Json: TypeAlias = Any
EVENT = re.compile(r"event: (\w+)\n(?:id: (\d+)\n)?data: (.*)\n\n")


class ProcessClient:
    """See the module. The caller brings the deadlines."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def ask(self, method: str, path: str, body: Json = None) -> Answer:
        """Any request; paths are those behind `/v1/processes`."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = dict(self.daemon.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await exchange(self.daemon.port, method, f"/v1/processes{path}", headers, data)

    async def get(self, path: str = "") -> Json:
        return _told(await self.ask("GET", path))

    async def post(self, path: str, body: Json = None) -> Json:
        return _told(await self.ask("POST", path, body))

    async def create(self, *argv: str, **more: Json) -> str:
        """The id of a new process."""
        id: str = (await self.post("", {"command": argv[0], "args": argv[1:], **more}))["id"]
        return id

    async def run(self, *argv: str, **more: Json) -> Json:
        return await self.post("/run", {"command": argv[0], "args": argv[1:], **more})

    async def follow(self, id: str, query: str = "") -> list[tuple[str, Json]]:
        """All events of a stream, to its end."""
        target = f"/v1/processes/{id}/logs{query}{'&' if query else '?'}follow=true"
        async with Stream.open(self.daemon.port, target, self.daemon.headers) as stream:
            assert stream.head.status == 200, stream.head
            assert stream.head.headers["content-type"] == "text/event-stream"
            return parse_log_events(await stream.rest())

    async def exited(self, id: str) -> Json:
        """Its record, as soon as it has."""
        await self.follow(id)
        return await self.get(f"/{id}")

    async def output(self, id: str, query: str = "") -> bytes:
        return log_bytes((await self.get(f"/{id}/logs{query}"))["entries"])

    async def until(self, id: str, text: bytes, query: str = "") -> bytes:
        """Wait until it has written this; gives all that it has."""
        target = f"/v1/processes/{id}/logs{query}{'&' if query else '?'}follow=true"
        async with Stream.open(self.daemon.port, target, self.daemon.headers) as stream:
            while True:
                events = parse_log_events(stream.body)
                seen = log_bytes([entry for name, entry in events if name == "log"])
                if text in seen:
                    return seen
                assert await stream.more(), f"ended before {text!r}: {seen!r}"


def parse_log_events(body: bytes) -> list[tuple[str, Json]]:
    """The names and data of the whole events of a stream; those of the log have their numbers as ids."""
    events = [(name, id, json.loads(data)) for name, id, data in EVENT.findall(body.decode())]
    for name, id, data in events:
        assert id == (str(data["sequence"]) if name == "log" else "")
    return [(name, data) for name, _, data in events]


def log_bytes(entries: list[Json]) -> bytes:
    """What was written."""
    return b"".join(base64.b64decode(entry["data"]) for entry in entries)


def _told(answer: Answer) -> Json:
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    return answer.json
