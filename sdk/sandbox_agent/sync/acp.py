# Written by scripts/make-sync from ../acp.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.acp`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from ..acp import AcpConnection as AsyncAcpConnection
    from ..acp import AcpStream as AsyncAcpStream
    from ..acp import Envelope
    from ..models import Json
    from ._line import Line


__all__ = ["AcpConnection", "AcpStream"]


class AcpConnection:
    """One agent process, and everybody who speaks to it under this id. Made by `SandboxAgent.acp`."""

    def __init__(self, actual: AsyncAcpConnection, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def id(self) -> str:
        return self._actual.id

    def request(self, method: str, params: Mapping[str, Json] | None = None, *, within: float = math.inf) -> Json:
        """Ask the agent, and wait for its answer; gives the `result`.

        Args:
          within: seconds; a prompt may take long.

        Raises:
          AgentError: the answer is a JSON-RPC error, of the agent or of the server.
          ConnectionFailed: the connection broke. The request goes on: its answer comes in `envelopes`.
          TimeoutError: it took longer.
        """
        return self._line.call(self._actual.request, method, params, within=within)

    def notify(self, method: str, params: Mapping[str, Json] | None = None) -> None:
        """Tell the agent something. Raises `AgentError` where it cannot be passed on."""
        self._line.call(self._actual.notify, method, params)

    def respond(self, id: Json, result: Json = None, *, error: Mapping[str, Json] | None = None) -> None:
        """Answer a request of the agent's, by its id. Raises as `notify`."""
        self._line.call(self._actual.respond, id, result, error=error)

    def envelopes(self) -> AbstractContextManager[AcpStream]:
        """Everything the agent says, from the oldest there is, then as it comes, whatever becomes of connections.

        There is nothing before the first request has named the agent.
        """
        return self._line.enter(self._actual.envelopes(), AcpStream)

    def delete(self) -> None:
        """End the agent, and forget what it said."""
        self._line.call(self._actual.delete)


class AcpStream:
    """An iterator over everything the agent says, answers to requests included. Ended by leaving it."""

    def __init__(self, actual: AsyncAcpStream, line: Line) -> None:
        self._actual = actual
        self._line = line

    def __iter__(self) -> AcpStream:
        return self

    def __next__(self) -> Envelope:
        return self._line.next(self._actual)
