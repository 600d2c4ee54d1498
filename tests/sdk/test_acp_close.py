"""The end of a connection on the raw wire, where the server does not play along."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.acp import open_acp
from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport
from support.scripted import cut, hang, refused, said, scripted

if TYPE_CHECKING:
    from support.scripted import Script

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

NEVER = "the agent of a1 may be left: its end was not confirmed within 0.5 s"


async def closed(script: Script) -> float:
    """Leave a connection to a server that answers like this; gives the seconds that it took."""
    async with (
        scripted(script) as server,
        open_transport(Endpoint(server.url), Health(watched=False), Timeouts()) as transport,
    ):
        start = anyio.current_time()
        with anyio.fail_after(10):
            async with open_acp(transport, "a1", "mock", keep=False, close_within=0.5):
                pass
        assert {(asked.method, asked.path) for asked in server.asked} == {("DELETE", "/v1/acp/a1")}
        return anyio.current_time() - start


@BACKENDS
@pytest.mark.parametrize(
    ("script", "warnings"),
    [
        (said(b"", 204), []),
        (hang, [NEVER]),
        (cut, [NEVER]),
        (refused(400, "invalid_request"), ["the agent of a1 may be left: no"]),
    ],
    ids=["answered", "never answered", "cut again and again", "refused"],
)
def test_an_end_that_is_not_confirmed_is_told_to_the_log_and_nothing_is_raised(
    backend: str, script: Script, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "sandbox_agent"):
        assert anyio.run(closed, script, backend=backend) < 5
    assert [record.getMessage() for record in caplog.records if record.name == "sandbox_agent"] == warnings


@BACKENDS
def test_what_the_block_raises_comes_out_of_it_although_the_server_never_answers(backend: str) -> None:
    async def body() -> None:
        async with (
            scripted(hang) as server,
            open_transport(Endpoint(server.url), Health(watched=False), Timeouts()) as transport,
        ):
            with anyio.fail_after(10), pytest.raises(ZeroDivisionError):
                async with open_acp(transport, "a1", "mock", keep=False, close_within=0.2):
                    raise ZeroDivisionError
            with anyio.move_on_after(0.1) as scope:
                async with open_acp(transport, "a1", "mock", keep=False, close_within=0.2):
                    await anyio.sleep_forever()
            assert scope.cancelled_caught

    anyio.run(body, backend=backend)
