"""What becomes of headers between a client and what listens on a port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from support.answering import answering, http
from support.serving import TOKEN, serving
from support.upstreams import port_of, through, upstream
from support.wire import exchange, request_bytes

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_application_is_told_who_asks_and_nothing_that_is_ours(tmp_path: Path) -> None:
    sent = {
        "Host": "sandbox.example:8080",
        "Authorization": f"Bearer {TOKEN}",
        "X-Sandbox-Agent-Token": TOKEN,
        "Connection": "X-Mine, keep-alive",
        "X-Mine": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Upgrade": "h3",
        "Proxy-Authorization": "Basic eDp5",
        "Proxy-Connection": "keep-alive",
        "Cookie": "a=b",
        "Accept-Encoding": "br",
        "X-Forwarded-For": "203.0.113.9",
    }
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path, token=TOKEN) as daemon:
        port = port_of(url)
        assert (await exchange(daemon.port, "GET", through(port, "/x"), sent)).status == 200
        _, headers, _ = asked.last
    assert headers == {
        "host": f"localhost:{port}",
        "cookie": "a=b",
        "accept-encoding": "br",
        "x-forwarded-for": "203.0.113.9, 127.0.0.1",
        "x-forwarded-host": "sandbox.example:8080",
        "x-forwarded-proto": "http",
        "x-forwarded-prefix": f"/v1/ports/{port}/proxy",
        "via": "1.1 sandbox-agent",
        "connection": "close",
    }


async def test_authorization_that_is_not_ours_is_the_applications(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer of-the-application", "X-Sandbox-Agent-Token": TOKEN}
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path, token=TOKEN) as daemon:
        await exchange(daemon.port, "GET", through(port_of(url)), headers)
        assert asked.last[1]["authorization"] == "Bearer of-the-application"
        assert "x-sandbox-agent-token" not in asked.last[1]


async def test_our_own_page_stands_for_the_applications(tmp_path: Path) -> None:
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path) as daemon:
        host = f"127.0.0.1:{daemon.port}"
        await exchange(daemon.port, "POST", through(port_of(url)), {"Host": host, "Origin": f"http://{host}"})
        assert asked.last[1]["origin"] == f"http://localhost:{port_of(url)}"


LOCATIONS = [
    ("/login?a=1", "PREFIX/login?a=1"),
    ("http://localhost:PORT/login#x", "PREFIX/login#x"),
    ("http://127.0.0.1:PORT", "PREFIX/"),
    ("//[::1]:PORT/a", "PREFIX/a"),
    ("http://sandbox:1/a", "PREFIX/a"),
    ("http://localhost:PORT?x", "PREFIX/?x"),
    ("PREFIX/login", "PREFIX/login"),
    ("login", "login"),
    ("?x", "?x"),
    ("//evil.example/a", "//evil.example/a"),
    ("http://localhost:1/a", "http://localhost:1/a"),
    ("http://localhost/a", "http://localhost/a"),
    ("https://evil.example/a", "https://evil.example/a"),
    ("http://localhost:PORT@evil.example/", "http://localhost:PORT@evil.example/"),
    ("mailto:a@b", "mailto:a@b"),
]


@pytest.mark.parametrize(("told", "seen"), LOCATIONS)
async def test_redirects_lead_to_the_same_application(tmp_path: Path, told: str, seen: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        where = told.replace("PORT", str(port)).replace("PREFIX", through(port, ""))
        await stream.send_all(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % where.encode())

    async with upstream(serve) as port, serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "GET", through(port), {"Host": "sandbox:1"})
        assert answer.status == 302
        assert answer.headers["location"] == seen.replace("PORT", str(port)).replace("PREFIX", through(port, ""))


async def test_what_speaks_for_a_whole_origin_is_left_out_and_cookies_are_narrowed_down(tmp_path: Path) -> None:
    lines = [
        "Set-Cookie: a=1; Path=/; HttpOnly",
        "Set-Cookie: b=2; Domain=localhost; path=/x",
        "Set-Cookie: c=3",
        "Clear-Site-Data: *",
        "Strict-Transport-Security: max-age=1",
        "Service-Worker-Allowed: /",
        "Alt-Svc: h2=x",
        "Access-Control-Allow-Origin: *",
        "Connection: X-Mine",
        "X-Mine: 1",
        "X-Kept: 1",
        "Date: yesterday",
    ]
    response = "\r\n".join(["HTTP/1.1 200 OK", "Content-Length: 0", *lines, "", ""]).encode()
    async with answering(response) as (url, _), serving(tmp_path) as daemon:
        port = port_of(url)
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(request_bytes("GET", through(port)))
            told = b""
            while b"\r\n\r\n" not in told:
                told += await stream.receive_some(65536)
    names = [line.partition(b":")[0] for line in told.split(b"\r\n")[1:-2]]
    assert sorted(names) == [
        b"content-length",
        b"content-security-policy",
        b"date",
        *[b"set-cookie"] * 3,
        b"vary",
        b"x-kept",
    ]
    prefix = through(port, "").encode()
    assert b"set-cookie: a=1; Path=%b/; HttpOnly\r\n" % prefix in told
    assert b"set-cookie: b=2; Path=%b/x\r\n" % prefix in told
    assert b"set-cookie: c=3\r\n" in told
    assert b"yesterday" not in told


async def test_pages_are_kept_out_of_our_origin_where_that_alone_opens_the_api(tmp_path: Path) -> None:
    async with answering(http(b"<script>", "text/html")) as (url, _):
        async with serving(tmp_path / "open") as daemon:
            answer = await exchange(daemon.port, "GET", through(port_of(url)))
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("sandbox allow-scripts ")
            assert "same-origin" not in policy
            # What such a page calls says so in its Origin.
            assert (await exchange(daemon.port, "GET", "/v1/agents", {"Origin": "null"})).status == 403
        async with serving(tmp_path / "closed", token=TOKEN) as daemon:
            answer = await exchange(daemon.port, "GET", through(port_of(url)), daemon.headers)
            assert "content-security-policy" not in answer.headers
