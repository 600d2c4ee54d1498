"""What Hypercorn, Quart and Trio do unless they are kept from it: one test for each thing that we work round.

A few stand elsewhere: empty binary frames in `test_acp_websocket`, broken input that ends a server in `test_bad_input`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import pytest
import trio

from sandbox_http.config import BadConfig, Config
from sandbox_http.daemon import open_daemon
from sandbox_http.serving import PEER_TIMEOUT_MS, listen
from support.clients import Session
from support.serving import Resources, quart_app, serving
from support.wire import Closed, Stream, WebSocket, exchange, exchange_bytes, request_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.serving import Local

ROOT = Path(__file__).parents[2]
WITHIN = 20
MEBIBYTE = 1 << 20


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset(stream: trio.SocketStream) -> None:
    """Be gone without a word, as a client whose machine has died: nothing more is taken or answered."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()


async def test_accepted_sockets_have_a_deadline_for_peers_that_take_nothing() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            for each in (listener, accepted):
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == PEER_TIMEOUT_MS


@pytest.mark.parametrize("target", ["/v1/acp/s", "/v1/acp/s?after=0"], ids=["SSE", "WebSocket"])
async def test_clients_that_have_stopped_reading_do_not_hold_up_the_shutdown(tmp_path: Path, target: str) -> None:
    before = Resources.now()
    with trio.fail_after(WITHIN + 20):
        async with trio.open_nursery() as nursery:
            raw = trio.socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            async with serving(tmp_path) as daemon:
                session = Session(daemon)
                await session.open()
                await session.prompt("/stream 10000 2000")
                await raw.connect(("127.0.0.1", daemon.port))
                stream = trio.SocketStream(raw)
                shake = {
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                }
                await stream.send_all(request_bytes("GET", target, shake if "after" in target else {}))
                assert b" 200 " in (start := await stream.receive_some(1024)) or b" 101 " in start
                # Another client's whole turn: by then the first one's sends are stuck.
                await session.prompt("/echo still here")
                leaving = time.monotonic()
            assert time.monotonic() - leaving < 5
            await stream.aclose()
            nursery.cancel_scope.cancel()
    await before.back()


@pytest.mark.alone
async def test_uploads_without_a_length_are_cut_at_the_limit_and_never_held_in_memory(tmp_path: Path) -> None:
    piece = b"%x\r\n%b\r\n" % (MEBIBYTE, b"x" * MEBIBYTE)
    head = request_bytes(
        "POST", "/v1/acp/s?agent=mock", {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    )
    async with serving(tmp_path, max_body=2 * MEBIBYTE) as daemon:
        await exchange(daemon.port, "GET", "/v1/health")
        before, highest = resident(), 0
        with trio.fail_after(WITHIN):
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                await stream.send_all(head.replace(b"Content-Length: 0\r\n", b""))
                for _ in range(100):
                    await stream.send_all(piece)
                    highest = max(highest, resident())
                await stream.send_all(b"0\r\n\r\n")
                http = h11.Connection(h11.CLIENT)
                http.receive_data(await stream.receive_some(MEBIBYTE))
                event = http.next_event()
        assert isinstance(event, h11.Response)
        assert event.status_code == 413
        assert highest - before < 24 * MEBIBYTE


async def test_the_rest_of_a_message_that_is_too_large_is_not_held_in_memory(tmp_path: Path) -> None:
    def fragment(opcode: int) -> bytes:
        return bytes([opcode, 0xFF]) + MEBIBYTE.to_bytes(8) + b"\0\0\0\0" + b"x" * MEBIBYTE

    async with serving(tmp_path, max_body=10_000) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as client:
                before, highest = resident(), 0
                await client.send_raw(fragment(1))
                more = fragment(0)
                for _ in range(100):
                    await client.send_raw(more)
                    highest = max(highest, resident())
                assert (await client.end()).code == 1009
        assert highest - before < 24 * MEBIBYTE


async def test_a_body_with_a_length_over_the_limit_is_answered_though_its_sender_still_sends(tmp_path: Path) -> None:
    async with serving(tmp_path, max_body=MEBIBYTE) as daemon:
        answer = await exchange(daemon.port, "POST", "/v1/acp/s", body=b"x" * 20 * MEBIBYTE)
        assert (answer.status, answer.json["title"]) == (413, "Payload Too Large")
        assert str(MEBIBYTE) in answer.detail


async def test_a_socket_whose_client_is_gone_starves_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        before = Resources.now()
        with trio.fail_after(WITHIN):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.prompt, "/stream 1000000000 200")
                for _ in range(3):
                    async with WebSocket.open(daemon.port, "/v1/acp/s?after=0") as gone:
                        assert isinstance(await gone.receive(), str)
                        reset(gone._stream)
                for _ in range(20):
                    with trio.fail_after(2):
                        assert (await exchange(daemon.port, "GET", "/v1/health")).status == 200
                assert (await exchange(daemon.port, "DELETE", "/v1/acp/s")).status == 204
        assert Resources.now().tasks <= before.tasks


async def test_a_client_that_leaves_frames_unread_behind_is_noticed_to_be_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        before = Resources.now()
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s") as gone:
                for number in range(500):
                    await gone.send_json({"jsonrpc": "2.0", "method": f"note-{number}", "params": {}})
                reset(gone._stream)
            await before.back()


async def test_nothing_cuts_streams_and_bodies_after_a_minute(tmp_path: Path) -> None:
    config = quart_app(tmp_path).config
    assert config["RESPONSE_TIMEOUT"] is None
    assert config["BODY_TIMEOUT"] is None
    assert config["MAX_CONTENT_LENGTH"] is None  # bodies are measured before Quart sees them


async def test_streams_and_sockets_are_told_of_the_shutdown_before_they_end(tmp_path: Path) -> None:
    ends: dict[str, object] = {}

    async def stream(daemon: Local, opened: trio.Event) -> None:
        async with Stream.open(daemon.port, "/v1/acp/s") as events:
            opened.set()
            ends["stream"] = (await events.rest()).split(b"\n\n")[-2]

    async def talk(daemon: Local, opened: trio.Event) -> None:
        async with WebSocket.open(daemon.port, "/v1/acp/s") as frames:
            opened.set()
            await frames.until(method="_sandboxagent/daemon/stopping")
            ends["socket"] = await frames.receive()

    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery, serving(tmp_path) as daemon:
            await Session(daemon).open()
            for client in (stream, talk):
                opened = trio.Event()
                nursery.start_soon(client, daemon, opened)
                await opened.wait()
    assert (
        ends["stream"]
        == b'event: message\ndata: {"jsonrpc":"2.0","method":"_sandboxagent/daemon/stopping","params":{}}'
    )
    assert ends["socket"] == Closed(1001, "the daemon is shutting down")


async def test_a_port_in_use_is_a_plain_error(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        config = Config(data_dir=tmp_path / "other", port=daemon.port)
        with pytest.raises(BadConfig, match=f"cannot listen on 127.0.0.1 port {daemon.port}: Address already in use"):
            async with open_daemon(config):
                pass


async def test_a_connection_may_make_as_many_requests_as_it_likes(tmp_path: Path) -> None:
    requests, at_once = 1100, 100  # Hypercorn would close it after 1000
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                for _ in range(requests // at_once):
                    await stream.send_all(request_bytes("GET", "/v1/health") * at_once)
                    answers = b""
                    while answers.count(b'{"status":"ok"}') < at_once:
                        more = await stream.receive_some(1 << 16)
                        assert more, answers[-500:]
                        answers += more
                    assert b"connection:" not in answers.lower()


@pytest.mark.parametrize("target", ["/v1/health", "/v1/nothing"])
async def test_a_connection_that_is_to_be_closed_is_closed_behind_the_answer(tmp_path: Path, target: str) -> None:
    async with serving(tmp_path) as daemon:
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(request_bytes("GET", target, {"Connection": "close"}))
            answer = b""
            with trio.fail_after(WITHIN):
                async for data in stream:  # to the end of the connection
                    answer += data
        assert answer.startswith(b"HTTP/1.1 ")
        assert b"connection: close" in answer.lower()


async def test_connections_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    async def socket_(daemon: Local) -> None:
        async with WebSocket.open(daemon.port, "/v1/acp/s") as client:
            await client.close()

    async def gone(daemon: Local) -> None:
        async with WebSocket.open(daemon.port, "/v1/acp/s"):
            pass

    async def stream(daemon: Local) -> None:
        await exchange(daemon.port, "GET", "/v1/acp/s")

    async def request(daemon: Local) -> None:
        await exchange(daemon.port, "GET", "/v1/health")

    async def noise(daemon: Local) -> None:
        await exchange_bytes(daemon.port, b"\0\r\n\r\n")

    async def cut(daemon: Local) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as half:
            await half.send_all(request_bytes("POST", "/v1/acp/s", {}, b"x" * 100)[:-50])

    clients: list[Callable[[Local], object]] = [socket_, gone, stream, request, noise, cut]
    async with serving(tmp_path) as daemon:
        await Session(daemon).open()
        before = Resources.now()
        for _ in range(5):
            with trio.fail_after(WITHIN):
                async with trio.open_nursery() as nursery:
                    for client in clients * 5:
                        nursery.start_soon(client, daemon)  # type: ignore[arg-type]
        # Left to itself Hypercorn keeps a socket until its next ping, and broken connections for 75 s.
        await before.back(seconds=3)


def test_http_is_the_standard_librarys_wherever_python_is_started() -> None:
    assert not (ROOT / "http" / "__init__.py").exists()
    assert not (ROOT / "tests" / "http" / "__init__.py").exists()
    program = "import http, http.client, sandbox_http; print(http.__file__, sandbox_http.__file__)"
    for where in (ROOT, ROOT / "http", ROOT / "tests"):
        told = subprocess.run([sys.executable, "-c", program], cwd=where, capture_output=True, text=True, check=True)
        standard, ours = map(Path, told.stdout.split())
        assert standard == Path(os.__file__).parent / "http" / "__init__.py"
        assert ours == ROOT / "http" / "sandbox_http" / "__init__.py"
