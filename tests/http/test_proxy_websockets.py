"""WebSockets to what listens on a port: real ones on both sides of the daemon."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio_websocket import ConnectionClosed, serve_websocket

from support.answering import answering, http
from support.serving import TOKEN, serving
from support.upstreams import port_of, settled, through
from support.wire import Closed, WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from trio_websocket import WebSocketConnection, WebSocketRequest

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")

WITHIN = 15


@asynccontextmanager
async def websockets(talk: Callable[[WebSocketRequest], Awaitable[None]]) -> AsyncGenerator[int]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, talk, "127.0.0.1", 0, ssl_context=None))
        yield int(server.port)
        nursery.cancel_scope.cancel()


async def echo(request: WebSocketRequest) -> None:
    connection = await request.accept(
        subprotocol=request.proposed_subprotocols[0] if request.proposed_subprotocols else None,
        extra_headers=[(b"set-cookie", b"a=1; Path=/")],
    )
    await connection.send_message(repr(sorted(request.headers)))
    with suppress(ConnectionClosed):
        while (message := await connection.get_message()) != "close":
            await connection.send_message(message)
        await connection.aclose(4321, "as you like")


async def test_websockets_go_through_with_subprotocols_both_kinds_of_messages_and_the_close_code(
    tmp_path: Path,
) -> None:
    headers = {"Sec-WebSocket-Protocol": "chat, superchat", "Cookie": "x=y", "Authorization": f"Bearer {TOKEN}"}
    async with websockets(echo) as port, serving(tmp_path, token=TOKEN) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, through(port, "/ws?a=b"), headers) as client:
                assert client.refusal is None
                told = await client.receive()
                assert isinstance(told, str)
                assert "cookie" in told
                assert "authorization" not in told
                for message in ("ein Wört", b"\0\xff" * 100_000, "", "x" * 300_000, b""):
                    await client.send(message)
                    assert await client.receive() == message
                await client.send("close")
                assert await client.receive() == Closed(4321, "as you like")


async def test_subprotocols_without_names_are_left_out(tmp_path: Path) -> None:
    async with websockets(echo) as port, serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            for offered in (",,", "chat,", " , chat"):
                headers = {"Sec-WebSocket-Protocol": offered}
                async with WebSocket.open(daemon.port, through(port), headers) as client:
                    assert client.refusal is None
                    assert await client.receive()


@pytest.mark.parametrize("politely", [True, False])
async def test_a_websocket_whose_client_leaves_is_closed_towards_the_application(
    tmp_path: Path, politely: bool
) -> None:
    ended: list[int] = []
    over = trio.Event()

    async def talk(request: WebSocketRequest) -> None:
        connection: WebSocketConnection = await request.accept()
        await _end(connection)
        assert connection.closed is not None
        ended.append(connection.closed.code)
        over.set()

    async with websockets(talk) as port, serving(tmp_path) as daemon:
        before = await settled(daemon)
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, through(port)) as client:
                if politely:
                    await client.close(1000)
                    await over.wait()
            await over.wait()
        assert ended == [1001]
        await before.back()


async def test_the_last_words_of_an_application_reach_a_client_that_still_talks(tmp_path: Path) -> None:
    closed = trio.Event()

    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message("last words")
        await connection.aclose(4321, "enough")
        closed.set()

    async with websockets(talk) as port, serving(tmp_path) as daemon:
        before = await settled(daemon)
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, through(port)) as client:
                await closed.wait()
                for _ in range(200):
                    await client.send("x" * 10_000)
                assert await client.receive() == "last words"
                assert await client.receive() == Closed(4321, "enough")
            await before.back()


async def test_a_refused_handshake_is_refused_in_the_applications_words(tmp_path: Path) -> None:
    async with (
        answering(http(b"not for you", "text/plain", "418 Teapot")) as (url, _),
        serving(tmp_path) as daemon,
        WebSocket.open(daemon.port, through(port_of(url))) as client,
    ):
        assert client.refusal is not None
        assert (client.refusal.status, client.refusal.body) == (418, b"not for you")


async def test_an_application_that_is_cut_off_closes_the_websocket(tmp_path: Path) -> None:
    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection._stream.aclose()

    async with websockets(talk) as port, serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, through(port)) as client:
                assert await client.receive() == Closed(1011, "the application has gone")


async def test_a_message_that_is_too_large_to_hold_ends_the_websocket(tmp_path: Path) -> None:
    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message("x" * 20_000)
        await _end(connection)

    async with websockets(talk) as port, serving(tmp_path, max_body=10_000) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, through(port)) as client:
                assert await client.receive() == Closed(1009, "a message is larger than 10000 bytes")


async def test_websockets_are_told_of_the_shutdown(tmp_path: Path) -> None:
    end: Closed | None = None

    async def client(port: int, target: int, opened: trio.Event) -> None:
        nonlocal end
        async with WebSocket.open(port, through(target)) as socket:
            await socket.receive()
            opened.set()
            end = await socket.end()

    with trio.fail_after(WITHIN):
        async with websockets(echo) as port, trio.open_nursery() as nursery, serving(tmp_path) as daemon:
            opened = trio.Event()
            nursery.start_soon(client, daemon.port, port, opened)
            await opened.wait()
    assert end == Closed(1001, "the daemon is shutting down")


async def _end(connection: WebSocketConnection) -> None:
    with pytest.raises(ConnectionClosed):
        await connection.get_message()
