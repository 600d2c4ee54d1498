"""What the proxy does not wait for, and how much it takes on: driven as ASGI, in no real time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from sandbox_http.proxy import Proxy
from sandbox_http.proxy.layer import MOST_AT_ONCE
from sandbox_http.proxy.upstream import TAKES_WITHIN, connect, give
from sandbox_http.streams import Streams
from support.upstreams import upstream

if TYPE_CHECKING:
    from trio.testing import MockClock

Message = dict[str, Any]


def scope_of(port: int) -> Message:
    return {
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "scheme": "http",
        "path": f"/v1/ports/{port}/proxy/",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


async def nothing(*_: Any) -> None:
    raise AssertionError("not for the application behind the proxy")


async def request(proxy: Proxy, port: int, *pieces: bytes) -> tuple[int, Message]:
    """Send these pieces of a body and never its end; gives the status and the problem of the answer."""
    pending = list(pieces)
    sent: list[Message] = []

    async def receive() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(0), "more_body": True}
        return await trio.sleep_forever()

    async def send(message: Message) -> None:
        sent.append(message)

    await proxy(scope_of(port), receive, send)
    start, body = sent
    return start["status"], json.loads(body["body"])


@pytest.fixture
def patient_clock(autojump_clock: MockClock) -> MockClock:
    """Time does not jump while the kernel may still be at work on a connection."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


async def serve(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("pieces", [[], [b"abc"]])
async def test_a_body_that_stops_coming_is_given_up(patient_clock: MockClock, pieces: list[bytes]) -> None:
    async with upstream(serve) as port:
        proxy = Proxy(nothing, None, 1000, Streams())
        status, problem = await request(proxy, port, *pieces)
        assert (status, problem["title"]) == (408, "Request Timeout")
        assert 30 <= trio.current_time() < 40


async def test_an_application_that_takes_nothing_is_given_up(patient_clock: MockClock) -> None:
    async with upstream(serve) as port, await connect(port) as stream:
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await give(stream, b"x" * (64 << 20))
        assert trio.current_time() - began == TAKES_WITHIN


async def test_so_is_its_request(patient_clock: MockClock) -> None:
    async with upstream(serve) as port:
        proxy = Proxy(nothing, None, 1000, Streams())
        status, problem = await request(proxy, port, *[b"x" * (1 << 20)] * 64)
        assert (status, problem["title"]) == (504, "Timeout")
        assert f"port {port} has taken nothing for 60 s" in problem["detail"]


async def test_only_so_many_requests_are_under_way_at_once(patient_clock: MockClock) -> None:
    proxy = Proxy(nothing, None, 1000, Streams())
    async with trio.open_nursery() as nursery:
        for _ in range(MOST_AT_ONCE):
            nursery.start_soon(request, proxy, 1)
        await trio.testing.wait_all_tasks_blocked()
        status, problem = await request(proxy, 1, b"x")
        assert (status, problem["title"]) == (503, "Overloaded")
        nursery.cancel_scope.cancel()
