"""An ACP client on the daemon's HTTP: envelopes out by POST, everything in by one SSE stream."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Client", "Envelope", "RpcError"]

Envelope: TypeAlias = dict[str, Any]


class RpcError(Exception):
    """A JSON-RPC error came for an answer, from the agent or from the daemon in its place."""


class Client:
    """One client of one server. It answers what the agent asks: permissions by `consent`, anything else with a no."""

    def __init__(self, http: httpx.AsyncClient, name: str, server_id: str, agent: str) -> None:
        self.events: list[tuple[int, Envelope]] = []
        """What the stream told, with its numbers; the past first."""
        self.asides: list[Envelope] = []
        """What it told without a number: that is the daemon's word about the stream, and no part of the past."""
        self.asked: list[Envelope] = []
        self.consent = "allow_once"
        """The kind of the option with which a permission request is answered."""
        self.ended = trio.Event()
        """The daemon has ended the stream, properly."""
        self._http = http
        self._path = f"/v1/acp/{server_id}"
        self._agent = agent
        self._ids = (f"{name}-{number}" for number in count(1))  # two clients of one server share its ids
        self._grown = trio.Event()

    async def post(self, envelope: Envelope) -> httpx.Response:
        return await self._http.post(self._path, params={"agent": self._agent}, json={"jsonrpc": "2.0", **envelope})

    async def send(self, envelope: Envelope) -> None:
        response = await self.post(envelope)
        assert response.status_code == 202, response.text

    async def request(self, method: str, **params: object) -> Envelope:
        """Returns once the answer is on the stream as well, so that all that came before it is in `events`."""
        name = next(self._ids)
        response = await self.post({"id": name, "method": method, "params": params})
        assert response.status_code in {200, 202}, response.text
        if response.status_code == 200 and "error" in (answer := response.json()):
            raise RpcError(answer["error"])
        await self.until(lambda: name in self._answers())
        told = self._answers()[name]
        if "result" not in told:
            raise RpcError(told.get("error"))
        result: Envelope = told["result"]
        return result

    def _answers(self) -> dict[object, Envelope]:
        return {event["id"]: event for _, event in self.events if "id" in event and "method" not in event}

    async def connect(self, nursery: trio.Nursery) -> Envelope:
        """`initialize`, whose first POST makes the server, and the stream, which can only be opened after it.

        Returns once the stream has come up to now: on a server with a past it starts with that.
        """
        capabilities = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        params = {"protocolVersion": 1, "clientCapabilities": capabilities}
        name = next(self._ids)
        response = await self.post({"id": name, "method": "initialize", "params": params})
        assert response.status_code == 200, response.text
        nursery.start_soon(self.listen)
        await self.until(lambda: name in self._answers())
        result: Envelope = self._answers()[name]["result"]
        return result

    async def listen(self) -> None:
        """The stream from its very beginning, until the daemon ends it."""
        async with (
            trio.open_nursery() as nursery,
            self._http.stream("GET", self._path, headers={"accept": "text/event-stream"}) as response,
        ):
            assert response.status_code == 200, await response.aread()
            number: int | None = None
            with suppress(httpx.RemoteProtocolError):  # the daemon was killed: then the stream has no end
                async for line in response.aiter_lines():
                    field, _, value = line.partition(": ")
                    if field == "id":
                        number = int(value)
                    elif field == "data":
                        self._take(number, json.loads(value), nursery)
                        number = None
                self.ended.set()

    def _take(self, number: int | None, event: Envelope, nursery: trio.Nursery) -> None:
        if number is None:
            self.asides.append(event)
        else:
            self.events.append((number, event))
        if "id" in event and "method" in event:
            nursery.start_soon(self._reply, event)
        self._grown.set()
        self._grown = trio.Event()

    async def _reply(self, asked: Envelope) -> None:
        if asked["method"] == "session/request_permission":
            self.asked.append(asked["params"])
            option = next(each for each in asked["params"]["options"] if each["kind"] == self.consent)
            outcome = {"outcome": "selected", "optionId": option["optionId"]}
            await self.send({"id": asked["id"], "result": {"outcome": outcome}})
        else:  # opencode asks to write a file though it was told that we cannot
            await self.send({"id": asked["id"], "error": {"code": -32601, "message": "Method not found"}})

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._grown.wait()

    async def prompt(self, session: str, text: str) -> tuple[str, list[str]]:
        """One turn: its stop reason, and what the agent said, chunk by chunk."""
        heard = len(self.events)
        result = await self.request("session/prompt", sessionId=session, prompt=[{"type": "text", "text": text}])
        return result["stopReason"], self.said(heard)

    def said(self, since: int = 0, who: str = "agent_message_chunk") -> list[str]:
        updates = [event["params"]["update"] for _, event in self.events[since:] if "update" in event.get("params", {})]
        return [each["content"]["text"] for each in updates if each["sessionUpdate"] == who]

    def notices(self, method: str) -> list[Envelope]:
        return [event["params"] for _, event in self.events if event.get("method") == method]

    async def cancel(self, session: str) -> None:
        await self.send({"method": "session/cancel", "params": {"sessionId": session}})
