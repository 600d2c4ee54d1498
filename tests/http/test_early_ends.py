"""HTTP/2: an answer that comes before its request has ended, or ends early, leaves the connection as it was."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, WindowUpdated

from support.serving import TOKEN, serving
from support.upstreams import through
from support.wire import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

WITHIN = 15
PIECE = 10_000


class Http2:
    """A client's end of a connection.

    Attributes:
      statuses: of the answers, by stream.
      ended, reset: the streams whose answers ended, and those that were cut.
      bodies: of the answers.
      given: bytes of bodies.
      cut: the connection has ended.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.statuses: dict[int, int] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.bodies: dict[int, bytes] = {}
        self.given = 0
        self.cut = False
        self._stream = stream
        self._http = H2Connection(H2Configuration(client_side=True))
        self._changed = trio.lowlevel.ParkingLot()
        self._sending = trio.Lock()

    async def begin(self) -> None:
        self._http.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        async with self._sending:
            if data := self._http.data_to_send():
                await self._stream.send_all(data)

    async def ask(
        self, id: int, method: str, path: str, token: str | None = TOKEN, *, length: int = 0, ends: bool = True
    ) -> None:
        """Send the head of a request."""
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        if length:
            headers.append(("content-length", str(length)))
        self._http.send_headers(id, headers, end_stream=ends)
        await self.flush()

    async def give(self, id: int, size: int) -> None:
        """Send a body, as fast as it is taken."""
        while size:
            while not (room := min(size, PIECE, self._http.local_flow_control_window(id))):
                await self._changed.park()
            size -= room
            self._http.send_data(id, b"x" * room, end_stream=not size)
            await self.flush()
            self.given += room

    async def listen(self) -> None:
        while data := await self._stream.receive_some(1 << 16):
            for event in self._http.receive_data(data):
                match event:
                    case ResponseReceived(stream_id=id, headers=headers):
                        self.statuses[id or 0] = int(dict(headers or [])[b":status"])
                    case DataReceived(stream_id=id, data=body, flow_controlled_length=size):
                        self.bodies[id or 0] = self.bodies.get(id or 0, b"") + (body or b"")
                        self._http.acknowledge_received_data(size or 0, id or 0)
                    case StreamEnded(stream_id=id):
                        self.ended.add(id or 0)
                    case StreamReset(stream_id=id):
                        self.reset.add(id or 0)
                    case WindowUpdated():
                        pass
                    case _:
                        continue
            await self.flush()
            self._changed.unpark_all()
        self.cut = True
        self._changed.unpark_all()

    def heard(self, id: int, text: bytes) -> bool:
        return text in self.bodies.get(id, b"")

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert not self.cut, "the connection has ended"
            await self._changed.park()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Http2]:
    with trio.fail_after(WITHIN):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            client = Http2(stream)
            await client.begin()
            nursery.start_soon(client.listen)
            yield client
            nursery.cancel_scope.cancel()


async def test_a_refused_upload_leaves_the_other_streams_of_its_connection_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN, max_body=1 << 20) as daemon:
        for method, path, token, status in (
            ("POST", "/v1/acp/s?agent=mock", None, 401),
            ("POST", "/v1/nowhere", None, 404),
            ("PUT", "/v1/fs/file?path=relative/of/nothing", "wrong", 401),
            ("POST", "/v1/acp/s?agent=mock", TOKEN, 413),
            ("POST", through(1), TOKEN, 502),
        ):
            async with connected(daemon.port) as client, trio.open_nursery() as nursery:
                await client.ask(1, "GET", f"/v1/fs/watch?path={tmp_path}")
                await client.until(lambda: 1 in client.statuses)
                size = 3 << 20
                await client.ask(3, method, path, token, length=size, ends=False)
                nursery.start_soon(client.give, 3, size)
                await client.until(lambda: 3 in client.ended)
                assert client.statuses[3] == status, (method, path, client.bodies)
                await client.ask(5, "GET", "/v1/health")
                await client.until(lambda: 5 in client.ended)
                assert client.statuses == {1: 200, 3: status, 5: 200}
                (tmp_path / f"seen-{method}-{status}").write_text("")
                mark = f"-{method}-{status}".encode()
                await client.until(partial(client.heard, 1, mark))


async def test_a_stream_whose_token_is_taken_back_is_reset_and_the_others_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        told = {**daemon.headers, "Content-Type": "application/json"}
        made = await exchange(daemon.port, "POST", "/v1/tokens", told, b'{"name":"a","scopes":["read","exec"]}')
        async with connected(daemon.port) as client, trio.open_nursery() as nursery:
            await client.ask(1, "GET", f"/v1/fs/watch?path={tmp_path}", made.json["token"])
            await client.until(lambda: 1 in client.statuses)
            upload = f"/v1/fs/file?path={tmp_path}/half"
            await client.ask(3, "PUT", upload, made.json["token"], length=1 << 30, ends=False)
            nursery.start_soon(client.give, 3, 1 << 30)
            await client.until(lambda: client.given > 1 << 20)
            assert (await exchange(daemon.port, "DELETE", "/v1/tokens/a", told)).status == 204
            await client.until(lambda: 1 in client.reset and 3 in client.ended)
            assert client.statuses == {1: 200, 3: 401}
            await client.ask(5, "GET", "/v1/health")
            await client.until(lambda: 5 in client.ended)
            assert client.statuses[5] == 200
            assert not (tmp_path / "half").exists()
            nursery.cancel_scope.cancel()
