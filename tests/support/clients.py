"""Clients that watch a session: event streams and WebSockets on sockets of their own, and requests over HTTP.

What a client has seen is a list of `Seen`: the number and the very bytes. So two clients compare by `==`, whichever
wire they came by, and a replay compares with what was seen live.
"""

from __future__ import annotations

import json
import re
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import h11
import httpx
import trio
from trio_websocket import ConnectionClosed, connect_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from trio_websocket import WebSocketConnection

    from .daemon import Daemon

__all__ = [
    "EventStream",
    "Json",
    "Seen",
    "Session",
    "StallingSocket",
    "Subscriber",
    "method_of",
    "numbers",
    "parse_events",
    "pid_in",
    "refused",
    "text_of",
    "texts",
]

Json: TypeAlias = Any

READ_SIZE = 256 << 10
COMMENT = re.compile(rb"^:[^\n]*\n\n", re.MULTILINE)
MARK = re.compile(rb'"text":"#(\d+)/\d+ ')
PID = re.compile(rb'\\"pid\\": (\d+)')
TEXT_FRAME = 1
SEQ = re.compile(rb',"seq":(\d+)\}$')


class Seen(NamedTuple):
    """One event as a client got it; `id` is None where it has no number."""

    id: int | None
    data: bytes

    @property
    def message(self) -> Json:
        return json.loads(self.data)


class EventStream:
    """One answer to GET as `text/event-stream`, read only as far as the test reads it.

    Attributes:
      status, headers: of the answer.
    """

    def __init__(
        self, stream: trio.SocketStream, http: h11.Connection, status: int, headers: Mapping[str, str]
    ) -> None:
        self.status = status
        self.headers = headers
        self._stream = stream
        self._http = http
        self._rest = b""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, daemon: Daemon, server: str, after: int | None = None, *, buffer: int | None = None
    ) -> AsyncGenerator[EventStream]:
        """Ask for the events of a session.

        Args:
          after: the `Last-Event-ID`.
          buffer: bytes of the socket's receive buffer, small for a reader that is to stall.
        """
        with _socket(buffer) as connection:
            await connection.connect(("127.0.0.1", daemon.port))
            async with trio.SocketStream(connection) as stream:
                http = h11.Connection(h11.CLIENT)
                headers = {"Host": f"127.0.0.1:{daemon.port}", "Accept": "text/event-stream", **daemon.headers}
                if after is not None:
                    headers["Last-Event-ID"] = str(after)
                request = h11.Request(method="GET", target=f"/v1/acp/{server}", headers=list(headers.items()))
                await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
                while (event := http.next_event()) is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(4096))
                assert isinstance(event, h11.Response)
                told = {name.decode(): value.decode() for name, value in event.headers}
                yield cls(stream, http, event.status_code, told)

    def hurry(self) -> None:
        """Let a small receive buffer be a large one from now on."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_SIZE)

    async def read(self) -> bytes | None:
        """The text of some more whole events, comments left out; None at the end of the stream.

        Raises:
          trio.BrokenResourceError: the connection was cut.
        """
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._stream.receive_some(READ_SIZE)
                try:
                    self._http.receive_data(data)
                    if not data:
                        self._http.next_event()
                except h11.RemoteProtocolError as error:
                    raise trio.BrokenResourceError("cut in the middle") from error
            elif isinstance(event, h11.Data):
                text, end, self._rest = (self._rest + event.data).rpartition(b"\n\n")
                if events := COMMENT.sub(b"", text + end):
                    return events
            else:
                return None


def parse_events(text: bytes) -> list[Seen]:
    """The events of a text that `EventStream.read` gave."""
    return [_parse(block) for block in text.split(b"\n\n")[:-1]]


def _parse(block: bytes) -> Seen:
    lines = block.split(b"\n")
    assert lines[0] == b"event: message", block[:200]
    data = lines[-1].removeprefix(b"data: ")
    return Seen(None if len(lines) == 2 else int(lines[1].removeprefix(b"id: ")), data)


class StallingSocket:
    """The reading half of a WebSocket (RFC 6455, 5.2), without a task that would read ahead of the test."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    def hurry(self) -> None:
        """Let a small receive buffer be a large one from now on."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_SIZE)

    async def read(self) -> list[Seen]:
        """Some more events; what else comes is skipped.

        Raises:
          trio.BrokenResourceError: the connection was cut, or has ended.
        """
        events: list[Seen] = []
        while not events:
            data = await self._stream.receive_some(READ_SIZE)
            if not data:
                raise trio.BrokenResourceError("the connection has ended")
            text, start = self._rest + data, 0
            while (frame := _frame_at(text, start)) is not None:
                opcode, payload, start = frame
                if opcode == TEXT_FRAME:
                    events.append(seen_in_frame(payload))
            self._rest = text[start:]
        return events


def _frame_at(data: bytes, start: int) -> tuple[int, bytes, int] | None:
    """The opcode and payload of the frame that begins there and where it ends; None if it is not whole yet."""
    head, length = start + 2, data[start + 1] if start + 1 < len(data) else 0
    if length in (126, 127):
        head += 2 if length == 126 else 8
        length = int.from_bytes(data[start + 2 : head], "big")
    if head + length > len(data) or start + 2 > len(data) or head > len(data):
        return None
    assert data[start] & 0x80, "a message in fragments"
    return data[start] & 0x0F, data[head : head + length], head + length


class Subscriber:
    """A client that takes down everything it is told.

    Attributes:
      events: what it has seen so far.
      ended: set when the stream has ended, `cut` tells whether without a proper end.
    """

    def __init__(self) -> None:
        self.events: list[Seen] = []
        self.headers: Mapping[str, str] = {}
        self.ended = trio.Event()
        self.cut = False
        self._news = trio.Event()

    @property
    def last(self) -> int:
        """The number of the last numbered event, 0 before the first."""
        return next((event.id for event in reversed(self.events) if event.id is not None), 0)

    def add(self, events: list[Seen]) -> None:
        self.events += events
        self._wake()

    def end(self, *, cut: bool) -> None:
        self.cut = cut
        self.ended.set()
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def until(self, wanted: Callable[[Seen], object], start: int = 0) -> int:
        """Wait for an event, from index `start` on; gives its index. The caller brings the deadline."""
        while True:
            for index in range(start, len(self.events)):
                if wanted(self.events[index]):
                    return index
            start = len(self.events)
            assert not self.ended.is_set(), "the stream ended before that"
            await self._news.wait()

    async def until_method(self, method: str, start: int = 0) -> int:
        """Wait for a notification of this method."""
        name = b'"method":"%b"' % method.encode()
        return await self.until(lambda event: name in event.data and event.message["method"] == method, start)


class Session:
    """One client of one session of a daemon.

    Attributes:
      server: the id in the path.
      acp: the ACP session that `open` has made.
    """

    def __init__(self, daemon: Daemon, server: str = "s") -> None:
        self.daemon = daemon
        self.server = server
        self.acp = ""
        self._numbers = 0

    @property
    def url(self) -> str:
        return f"{self.daemon.url}/v1/acp/{self.server}"

    def envelope(self, method: str, params: Json) -> dict[str, Json]:
        """A request with an id that this client has not used yet."""
        self._numbers += 1
        return {"jsonrpc": "2.0", "id": self._numbers, "method": method, "params": params}

    def next_answer(self) -> bytes:
        """What the agent's answer to this client's next request will hold, and nothing else."""
        return b'"id":%d,"result"' % (self._numbers + 1)

    async def post(self, envelope: Json, agent: str | None = None) -> httpx.Response:
        """Send one envelope on a connection of its own and wait for the answer, however long."""
        async with httpx.AsyncClient(headers=self.daemon.headers, timeout=None, trust_env=False) as client:
            return await client.post(self.url, json=envelope, params={} if agent is None else {"agent": agent})

    async def request(self, method: str, params: Json, agent: str | None = None) -> Json:
        response = await self.post(self.envelope(method, params), agent)
        assert response.status_code == 200, response.text
        return response.json()

    async def open(self, agent: str = "mock") -> None:
        """Make the session, and an ACP session in it."""
        await self.request("initialize", {"protocolVersion": 1}, agent)
        answer = await self.request("session/new", {"cwd": str(self.daemon.home), "mcpServers": []})
        self.acp = answer["result"]["sessionId"]

    async def prompt(self, text: str) -> Json:
        """A whole turn; gives the JSON-RPC answer."""
        return await self.request("session/prompt", self.prompt_params(text))

    def prompt_params(self, text: str) -> Json:
        return {"sessionId": self.acp, "prompt": [{"type": "text", "text": text}]}

    async def delete(self) -> int:
        """Gives the status."""
        async with httpx.AsyncClient(headers=self.daemon.headers, timeout=None, trust_env=False) as client:
            return (await client.delete(self.url)).status_code

    @asynccontextmanager
    async def subscribed(self, after: int | None = None) -> AsyncGenerator[Subscriber]:
        """A subscriber by SSE, for as long as the block runs."""
        subscriber = Subscriber()

        async def listen(stream: EventStream) -> None:
            try:
                while (text := await stream.read()) is not None:
                    subscriber.add(parse_events(text))
            except trio.BrokenResourceError:
                subscriber.end(cut=True)
            else:
                subscriber.end(cut=False)

        async with EventStream.open(self.daemon, self.server, after) as stream, trio.open_nursery() as nursery:
            assert stream.status == 200
            subscriber.headers = stream.headers
            nursery.start_soon(listen, stream)
            yield subscriber
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def connected(self, after: int = 0) -> AsyncGenerator[tuple[WebSocketConnection, Subscriber]]:
        """A subscriber by WebSocket, with its connection to say something on."""
        subscriber = Subscriber()
        async with trio.open_nursery() as nursery:
            connection = await connect_websocket(
                nursery,
                "127.0.0.1",
                self.daemon.port,
                self.socket_path(after),
                use_ssl=False,
                extra_headers=self._socket_headers(),
                max_message_size=64 << 20,
            )
            nursery.start_soon(_listen, connection, subscriber)
            yield connection, subscriber
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def stalling_socket(self, after: int = 0, *, buffer: int) -> AsyncGenerator[StallingSocket]:
        """A WebSocket that takes nothing off its connection unless the test reads."""
        with _socket(buffer) as connection:
            await connection.connect(("127.0.0.1", self.daemon.port))
            async with trio.SocketStream(connection) as stream:
                headers = {
                    "Host": f"127.0.0.1:{self.daemon.port}",
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                    **self.daemon.headers,
                }
                lines = [f"GET {self.socket_path(after)} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
                await stream.send_all("\r\n".join([*lines, "", ""]).encode())
                answer = b""
                while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what follows stays on the connection
                    answer += await stream.receive_some(1)
                assert answer.startswith(b"HTTP/1.1 101 "), answer
                yield StallingSocket(stream)

    def socket_path(self, after: int) -> str:
        return f"/v1/acp/{self.server}?seq=true&after={after}"

    def _socket_headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in self.daemon.headers.items()]

    async def replay(self, last: int, after: int = 0) -> list[Seen]:
        """What a reader that comes later is told, from behind event `after` up to and with event `last`."""
        async with self.subscribed(after) as reader:
            await reader.until(lambda event: event.id is not None and event.id >= last)
        return [event for event in reader.events if event.id is None or event.id <= last]


async def _listen(connection: WebSocketConnection, subscriber: Subscriber) -> None:
    with suppress(ConnectionClosed):
        while True:
            message = await connection.get_message()
            assert isinstance(message, str)
            subscriber.add([seen_in_frame(message.encode())])
    closed = connection.closed
    subscriber.end(cut=closed is None or closed.code == 1006)


def seen_in_frame(frame: bytes) -> Seen:
    """A WebSocket's event, its number taken out again: the bytes that the event stream shows."""
    if (seq := SEQ.search(frame)) is None:
        return Seen(None, frame)
    return Seen(int(seq[1]), frame[: seq.start()] + b"}")


def _socket(buffer: int | None) -> trio.socket.SocketType:
    connection = trio.socket.socket()
    if buffer is not None:
        # Before connecting: the window is negotiated with it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return connection


def method_of(event: Seen) -> str:
    """The method; empty for an answer."""
    method: str = event.message.get("method", "")
    return method


def text_of(event: Seen) -> str:
    """The text of an `agent_message_chunk`; empty for anything else."""
    if b'"agent_message_chunk"' not in event.data:
        return ""
    text: str = event.message["params"]["update"]["content"]["text"]
    return text


def texts(events: list[Seen]) -> str:
    """All that the agent said in these events."""
    return "".join(map(text_of, events))


def numbers(events: list[Seen]) -> list[int]:
    """The `i` of every `#i/N` that `/stream` said, in the order of the events."""
    return [int(mark[1]) for event in events if (mark := MARK.search(event.data))]


def pid_in(event: Seen) -> int:
    """The agent's pid in what `/state` said; 0 in anything else."""
    pid = PID.search(event.data)
    return int(pid[1]) if pid else 0


def refused(answer: Json) -> str:
    """The problem's name in a JSON-RPC error that the daemon gave; empty for anything else."""
    kind: str = answer.get("error", {}).get("data", {}).get("type", "")
    return kind.removeprefix("urn:sandbox-agent:error:")
