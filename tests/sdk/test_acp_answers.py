"""Requests on the raw wire: answers that make no sense, and answers that never come."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.acp import AcpConnection
from sandbox_agent.errors import AgentError, SandboxDestroyed
from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport
from support.scripted import hang, said, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from support.scripted import Script

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@asynccontextmanager
async def connected(script: Script, health: Health) -> AsyncGenerator[AcpConnection]:
    async with (
        scripted(script) as server,
        open_transport(Endpoint(server.url), health, Timeouts(retry_within=0)) as transport,
    ):
        yield AcpConnection(transport, "a1", "mock")


@pytest.mark.parametrize("code", [b'"x"', b"null", b"[]", b"NaN", b"1e999", b'"7"'])
async def test_an_error_whose_code_makes_no_sense_is_an_error_all_the_same(code: bytes) -> None:
    answer = said(b'{"jsonrpc":"2.0","id":1,"error":{"code":%b,"message":"it failed"}}' % code)
    async with connected(answer, Health(watched=False)) as acp:
        with pytest.raises(AgentError, match="it failed") as raised:
            await acp.request("x")
        assert raised.value.code == 0


@BACKENDS
def test_who_waits_for_an_agent_hears_that_its_sandbox_is_gone(backend: str) -> None:
    """As on a connection whose other end is gone, and nobody has said so."""

    async def body() -> None:
        health = Health(watched=True, recovers=True)
        health.confirm()

        async def lose() -> None:
            await anyio.sleep(0.2)
            health.suspect()
            health.give_up(SandboxDestroyed("it is gone"))

        async with connected(hang, health) as acp, anyio.create_task_group() as tasks:
            tasks.start_soon(lose)
            for says in (acp.request("session/prompt"), acp.notify("x"), acp.respond(1)):
                with anyio.fail_after(5), pytest.raises(SandboxDestroyed, match="it is gone"):
                    await says

    anyio.run(body, backend=backend)
