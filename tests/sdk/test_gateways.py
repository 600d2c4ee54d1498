"""What stands between us and the server, a gateway or a dead connection: what is asked again, and what is raised."""

from __future__ import annotations

import asyncio
import gc
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.errors import ConnectionFailed, NotFound, SandboxDestroyed, SessionNotFound, Unavailable
from sandbox_agent.following import Following
from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport
from support.scripted import cut, event_stream, hang, refused, said, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sandbox_agent.transport import Transport

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

BRIEF = Timeouts(connect=2, silence=0.3, retry_within=2)


@asynccontextmanager
async def transport_to(url: str) -> AsyncGenerator[Transport]:
    async with open_transport(Endpoint(url), Health(watched=False), BRIEF) as transport:
        yield transport


def under(backend: str, body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(10):
            await body()

    anyio.run(bounded, backend=backend)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 -0000", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry_After": "Wed, 21 Oct 2020 07:28:30 GMT"}, 0),
    ],
    ids=["by the gateway's clock", "of no time zone", "in the past"],
)
async def test_a_gateway_may_say_by_a_date_when_to_come_back(headers: dict[str, str], seconds: float) -> None:
    async with scripted(said(b"", 503, **headers)) as server, transport_to(server.url) as transport:
        with pytest.raises(Unavailable) as raised:
            await transport.request("POST", "/x")
        assert raised.value.retry_after == seconds


@BACKENDS
def test_what_a_gateway_has_passed_on_in_vain_may_have_happened(backend: str) -> None:
    async def body() -> None:
        for status in (502, 504):
            async with scripted(said(b"", status)) as server, transport_to(server.url) as transport:
                with pytest.raises(ConnectionFailed, match=rf"^POST /x: {status}; it may have happened$"):
                    await transport.request("POST", "/x", json={})
                with pytest.raises(ConnectionFailed, match=r"; it may have happened$"):
                    await transport.request("DELETE", "/x", retry=False)
                with pytest.raises(ConnectionFailed, match=r"; it may have happened$"):
                    async with transport.stream("POST", "/x", content=b"{}"):
                        pass
                with pytest.raises(Unavailable):  # what changes nothing is not asked twice here, but it could be
                    await transport.request("GET", "/x", retry=False)
            assert len(server.asked) == 4
        for answer in (said(b"", 503), refused(502, "overloaded")):
            async with scripted(answer) as server, transport_to(server.url) as transport:
                with pytest.raises(Unavailable):
                    await transport.request("POST", "/x", json={})

    under(backend, body)


@BACKENDS
def test_a_repeated_delete_that_finds_nothing_has_been_done(backend: str) -> None:
    async def body() -> None:
        gone = refused(404, "session_not_found")
        for trouble in (cut, said(b"", 504)):
            async with scripted(trouble, gone) as server, transport_to(server.url) as transport:
                assert (await transport.request("DELETE", "/x")).status_code == 404
            assert len(server.asked) == 2
        for scripts in (
            [gone],  # it was never there
            [cut, said(b"", 404)],  # it is the gateway that knows of nothing
            [refused(503, "overloaded"), gone],  # the first try has done nothing
        ):
            async with scripted(*scripts) as server, transport_to(server.url) as transport:
                with pytest.raises(NotFound):
                    await transport.request("DELETE", "/x")
        async with scripted(cut, gone) as server, transport_to(server.url) as transport:
            with pytest.raises(SessionNotFound):
                await transport.request("GET", "/x")

    under(backend, body)


@BACKENDS
@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")
def test_what_was_badly_compressed_on_the_way_is_a_failed_connection(backend: str) -> None:
    garbled = said(b"no gzip", Content_Encoding="gzip")
    frames = event_stream(b"no gzip", Content_Encoding="gzip")

    async def body() -> None:
        async with scripted(garbled, said(b"1")) as server, transport_to(server.url) as transport:
            assert await transport.ask(int, "GET", "/x") == 1
        async with scripted(garbled) as server, transport_to(server.url) as transport:
            with pytest.raises(ConnectionFailed, match=r"; it may have happened$"):
                await transport.request("POST", "/x")
            with pytest.raises(ConnectionFailed):
                async with transport.stream("GET", "/x") as incoming:
                    await incoming.read()
        event = event_stream(b'data: {"a":1}\n\n', then=hang)
        where: tuple[str, dict[str, str]] = ("/x", {})
        async with (
            scripted(frames, event) as server,
            transport_to(server.url) as transport,
            Following(transport, lambda: where) as following,
        ):
            assert (await anext(following)).data == '{"a":1}'
        gc.collect()  # so that what httpx has left is warned of here

    under(backend, body)


@BACKENDS
def test_who_waits_on_a_dead_connection_hears_that_the_server_is_given_up(backend: str) -> None:
    async def body() -> None:
        health = Health(watched=True, recovers=True)
        health.confirm()
        async with scripted(hang) as server, open_transport(Endpoint(server.url), health, Timeouts()) as transport:

            async def ask() -> None:
                with pytest.raises(SandboxDestroyed, match="it is gone"):
                    await transport.request("POST", "/x", silence=math.inf)

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(ask)
                await anyio.sleep(0.2)
                assert len(server.asked) == 3
                health.suspect()
                health.give_up(SandboxDestroyed("it is gone"))

    under(backend, body)


def test_a_task_that_asyncio_cancels_leaves_no_connection_behind() -> None:
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        await reader.read()
        open_now.remove(writer)
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, transport_to(f"http://127.0.0.1:{port}") as transport:
            for n in range(100):
                asking = [asyncio.create_task(transport.request("GET", "/x")) for _ in range(8)]
                await asyncio.sleep(n % 40 / 4000)  # cancelled while they connect, send, and wait
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
            with anyio.fail_after(5):
                while open_now:  # noqa: ASYNC110 (whoever is the last one does not tell)
                    await anyio.sleep(0.01)

    under("asyncio", body)
