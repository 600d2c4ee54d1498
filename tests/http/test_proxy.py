"""Requests to what listens on a port: real servers on loopback, seen through the daemon."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import h11
import pytest
import trio

from support.answering import answering, http
from support.serving import TOKEN, serving
from support.upstreams import free_port, port_of, settled, through, upstream
from support.wire import Stream, WebSocket, exchange, request_bytes

WITHIN = 15
MEBIBYTE = 1 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# What is passed on.


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
async def test_every_method_goes_through_with_path_and_query_as_they_came(tmp_path: Path, method: str) -> None:
    async with answering(http(b"hello", "text/plain", "203 Fine")) as (url, asked), serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, method, through(port_of(url), "/a%2Fb/../c//d?x=%20&x=1"))
        assert answer.status == 203
        assert answer.body == (b"" if method == "HEAD" else b"hello")
        assert answer.headers["content-type"] == "text/plain"
        assert asked.last[0] == f"{method} /a%2Fb/../c//d?x=%20&x=1 HTTP/1.1"


@pytest.mark.parametrize("chunk", [0, 7])
async def test_bodies_go_through_with_a_length_or_in_chunks(tmp_path: Path, chunk: int) -> None:
    got = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal got
        while not got.endswith((b"the end", b"\r\n0\r\n\r\n")):
            got += await stream.receive_some(65536)
        await stream.send_all(http(b"{}"))

    async with upstream(serve) as port, serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "POST", through(port), {}, b"from the start to the end", chunk=chunk)
        assert answer.json == {}
    head, _, body = got.lower().partition(b"\r\n\r\n")
    assert (b"transfer-encoding: chunked" in head) == bool(chunk)
    assert (b"content-length: 25" in head) != bool(chunk)
    if not chunk:
        assert body == b"from the start to the end"


async def test_without_a_slash_the_client_is_sent_to_the_one_with_it(tmp_path: Path) -> None:
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path) as daemon:
        port = port_of(url)
        answer = await exchange(daemon.port, "GET", through(port, "?a=b"))
        assert (answer.status, answer.headers["location"]) == (308, through(port, "/?a=b"))
        assert (await exchange(daemon.port, "POST", through(port, ""))).status == 200
        assert asked.last[0] == "POST / HTTP/1.1"


async def test_what_listens_on_ipv6_alone_is_found(tmp_path: Path) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(http(b'"six"'))

    async with upstream(serve, host="::1") as port, serving(tmp_path) as daemon:
        assert (await exchange(daemon.port, "GET", through(port))).json == "six"


# Who is let in, and where to.


async def test_the_guard_stands_before_every_port(tmp_path: Path) -> None:
    async with answering(http(b"{}")) as (url, asked):
        port = port_of(url)
        async with serving(tmp_path / "token", token=TOKEN) as daemon:
            for method in ("GET", "POST", "OPTIONS"):
                assert (await exchange(daemon.port, method, through(port))).status == 401
            foreign = {**daemon.headers, "Origin": "https://evil.example"}
            assert (await exchange(daemon.port, "GET", through(port), foreign)).status == 403
            async with WebSocket.open(daemon.port, through(port)) as client:
                assert client.refusal is not None
                assert client.refusal.status == 401
            preflight = {"Access-Control-Request-Method": "PUT", "Origin": f"http://127.0.0.1:{daemon.port}"}
            host = {"Host": f"127.0.0.1:{daemon.port}"}
            assert (await exchange(daemon.port, "OPTIONS", through(port), {**host, **preflight})).status == 200
        async with serving(tmp_path / "open") as daemon:
            answer = await exchange(daemon.port, "GET", through(port), {"Host": "rebound.example"})
            assert answer.problem == "permission_denied"
        assert asked == []


@pytest.mark.parametrize("kind", ["GET", "POST", "WebSocket"])
async def test_our_own_port_is_refused(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as daemon:
        target = through(daemon.port, "/v1/health")
        if kind == "WebSocket":
            async with WebSocket.open(daemon.port, target) as client:
                answer = client.refusal
        else:
            answer = await exchange(daemon.port, kind, target, body=b"x" * 2 * MEBIBYTE if kind == "POST" else b"")
        assert answer is not None
        assert (answer.status, answer.problem) == (403, "permission_denied")


@pytest.mark.parametrize(
    ("port", "status"),
    [
        ("0", 400),
        ("65536", 400),
        ("99999999999999999999", 400),
        ("00000000022", 400),
        ("-1", 404),
        ("localhost", 404),
        ("127.0.0.1:80", 404),
        ("evil.example", 404),
        ("3000@evil.example", 404),
        ("169.254.169.254", 404),
        ("%33000", 404),
        ("%D9%A3000", 404),
        ("", 404),
        ("0x50", 404),
    ],
)
async def test_a_target_is_a_number_and_nothing_else(tmp_path: Path, port: str, status: int) -> None:
    async with serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "GET", f"/v1/ports/{port}/proxy/latest/meta-data")
        assert (answer.status, answer.problem) == (status, "invalid_request")


# What goes wrong.


async def test_a_port_where_nobody_listens_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        port = free_port()
        for body in (b"", b"x" * 2 * MEBIBYTE):
            answer = await exchange(daemon.port, "POST", through(port), body=body)
            assert (answer.status, answer.problem) == (502, "port_unreachable")
            assert f"nobody can be reached on port {port}" in answer.detail
        async with WebSocket.open(daemon.port, through(port)) as client:
            assert client.refusal is not None
            assert client.refusal.problem == "port_unreachable"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 101 x\r\n\r\n"])
async def test_an_answer_that_is_none_is_a_bad_gateway(tmp_path: Path, answer: bytes) -> None:
    async with answering(answer) as (url, _), serving(tmp_path) as daemon:
        told = await exchange(daemon.port, "GET", through(port_of(url)))
        assert (told.status, told.problem) == (502, "port_unreachable")
        async with WebSocket.open(daemon.port, through(port_of(url))) as client:
            assert client.refusal is not None
            assert client.refusal.problem == "port_unreachable"


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_is_cut_off_is_cut_off_for_the_client_too(tmp_path: Path, framing: bytes) -> None:
    async with (
        answering(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc" % framing) as (url, _),
        serving(tmp_path) as daemon,
    ):
        answer = await exchange(daemon.port, "GET", through(port_of(url)))
        assert answer.status == 200
        assert not answer.complete


async def test_an_application_that_answers_before_it_has_the_body_is_heard(tmp_path: Path) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await hung_up.wait()

    hung_up = trio.Event()

    async with upstream(serve) as port, serving(tmp_path) as daemon:
        before = await settled(daemon)
        assert (await exchange(daemon.port, "POST", through(port), body=b"x" * 8 * MEBIBYTE)).status == 413
        hung_up.set()
        await before.back()


async def test_pipelined_requests_are_answered_on_one_connection(tmp_path: Path) -> None:
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path) as daemon:
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            with trio.fail_after(WITHIN):
                await stream.send_all(request_bytes("GET", through(port_of(url))) * 5)
                told = b""
                while told.count(b"{}") < 5:
                    piece = await stream.receive_some(65536)
                    assert piece, told
                    told += piece
        assert len(asked) == 5


# Streaming.


async def test_what_an_application_streams_is_seen_as_it_comes(tmp_path: Path) -> None:
    seen = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await seen.wait()
        await stream.send_all(b"data: 2\n\n")

    async with upstream(serve) as port, serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, through(port)) as stream:
                await stream.until(b"data: 1\n\n")
                seen.set()
                assert await stream.rest() == b"data: 1\n\ndata: 2\n\n"


async def test_large_bodies_take_no_memory_in_either_direction(tmp_path: Path) -> None:
    size = 64 * MEBIBYTE
    highest = 0
    piece = b"x" * (256 << 10)

    async def serve(stream: trio.SocketStream) -> None:
        got = 0
        nonlocal highest
        data = await stream.receive_some(65536)
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65536)
        got = len(data.partition(b"\r\n\r\n")[2])
        while got < size:
            got += len(await stream.receive_some(1 << 18))
            highest = max(highest, resident())
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            await stream.send_all(piece)
            highest = max(highest, resident())

    async def upload(stream: trio.SocketStream) -> None:
        for _ in range(size // len(piece)):
            await stream.send_all(piece)

    async with upstream(serve) as port, serving(tmp_path, max_body=MEBIBYTE) as daemon:
        await exchange(daemon.port, "GET", "/v1/health")
        before = resident()
        with trio.fail_after(60):
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream, trio.open_nursery() as nursery:
                head = request_bytes("PUT", through(port)).replace(b"Length: 0", b"Length: %d" % size)
                await stream.send_all(head)
                nursery.start_soon(upload, stream)
                client = h11.Connection(h11.CLIENT)
                client.send(h11.Request(method="PUT", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
                got = 0
                while not isinstance(event := client.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        client.receive_data(await stream.receive_some(1 << 18))
                    elif isinstance(event, h11.Data):
                        got += len(event.data)
        assert got == size
        assert highest - before < 16 * MEBIBYTE


async def test_a_slow_reader_holds_up_the_application_and_nobody_else(tmp_path: Path) -> None:
    sent = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 65536)
                sent += 65536

    async with upstream(serve) as port, serving(tmp_path) as daemon:
        before = await settled(daemon)
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, through(port)):
                earlier = -1
                while earlier != sent:  # until nothing moves any more
                    earlier = sent
                    for _ in range(10):
                        assert (await exchange(daemon.port, "GET", "/v1/health")).status == 200
        assert sent < 64 * MEBIBYTE
        await before.back()


async def test_a_client_that_leaves_takes_its_request_along(tmp_path: Path) -> None:
    asked, gone = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        asked.set()
        assert not await stream.receive_some(65536)
        gone.set()

    async with upstream(serve) as port, serving(tmp_path) as daemon:
        before = await settled(daemon)
        with trio.fail_after(WITHIN):
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                await stream.send_all(request_bytes("GET", through(port)))
                await asked.wait()
            await gone.wait()
        await before.back()
