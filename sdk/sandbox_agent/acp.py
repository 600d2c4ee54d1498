"""The raw wire: JSON-RPC envelopes to and from one agent, by `/v1/acp/{id}`, as the public server speaks it as well."""

from __future__ import annotations

import json
import logging
import math
import secrets
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import anyio
import msgspec

from .errors import AgentError, ConnectionFailed, SandboxAgentError
from .following import Following

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from .models import Json
    from .transport import Params, Transport

__all__ = ["AcpConnection", "AcpStream", "Envelope", "open_acp"]

CLOSE_WITHIN = 15.0
"""Seconds for the agent to be ended at the end of the block."""

_log = logging.getLogger("sandbox_agent")


class Envelope(msgspec.Struct, frozen=True, dict=True):
    """What the agent says.

    Attributes:
      id: of the event, for `after`; empty where the server gives none.
      raw: the text as it was.
    """

    id: str
    raw: bytes

    @cached_property
    def message(self) -> dict[str, Json]:
        """The JSON-RPC message."""
        value = json.loads(self.raw)
        return cast("dict[str, Json]", value) if isinstance(value, dict) else {}


class AcpStream:
    """An async iterator over everything the agent says, answers to requests included. Ended by leaving it."""

    def __init__(self, following: Following) -> None:
        self._following = following

    def __aiter__(self) -> AcpStream:
        return self

    async def __anext__(self) -> Envelope:
        frame = await anext(self._following)
        while frame.event != "message" or not frame.data:
            frame = await anext(self._following)
        return Envelope(frame.id, frame.data.encode())


class AcpConnection:
    """One agent process, and everybody who speaks to it under this id. Made by `SandboxAgent.acp`."""

    def __init__(self, transport: Transport, id: str, agent: str | None) -> None:
        self.id = id
        self._transport = transport
        self._agent = agent
        self._path = f"/v1/acp/{quote(id, safe='')}"
        # Others may use the id as well, and the public server takes two requests of one number for the same.
        self._requests = secrets.randbelow(1 << 31)

    async def request(self, method: str, params: Mapping[str, Json] | None = None, *, within: float = math.inf) -> Json:
        """Ask the agent, and wait for its answer; gives the `result`.

        Args:
          within: seconds; a prompt may take long.

        Raises:
          AgentError: the answer is a JSON-RPC error, of the agent or of the server.
          ConnectionFailed: the connection broke. The request goes on: its answer comes in `envelopes`.
          TimeoutError: it took longer.
        """
        self._requests += 1
        message = {"jsonrpc": "2.0", "id": self._requests, "method": method, "params": dict(params or {})}
        with anyio.fail_after(within):
            content = await self._post(message)
        answer = _answer_of(content)
        if answer is None:
            raise ConnectionFailed(f"{method} was taken, its answer comes on the stream alone")
        if (error := answer.get("error")) is not None:
            raise _agent_error(error)
        return answer.get("result")

    async def notify(self, method: str, params: Mapping[str, Json] | None = None) -> None:
        """Tell the agent something. Raises `AgentError` where it cannot be passed on."""
        await self._tell({"jsonrpc": "2.0", "method": method, "params": dict(params or {})})

    async def respond(self, id: Json, result: Json = None, *, error: Mapping[str, Json] | None = None) -> None:
        """Answer a request of the agent's, by its id. Raises as `notify`."""
        said = {"result": result} if error is None else {"error": dict(error)}
        await self._tell({"jsonrpc": "2.0", "id": id, **said})

    @asynccontextmanager
    async def envelopes(self) -> AsyncGenerator[AcpStream]:
        """Everything the agent says, from the oldest there is, then as it comes, whatever becomes of connections.

        There is nothing before the first request has named the agent.
        """
        async with Following(self._transport, self._where) as following:
            yield AcpStream(following)

    async def delete(self) -> None:
        """End the agent, and forget what it said."""
        await self._transport.request("DELETE", self._path)

    def _where(self) -> tuple[str, Params]:
        return self._path, {}

    async def _tell(self, message: Mapping[str, Json]) -> None:
        answer = _answer_of(await self._post(message))
        if answer is not None and (error := answer.get("error")) is not None:
            raise _agent_error(error)

    async def _post(self, message: Mapping[str, Json]) -> bytes:
        # The public server sends nothing while the agent works.
        response = await self._transport.request(
            "POST", self._path, params={"agent": self._agent}, json=message, silence=math.inf
        )
        return response.content


@asynccontextmanager
async def open_acp(
    transport: Transport, id: str, agent: str | None, *, keep: bool, close_within: float = CLOSE_WITHIN
) -> AsyncGenerator[AcpConnection]:
    """A connection, whose agent is ended with the block unless it is to be kept.

    Where it is not ended in time, that is told to the log: what the block has done stays done.
    """
    connection = AcpConnection(transport, id, agent)
    try:
        yield connection
    finally:
        if not keep:
            await _end(connection, close_within)


async def _end(connection: AcpConnection, within: float) -> None:
    with anyio.move_on_after(within, shield=True) as scope:
        try:
            await connection.delete()
        except SandboxAgentError as error:
            _log.warning("the agent of %s may be left: %s", connection.id, error)
    if scope.cancelled_caught:
        # The public server does not answer while the agent lives.
        _log.warning("the agent of %s may be left: its end was not confirmed within %g s", connection.id, within)


def _answer_of(content: bytes) -> dict[str, Json] | None:
    """The JSON-RPC message in an answer's body; None where there is none. Blanks may precede it."""
    if not content.strip():
        return None
    try:
        value: Any = json.loads(content)
    except ValueError as error:
        raise SandboxAgentError(f"the answer is no JSON-RPC message: {error}") from None
    return cast("dict[str, Json]", value) if isinstance(value, dict) else None


def _agent_error(error: Any) -> AgentError:
    members = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": str(error)}
    code = members.get("code")
    return AgentError(code if isinstance(code, int) else 0, str(members.get("message", "")), members.get("data"))
