"""One request through the proxy: streamed both ways at once, a piece at a time, as fast as the slower side.

The body is read to its end whatever becomes of it, in a task of its own that also notices that the client has gone:
Hypercorn's queue holds ten pieces and, once that is full, does not even see the end of the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import trio

from ..body import DISCARD_WITHIN, STALLED_AFTER
from ..guard import PROBLEM_TYPE, answer
from ..problems import Problem
from .headers import has, request_headers, response_headers
from .upstream import TAKES_WITHIN, connect, give

if TYPE_CHECKING:
    from ..guard import AsgiMessage, Receive, Scope, Send
    from ..tokens import Tokens
    from .headers import Target

__all__ = ["Exchange", "refuse"]

READ_SIZE = 64 << 10

LARGEST_HEAD = 128 << 10
"""Bytes of the head of an answer."""


class Exchange:
    """See the module.

    Args:
      tokens: the daemon's own; where none is needed, pages are put into a sandbox.
    """

    def __init__(self, target: Target, tokens: Tokens | None, scope: Scope, receive: Receive, send: Send) -> None:
        self._target = target
        self._tokens = tokens
        self._scope = scope
        self._receive = receive
        self._send = send
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        self._begun = False
        self._ended = False
        self._given = trio.Event()
        self._problem: Problem | None = None

    async def run(self, problem: Problem | None) -> None:
        """Serve the request.

        Args:
          problem: it is to be refused for this.
        """
        self._problem = problem
        first = await self._next()
        if first is None:
            self._given.set()
            await self._refuse()
            return
        if first["type"] == "http.disconnect":
            return
        async with trio.open_nursery() as nursery:
            stream = await self._connect() if problem is None else None
            nursery.start_soon(self._pass_on, stream, first, nursery.cancel_scope)
            if stream is not None:
                async with stream:
                    await self._answer(stream)
            if self._problem is not None and not self._begun:
                await self._refuse()
            nursery.cancel_scope.cancel()

    async def _connect(self) -> trio.SocketStream | None:
        try:
            return await connect(self._target.port)
        except Problem as problem:
            self._problem = problem
            return None

    async def _refuse(self) -> None:
        assert self._problem is not None
        await self._end_of_body()
        self._ended = True
        await refuse(self._scope, self._send, self._problem)

    # The request.

    async def _next(self) -> AsgiMessage | None:
        """The next piece from the client; None where it has stalled."""
        while True:
            with trio.move_on_after(STALLED_AFTER):
                return await self._receive()
            if not self._begun:
                self._problem = Problem(
                    "timeout",
                    f"nothing of the body came for {STALLED_AFTER:g} s",
                    status=408,
                    title="Request Timeout",
                )
                return None

    async def _pass_on(self, stream: trio.SocketStream | None, message: AsgiMessage, scope: trio.CancelScope) -> None:
        """Bring the request to the application; where it takes no more, throw the rest away."""
        head = True
        while True:
            more = message.get("more_body", False)
            if stream is not None:
                try:
                    await give(stream, self._written(message, head=head))
                except h11.LocalProtocolError as error:
                    self._problem = Problem("invalid_request", f"the request cannot be passed on: {error}")
                    await _closed(stream)
                    stream = None
                except trio.TooSlowError:
                    seconds = f"{TAKES_WITHIN:g} s"
                    self._problem = Problem("timeout", f"port {self._target.port} has taken nothing for {seconds}")
                    await _closed(stream)
                    stream = None
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    stream = None  # it may have answered all the same
                head = False
            if not more:
                self._given.set()
                break
            following = await self._next()
            if following is None:
                self._given.set()
                await _closed(stream)
                return
            if following["type"] == "http.disconnect":
                message = following
                break
            message = following
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if not self._ended:  # Hypercorn says it of a whole answer, too, and is not to be interrupted then
            scope.cancel()

    def _written(self, message: AsgiMessage, *, head: bool) -> bytes:
        body, more = message.get("body", b""), message.get("more_body", False)
        data = b""
        if head:
            headers = request_headers(self._scope, self._target, self._tokens)
            headers.append((b"connection", b"close"))
            if (more or body) and not has(headers, b"content-length"):
                headers.append((b"transfer-encoding", b"chunked"))
            request = h11.Request(method=self._scope["method"], target=self._target.path, headers=headers)
            data = self._http.send(request) or b""
        data += self._http.send(h11.Data(data=body)) or b""
        return data if more else data + (self._http.send(h11.EndOfMessage()) or b"")

    async def _end_of_body(self) -> None:
        # A client that still sends would see its connection reset before it reads the answer.
        with trio.move_on_after(DISCARD_WITHIN):
            await self._given.wait()

    # The answer.

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            while not await self._passed(self._http.next_event(), stream):
                pass
        except h11.RemoteProtocolError as error:
            self._fails(f"port {self._target.port} does not answer in HTTP: {error}")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fails(f"what listens on port {self._target.port} closed the connection before it had answered")

    def _fails(self, message: str) -> None:
        # Once the answer has begun only the cut connection can tell that it is not whole.
        if self._problem is None:
            self._problem = Problem("port_unreachable", message, port=self._target.port)

    async def _passed(self, event: object, stream: trio.SocketStream) -> bool:
        """Pass on a piece of the answer. Returns whether it was the last."""
        if event is h11.NEED_DATA:
            self._http.receive_data(await stream.receive_some(READ_SIZE))
        elif event in (h11.PAUSED, h11.ConnectionClosed()):
            raise trio.BrokenResourceError
        elif isinstance(event, h11.Response):
            self._begun = True
            headers = response_headers(event.headers, self._target, sandboxed=self._tokens is None)
            await self._send({"type": "http.response.start", "status": event.status_code, "headers": headers})
        elif isinstance(event, h11.Data):
            await self._send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        elif isinstance(event, h11.EndOfMessage):
            await self._end_of_body()
            await stream.aclose()  # whoever still gives is to throw away instead
            self._ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return True
        return False


async def _closed(stream: trio.SocketStream | None) -> None:
    """Close, which also wakes the reader of the answer: there will be none."""
    if stream is not None:
        await stream.aclose()


async def refuse(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer with a problem. The connection may hold the rest of a body and is of no further use."""
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    if scope["http_version"].startswith("1"):  # HTTP/2 has no such header (RFC 9113, section 8.2.2)
        headers.append((b"connection", b"close"))
    await answer(scope, send, problem.status, [*headers, PROBLEM_TYPE], problem.body)
