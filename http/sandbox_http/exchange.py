"""One POST of a client: its envelope on the way to the agent, and the answer on the way back, however long it takes.

Node's fetch gives up after 300 s without a head, proxies after 30 to 60 s without a byte. So a request that takes long,
because its agent works or is being installed, gets its head and, from then on, blanks: JSON may begin with blanks. From
there on everything that happens is told by JSON-RPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from quart import Response

from sandbox_actors.directory_config import stored_servers
from sandbox_actors.envelope import error_response
from sandbox_actors.errors import Refusal, as_refusal
from sandbox_actors.messages import Say
from sandbox_supervisor import ActorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from msgspec import Raw

    from sandbox_actors.envelope import Head
    from sandbox_actors.session import Session
    from sandbox_actors.sessions import Sessions
    from sandbox_supervisor import Reply

    from .streams import Streams

__all__ = ["Exchange", "json_response"]

HEAD_WITHIN = 5.0
"""Seconds after which the head is sent."""

BLANK_EVERY = 10.0
"""Seconds between two blanks."""


class _Timeout(Refusal):
    """The time for requests that the daemon was started with is over."""

    name = "timeout"


def _nothing(_: Session) -> None:
    return None


@dataclass(slots=True, eq=False)
class Exchange:
    """See the module.

    Attributes:
      server: the session's id.
      agent: which agent it is to have; None where the client does not say.
      deadline: by when an error is the answer.
      met: told of the session as soon as there is one.
      told: makes the client's answer out of the agent's.
      begun: the session that has the envelope, and what will be its answer.
    """

    sessions: Sessions
    streams: Streams
    server: str
    agent: str | None
    envelope: bytes
    head: Head
    deadline: float
    met: Callable[[Session], None] = _nothing
    told: Callable[[bytes], bytes] = bytes
    begun: tuple[Session, Reply[bytes]] | None = None

    async def prepared(self) -> bool:
        """Have the agent of a new session installed; False where that takes longer than a client waits for a head.

        Raises:
          UnsupportedAgent, AgentNotInstalled, InstallFailed, ShuttingDown.
        """
        if self.agent is None or self.head.request_id is None:
            return True
        with trio.move_on_at(self._by(HEAD_WITHIN)):
            await self.sessions.prepare(self.server, self.agent)
            return True
        return False

    async def obtained(self) -> Session:
        """The session, made if it is new. Raises as `Sessions.obtain`."""
        session = await self.sessions.obtain(self.server, self.agent)
        self.met(session)
        return session

    async def said(self, session: Session) -> bool:
        """Hand the envelope to the session; tell whether there will be an answer.

        Raises:
          ActorError: it is not taken.
        """
        servers = await stored_servers(self.sessions.directory_config, self.head.method_name, self.head.params)
        accepted = await session.ref.ask(Say(self.envelope, self.head, servers))
        if accepted.answer is not None:
            self.begun = session, accepted.answer
        return accepted.answer is not None

    async def response(self, id: Raw) -> Response:
        """The response to a request: its answer, at once or in the end."""
        if self.begun is not None:
            with trio.move_on_at(self._by(HEAD_WITHIN)):
                return json_response(await self._answer(id))
        if trio.current_time() >= self.deadline:
            return json_response(self._late(id))
        response = json_response(self._slowly(id))
        response.timeout = None
        return response

    def _by(self, seconds: float) -> float:
        return min(self.deadline, trio.current_time() + seconds)

    async def _slowly(self, id: Raw) -> AsyncIterator[bytes]:
        envelope: bytes | None = None
        while envelope is None and trio.current_time() < self.deadline:
            yield b" "
            with trio.move_on_at(self._by(BLANK_EVERY)):
                envelope = await self._answer(id)
        yield envelope if envelope is not None else self._late(id)

    async def _answer(self, id: Raw) -> bytes:
        """The answer, or what became of it. May be cancelled and tried again."""
        try:
            if self.begun is None:
                await self.sessions.prepare(self.server, self.agent or "")
                # What is begun must not be begun again. There is nothing left to wait for but a process' start.
                with trio.CancelScope(shield=True):
                    await self.said(await self.obtained())
            assert self.begun is not None, "a request has an answer"
            session, answer = self.begun
            envelope = await answer.wait()
        except ActorError as error:
            return error_response(id, as_refusal(error))
        await self.streams.level(session.log)  # whoever has the answer shall have had the updates before it
        return self.told(envelope)

    def _late(self, id: Raw) -> bytes:
        message = "the agent has not answered in time; its answer will come on the event stream"
        if self.begun is None:
            message = "the agent is still being installed, and the request was not passed on to it; ask again later"
        return error_response(id, _Timeout(message))


def json_response(body: bytes | AsyncIterator[bytes]) -> Response:
    return Response(body, content_type="application/json")
