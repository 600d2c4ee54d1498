"""HTTP and WebSocket byte by byte: clients that send what no library would, and show exactly what came back."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import h11
import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = [
    "PROBLEM",
    "UPGRADE",
    "Answer",
    "Closed",
    "Stream",
    "WebSocket",
    "exchange",
    "exchange_bytes",
    "request_bytes",
]

Json: TypeAlias = Any

PROBLEM = "application/problem+json"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The headers of a handshake."""


class Answer(NamedTuple):
    """A response; `complete` is False where the connection ended, or the reader left, in the middle of the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The problem's name; fails where this is no well-formed problem."""
        assert self.headers["content-type"] == PROBLEM, self
        members = self.json
        assert members["status"] == self.status, self
        assert isinstance(members["title"], str), self
        assert isinstance(members["detail"], str), self
        name: str = members["type"]
        assert name.startswith("urn:sandbox-agent:error:"), self
        return name.removeprefix("urn:sandbox-agent:error:")

    @property
    def detail(self) -> str:
        assert self.problem
        detail: str = self.json["detail"]
        return detail


def request_bytes(
    method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, chunk: int = 0
) -> bytes:
    """A request as text, whatever stands in it; with a `Host` unless there is one, and the length of the body.

    Args:
      chunk: bytes of a chunk, for a body whose length is not told beforehand.
    """
    headers = {"Host": "127.0.0.1", **(headers or {})}
    if chunk:
        headers["Transfer-Encoding"] = "chunked"
        pieces = [body[start : start + chunk] for start in range(0, len(body), chunk)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    elif body or method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def exchange(
    port: int,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    chunk: int = 0,
    within: float = 10,
) -> Answer:
    """One request on a connection of its own. Of an answer that does not end, its head."""
    answer = await exchange_bytes(
        port, request_bytes(method, target, headers, body, chunk=chunk), method, within=within
    )
    assert answer is not None, f"no answer to {method} {target}"
    return answer


async def exchange_bytes(port: int, data: bytes, method: str = "GET", *, within: float = 10) -> Answer | None:
    """Send any bytes; gives what came back as the answer to `method`, or None if there was none, or it was no HTTP.

    An event stream and a WebSocket are left after their heads.
    """
    with trio.fail_after(within):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, data)
            answer = await _read_answer(stream, method, _waiting(method))
            nursery.cancel_scope.cancel()
    return answer


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


def _waiting(method: str) -> h11.Connection:
    """The state of a client that has asked, and offered to change the protocol."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Upgrade", "x")]))
    http.send(h11.EndOfMessage())
    return http


async def _read_answer(stream: trio.SocketStream, method: str, http: h11.Connection) -> Answer | None:
    head: h11.Response | None = None
    body = b""
    try:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(1 << 16))
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return _answer(event, b"", complete=False)
            elif isinstance(event, h11.Response):
                head = event
                if b"text/event-stream" in dict(event.headers).get(b"content-type", b"") and method != "HEAD":
                    return _answer(head, b"", complete=False)
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return None if head is None else _answer(head, body, complete=True)
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        return None if head is None else _answer(head, body, complete=False)


def _answer(head: h11.Response | h11.InformationalResponse, body: bytes, *, complete: bool) -> Answer:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Answer(head.status_code, headers, body, complete)


class Closed(NamedTuple):
    """The server has closed the WebSocket; 1006 where it cut the connection."""

    code: int
    reason: str


class WebSocket:
    """A client's end of a WebSocket.

    Attributes:
      refusal: what the server answered in the place of accepting; None once it is open.
      headers: of the answer to the handshake.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.refusal: Answer | None = None
        self.headers: dict[str, str] = {}
        self._stream = stream
        self._connection = Connection(ConnectionType.CLIENT)
        self._text = ""
        self._bytes = b""

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int, target: str, headers: Mapping[str, str] | None = None) -> AsyncGenerator[WebSocket]:
        """Shake hands, or be refused. The connection is cut at the end of the block."""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            socket = cls(stream)
            await stream.send_all(request_bytes("GET", target, {**(headers or {}), **UPGRADE}))
            http = _waiting("GET")
            answer = await _read_answer(stream, "GET", http)
            assert answer is not None, "cut in the middle of the handshake"
            socket.headers = answer.headers
            if answer.status == 101:
                socket._connection.receive_data(http.trailing_data[0])
            else:
                socket.refusal = answer
            yield socket

    async def send(self, message: str | bytes) -> None:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        await self._stream.send_all(self._connection.send(event))

    async def send_json(self, message: Json) -> None:
        await self.send(json.dumps(message))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes that need be no frame."""
        await self._stream.send_all(data)

    async def receive(self) -> str | bytes | Closed:
        """The next whole message, or the end."""
        while True:
            for event in self._connection.events():
                match event:
                    case TextMessage():
                        self._text += event.data
                        if event.message_finished:
                            text, self._text = self._text, ""
                            return text
                    case BytesMessage():
                        self._bytes += event.data
                        if event.message_finished:
                            data, self._bytes = self._bytes, b""
                            return data
                    case Ping() if self._connection.state is ConnectionState.OPEN:
                        await self._stream.send_all(self._connection.send(event.response()))
                    case CloseConnection():
                        with suppress(trio.BrokenResourceError):
                            await self._stream.send_all(self._connection.send(event.response()))
                        return Closed(event.code, event.reason or "")
            try:
                data = await self._stream.receive_some(1 << 16)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return Closed(1006, "cut")
            self._connection.receive_data(data)

    async def receive_json(self) -> Json:
        """The next message, which must be one of JSON."""
        message = await self.receive()
        assert isinstance(message, str), message
        return json.loads(message)

    async def until(self, **members: Json) -> Json:
        """The next message that has these members at its top level."""
        while True:
            message = await self.receive_json()
            if all(message.get(name) == value for name, value in members.items()):
                return message

    async def end(self) -> Closed:
        """How it ends, whatever is said before."""
        while True:
            message = await self.receive()
            if isinstance(message, Closed):
                return message

    async def close(self, code: int = 1000) -> None:
        await self._stream.send_all(self._connection.send(CloseConnection(code)))


class Stream:
    """A response that is read as it comes; what `head` shows of the body is empty."""

    def __init__(self, stream: trio.SocketStream, http: h11.Connection, head: Answer) -> None:
        self.head = head
        self._stream = stream
        self._http = http
        self.body = b""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, port: int, target: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", body: bytes = b""
    ) -> AsyncGenerator[Stream]:
        """Send a request and wait for the head of the answer."""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request_bytes(method, target, headers, body))
            http = _waiting(method)
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(1 << 16))
            assert isinstance(event, h11.Response), event
            yield cls(stream, http, _answer(event, b"", complete=False))

    async def more(self) -> bytes:
        """Some more of the body; empty at its proper end.

        Raises:
          h11.RemoteProtocolError, trio.BrokenResourceError: it was cut.
        """
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some(1 << 16))
            elif isinstance(event, h11.Data):
                self.body += event.data
                return bytes(event.data)
            else:
                return b""

    async def until(self, text: bytes) -> bytes:
        """The whole body so far, as soon as this is in it; fails where it ends before."""
        while text not in self.body:
            assert await self.more(), f"ended before {text!r}: {self.body!r}"
        return self.body

    async def rest(self) -> bytes:
        """The whole body, at its proper end."""
        while await self.more():
            pass
        return self.body
