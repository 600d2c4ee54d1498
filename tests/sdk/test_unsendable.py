"""What can never be sent, or reached, is told at once, and as what it is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent import SandboxAgent
from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport
from support.scripted import said, scripted

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


@BACKENDS
@pytest.mark.parametrize("key", ["a\nb", "a\r\nX-Other: b", "schlüssel", " k", "k\t"])
def test_a_key_that_cannot_be_sent_is_told_at_once(backend: str, key: str) -> None:
    async def body() -> None:
        async with scripted(said()) as server, transport_to(server.url) as transport:
            headers = {"Idempotency-Key": key}
            with pytest.raises(ValueError, match="Idempotency-Key cannot be sent: use printable ASCII"):
                await transport.request("POST", "/x", headers=headers)
            with pytest.raises(ValueError, match="use printable ASCII"):
                async with transport.stream("POST", "/x", headers=headers):
                    pass
            with pytest.raises(ValueError, match="use printable ASCII"):
                async with transport.websocket("/x", headers=headers):
                    pass
        assert server.asked == []

    under(backend, body)


@BACKENDS
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:-1",
        "http://127.0.0.1:x",
        "http://[::1",
        "http://:80",
        "http://a\n:1",
    ],
)
def test_a_url_where_nothing_can_be_is_told_as_such(backend: str, url: str) -> None:
    async def body() -> None:
        with pytest.raises(ValueError, match="is no URL of a server"):
            async with SandboxAgent.connect(url, start_within=0.2):
                raise AssertionError

    under(backend, body)


@pytest.mark.parametrize("token", [" s3cret", "s3cret ", "s3cret\n", "s3crèt"])
def test_a_token_that_cannot_be_sent_is_not_told(token: str) -> None:
    with pytest.raises(ValueError, match="header Authorization") as raised:
        Endpoint("http://127.0.0.1:1", token)
    assert token.strip() not in str(raised.value)
