"""Requests over real sockets to servers that behave badly: what is asked again, what is not, and what is raised."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import msgspec
import pytest

from sandbox_agent.errors import (
    ConnectionFailed,
    NotFound,
    ProviderError,
    QueueFull,
    RequestTimeout,
    SandboxAgentError,
    SandboxDestroyed,
    ServerError,
    SessionNotFound,
    TokenInvalid,
    Unavailable,
    UnsupportedByServer,
)
from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport
from support.scripted import cut, event_stream, hang, refused, said, scripted
from support.upstreams import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sandbox_agent.transport import Transport
    from support.scripted import Script

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

BRIEF = Timeouts(connect=2, silence=0.3, retry_within=2)


@asynccontextmanager
async def transport_to(url: str, timeouts: Timeouts = BRIEF, **endpoint: Any) -> AsyncGenerator[Transport]:
    async with open_transport(Endpoint(url, **endpoint), Health(watched=False), timeouts) as transport:
        yield transport


def under(backend: str, body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(10):
            await body()

    anyio.run(bounded, backend=backend)


# -- what is asked again


@BACKENDS
def test_what_may_be_asked_twice_is_asked_until_it_is_answered(backend: str) -> None:
    async def body() -> None:
        troubles: list[Script] = [cut, hang, refused(503, "overloaded"), said(b"{", Content_Length="9")]
        async with scripted(*troubles, said(b'{"a":1}')) as server, transport_to(server.url) as transport:
            params = {"b": True, "c": ["1", "2"], "d": None}
            assert await transport.ask(dict[str, int], "GET", "/x", params=params) == {"a": 1}
        assert [asked.target for asked in server.asked] == ["/x?b=true&c=1&c=2"] * 5

    under(backend, body)


@BACKENDS
def test_what_may_have_been_done_is_not_asked_again(backend: str) -> None:
    async def body() -> None:
        async with scripted(cut, said()) as server, transport_to(server.url) as transport:
            with pytest.raises(ConnectionFailed, match=r"; it may have happened$"):
                await transport.request("POST", "/x", json={})
        assert len(server.asked) == 1
        async with scripted(hang) as server, transport_to(server.url) as transport:
            with pytest.raises(RequestTimeout, match=r"; it may have happened$"):
                await transport.request("POST", "/x", json={})
        async with scripted(cut) as server, transport_to(server.url) as transport:
            with pytest.raises(ConnectionFailed, match=r"; it may have happened$"):
                async with transport.stream("POST", "/x", content=b"{}"):
                    pass
        async with scripted(refused(503, "overloaded"), said()) as server, transport_to(server.url) as transport:
            with pytest.raises(Unavailable):
                await transport.request("POST", "/x", json={})
        assert len(server.asked) == 1

    under(backend, body)


@BACKENDS
@pytest.mark.parametrize(
    ("method", "headers", "retry"),
    [("GET", {}, None), ("PUT", {}, None), ("POST", {"Idempotency-Key": "k"}, None), ("POST", {}, True)],
    ids=["GET", "PUT", "POST with a key", "POST that comes to the same"],
)
def test_of_what_may_be_asked_twice_it_is_not_said_that_it_may_have_happened(
    backend: str, method: str, headers: dict[str, str], retry: bool | None
) -> None:
    async def body() -> None:
        async with scripted(cut) as server, transport_to(server.url, Timeouts(retry_within=0.2)) as transport:
            with pytest.raises(ConnectionFailed) as raised:
                await transport.request(method, "/x", headers=headers, retry=retry)
            assert "may have happened" not in str(raised.value)
            with pytest.raises(ConnectionFailed) as raised:
                async with transport.stream(method, "/x", headers={"Idempotency-Key": "k"}):
                    pass
            assert "may have happened" not in str(raised.value)

    under(backend, body)


@BACKENDS
def test_what_was_never_sent_has_not_happened(backend: str) -> None:
    async def body() -> None:
        async with transport_to(f"http://127.0.0.1:{free_port()}", Timeouts(retry_within=0.2)) as transport:
            with pytest.raises(ConnectionFailed) as raised:
                await transport.request("POST", "/x", json={})
            assert "may have happened" not in str(raised.value)
            with pytest.raises(ConnectionFailed) as raised:
                async with transport.stream("POST", "/x", content=b"{}"):
                    pass
            assert "may have happened" not in str(raised.value)

    under(backend, body)


@BACKENDS
def test_a_key_makes_it_worth_asking_again_and_stays_the_same(backend: str) -> None:
    async def body() -> None:
        async with scripted(cut, cut, said()) as server, transport_to(server.url) as transport:
            await transport.request("POST", "/x", json={"n": 1}, headers={"Idempotency-Key": "k"})
        assert [(asked.headers["idempotency-key"], asked.body) for asked in server.asked] == [("k", b'{"n":1}')] * 3

    under(backend, body)


@BACKENDS
def test_what_never_arrived_is_asked_again_whatever_it_is(backend: str) -> None:
    async def body() -> None:
        port = free_port()
        async with transport_to(f"http://127.0.0.1:{port}", Timeouts(retry_within=5)) as transport:

            async def late() -> None:
                await anyio.sleep(0.3)
                async with scripted(said(b"[1]"), port=port):
                    await anyio.sleep_forever()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(late)
                assert (await transport.request("POST", "/x", json={})).json() == [1]
                tasks.cancel_scope.cancel()

    under(backend, body)


@BACKENDS
def test_the_server_says_when_to_come_back(backend: str) -> None:
    async def body() -> None:
        busy = refused(429, "queue_full", Retry_After="1")
        async with scripted(busy, said()) as server, transport_to(server.url) as transport:
            start = anyio.current_time()
            await transport.request("GET", "/x")
            assert anyio.current_time() - start >= 1

    under(backend, body)


@BACKENDS
def test_a_server_that_stays_busy_is_told_as_it_is_and_in_time(backend: str) -> None:
    async def body() -> None:
        later = refused(429, "queue_full", Retry_After="30")
        async with scripted(later) as server, transport_to(server.url) as transport:
            with pytest.raises(QueueFull) as raised:
                await transport.request("GET", "/x")
            assert raised.value.retry_after == 30
        assert len(server.asked) == 1

    under(backend, body)


@pytest.mark.parametrize(
    "header",
    ["soon", "", "-1", "inf", "Wed, 99 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 +99999999999999"],
)
async def test_a_senseless_retry_after_is_none(header: str) -> None:
    async with (
        scripted(refused(503, "overloaded", Retry_After=header)) as server,
        transport_to(server.url) as transport,
    ):
        with pytest.raises(Unavailable) as raised:
            await transport.request("POST", "/x")
        assert raised.value.retry_after is None


@BACKENDS
def test_a_gateway_without_a_server_is_no_answer_of_the_server_s(backend: str) -> None:
    async def body() -> None:
        gateway = said(b"<html>bad gateway</html>", 502, Content_Type="text/html")
        async with scripted(gateway, said(b"", 504), said(b"1")) as server, transport_to(server.url) as transport:
            assert await transport.ask(int, "GET", "/x") == 1
            health = transport.health = Health(watched=True)
            health.confirm()
        async with scripted(gateway) as server, open_transport(Endpoint(server.url), health, BRIEF) as transport:
            with pytest.raises(ConnectionFailed, match="bad gateway"):
                await transport.request("POST", "/x")
            with anyio.fail_after(1):
                await health.doubted()

    under(backend, body)


# -- silence


@BACKENDS
def test_a_peer_that_has_gone_silent_is_left_in_time(backend: str) -> None:
    async def body() -> None:
        async with scripted(hang) as server, transport_to(server.url) as transport:
            start = anyio.current_time()
            with pytest.raises(RequestTimeout, match="gone silent"):
                await transport.request("POST", "/x")
            assert 0.2 < anyio.current_time() - start < 1.5

    under(backend, body)


@BACKENDS
def test_blanks_are_no_silence_and_may_precede_the_answer(backend: str) -> None:
    async def slowly(_: Any, stream: Any) -> None:
        await stream.send(b"HTTP/1.1 200 \r\nContent-Length: 14\r\nConnection: close\r\n\r\n")
        for piece in (b" ", b" ", b" ", b" ", b" ", b" ", b'{"ok":1}'):
            await stream.send(piece)
            await anyio.sleep(0.1)

    async def body() -> None:
        async with scripted(slowly) as server, transport_to(server.url) as transport:
            assert await transport.ask(dict[str, int], "POST", "/x") == {"ok": 1}

    under(backend, body)


async def test_a_request_may_be_left_while_its_body_is_sent() -> None:
    """Trio would warn of what is not closed, and a warning is a failure here."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,  # which accepts nothing, nor reads
        transport_to(f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}") as transport,
    ):
        with anyio.move_on_after(0.2) as scope:
            await transport.request("POST", "/x", content=bytes(16 << 20), silence=math.inf)
        assert scope.cancelled_caught


@BACKENDS
def test_who_waits_for_ever_can_still_be_cancelled(backend: str) -> None:
    async def body() -> None:
        async with scripted(hang) as server, transport_to(server.url) as transport:
            with anyio.move_on_after(0.5) as scope:
                await transport.request("POST", "/x", silence=math.inf)
            assert scope.cancelled_caught

    under(backend, body)


# -- what the answer is taken for


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (refused(401, "token_invalid"), TokenInvalid, "no"),
        (refused(404, "session_not_found"), SessionNotFound, "no"),
        (refused(404, "invalid_request"), UnsupportedByServer, "has no POST /v1/x"),
        (said(b"gone", 404), NotFound, "POST /v1/x: 404 gone"),
        (said(b"<html>come back</html>", 503), Unavailable, "503 <html>"),
        (said(b"[1]", 500), ServerError, "500"),
        (said(b'"\xff"', 500), ServerError, "500"),
        (said(b"", 302, Location="http://192.0.2.1/"), SandboxAgentError, "302"),
    ],
)
async def test_answers_that_are_no_success_are_errors(answer: Script, error: type[Exception], words: str) -> None:
    async with scripted(answer) as server, transport_to(server.url) as transport:
        with pytest.raises(error, match=words):
            await transport.request("POST", "/v1/x")


async def test_a_server_without_sessions_is_said_to_have_the_raw_wire() -> None:
    async with scripted(refused(404, "invalid_request")) as server, transport_to(server.url) as transport:
        with pytest.raises(UnsupportedByServer, match=r"has no GET /v1/sessions; sandbox\.acp\(\) is there"):
            await transport.request("GET", "/v1/sessions")


@pytest.mark.parametrize("body", [b"", b"{", b"no JSON", b'{"n":"x"}', b"[]", b'{"error":7}'])
async def test_an_answer_of_another_shape_is_an_error_of_ours(body: bytes) -> None:
    async with scripted(said(body)) as server, transport_to(server.url) as transport:
        with pytest.raises(SandboxAgentError, match="/x answered"):
            await transport.ask(Number, "GET", "/x")


async def test_a_refusal_that_comes_after_the_head_is_raised_as_one() -> None:
    late = b'   {"error":{"type":"urn:sandbox-agent:error:session_not_found","status":%b,"detail":"gone"}}'
    for status in (b"404", b'"?"', b"null"):
        async with scripted(said(late % status)) as server, transport_to(server.url) as transport:
            with pytest.raises(SessionNotFound, match="gone"):
                await transport.ask(Number, "GET", "/x")


class Number(msgspec.Struct):
    n: int


# -- where it is, and who we are


async def test_the_token_goes_where_the_endpoint_wants_it_and_nowhere_else() -> None:
    async with scripted(said()) as server:
        async with transport_to(server.url, token="t", headers={"X-Router": "r"}) as transport:
            await transport.request("GET", "/x")
        async with transport_to(server.url, token="t", token_header="X-Sandbox-Agent-Token") as transport:
            await transport.request("GET", "/x")
            transport.endpoint = Endpoint(server.url)
            await transport.request("GET", "/x")
    first, second, third = (asked.headers for asked in server.asked)
    assert (first["authorization"], first["x-router"]) == ("Bearer t", "r")
    assert second["x-sandbox-agent-token"] == "t"
    assert "authorization" not in second
    assert not {"authorization", "x-sandbox-agent-token"} & set(third)


async def test_no_proxy_of_the_environment_hears_what_is_said_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    async with scripted(said()) as server, transport_to(server.url) as transport:
        await transport.request("GET", "/x")


async def test_errors_tell_no_token() -> None:
    async with transport_to(f"http://127.0.0.1:{free_port()}", Timeouts(retry_within=0), token="s3cret") as transport:
        with pytest.raises(ConnectionFailed) as raised:
            await transport.request("GET", "/x")
    assert "s3cret" not in f"{raised.value!r} {raised.value} {transport.endpoint!r}"


@BACKENDS
def test_a_request_waits_for_a_recovery_longer_than_its_own_time(backend: str) -> None:
    async def body() -> None:
        health = Health(watched=True, recovers=True)
        timeouts = Timeouts(retry_within=0.1)
        async with (
            scripted(said(b"1")) as server,
            open_transport(Endpoint("http://127.0.0.1:1"), health, timeouts) as it,
        ):

            async def recover() -> None:
                await anyio.sleep(0.5)
                it.endpoint = Endpoint(server.url)
                health.confirm()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(recover)
                assert await it.ask(int, "POST", "/x") == 1

    under(backend, body)


@BACKENDS
def test_without_a_recovery_it_waits_no_longer_than_its_own_time(backend: str) -> None:
    async def body() -> None:
        timeouts = Timeouts(retry_within=0.2)
        async with open_transport(Endpoint("http://127.0.0.1:1"), Health(watched=True), timeouts) as transport:
            with pytest.raises(ConnectionFailed, match="does not answer"):
                await transport.request("GET", "/x")

    under(backend, body)


async def test_who_has_no_time_to_ask_again_still_asks_once() -> None:
    async with scripted(said(b"1"), cut) as server, transport_to(server.url, Timeouts(retry_within=0)) as transport:
        assert await transport.ask(int, "GET", "/x") == 1
        with pytest.raises(ConnectionFailed, match="disconnected"):
            await transport.request("GET", "/x")
    assert len(server.asked) == 2


@BACKENDS
def test_who_waits_for_a_server_that_is_given_up_gets_the_reason(backend: str) -> None:
    async def body() -> None:
        health = Health(watched=True, recovers=True)
        async with open_transport(Endpoint("http://127.0.0.1:1"), health, Timeouts()) as transport:

            async def ask() -> None:
                with pytest.raises(SandboxDestroyed, match="it is gone"):
                    await transport.request("GET", "/x")

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(ask)
                await anyio.sleep(0.05)
                health.give_up(SandboxDestroyed("it is gone"))
            with pytest.raises(ProviderError):
                async with transport.stream("GET", "/x"):
                    pass
            with pytest.raises(ProviderError):
                async with transport.websocket("/x"):
                    pass

    under(backend, body)


# -- streams, left anywhere


@BACKENDS
def test_a_body_may_be_left_half_way(backend: str) -> None:
    async def body() -> None:
        frames = [b"data: %d\n\n" % n for n in range(100)]
        async with scripted(event_stream(*frames, then=hang)) as server, transport_to(server.url) as transport:
            async with transport.stream("GET", "/x") as incoming:
                async for piece in incoming:
                    assert piece.startswith(b"data: 0")
                    break
            async with transport.stream("GET", "/x") as incoming:
                assert incoming.headers["content-type"] == "text/event-stream"
            with pytest.raises(ZeroDivisionError):  # noqa: PT012 (what is tested is how the block is left)
                async with transport.stream("GET", "/x") as incoming:
                    await anext(incoming)
                    raise ZeroDivisionError
            with anyio.move_on_after(0.2):
                async with transport.stream("GET", "/x", silence=math.inf) as incoming:
                    async for _ in incoming:
                        pass

    under(backend, body)


@BACKENDS
def test_a_body_that_breaks_off_is_a_failed_connection(backend: str) -> None:
    async def body() -> None:
        for trouble in (cut, hang):
            async with scripted(event_stream(b"a", then=trouble)) as server, transport_to(server.url) as transport:
                with pytest.raises(ConnectionFailed):
                    async with transport.stream("GET", "/x") as incoming:
                        await incoming.read()

    under(backend, body)


async def test_a_stream_that_is_refused_is_an_error_before_its_block() -> None:
    async with scripted(refused(404, "session_not_found")) as server, transport_to(server.url) as transport:
        with pytest.raises(SessionNotFound):
            async with transport.stream("GET", "/x"):
                raise AssertionError


@BACKENDS
def test_a_websocket_that_is_refused_tells_why(backend: str) -> None:
    async def body() -> None:
        async with (
            scripted(refused(401, "token_invalid"), said(), cut) as server,
            transport_to(server.url) as transport,
        ):
            with pytest.raises(TokenInvalid):
                async with transport.websocket("/x"):
                    pass
            with pytest.raises(ConnectionFailed, match="no WebSocket"):
                async with transport.websocket("/x"):
                    pass
            with pytest.raises(ConnectionFailed):
                async with transport.websocket("/x"):
                    pass

    under(backend, body)


@BACKENDS
def test_what_the_block_of_a_websocket_raises_comes_as_it_is(backend: str) -> None:
    async def body() -> None:
        async with scripted(_accept) as server, transport_to(server.url) as transport:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012 (as above)
                async with transport.websocket("/x") as socket:
                    assert await socket.receive_text() == "hi"
                    raise ZeroDivisionError
            with pytest.raises(ConnectionFailed):  # noqa: PT012 (as above)
                async with transport.websocket("/x") as socket:
                    await socket.receive_text()
                    await socket.receive_text()
            with anyio.move_on_after(0.2) as scope:
                async with transport.websocket("/x") as socket:
                    await anyio.sleep_forever()
            assert scope.cancelled_caught

    under(backend, body)


async def _accept(asked: Any, stream: Any) -> None:
    """One frame, and the end without a closing one."""
    import wsproto
    from wsproto import events

    connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    lines = "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
    connection.receive_data(f"{asked.method} {asked.target} HTTP/1.1\r\n{lines}\r\n".encode())
    await stream.send(connection.send(events.AcceptConnection()) + connection.send(events.TextMessage("hi")))
    await anyio.sleep(0.3)
