"""`/v1/ports`: who listens, and waiting for it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio

from support.serving import serving
from support.wire import exchange

if TYPE_CHECKING:
    from pathlib import Path


async def test_listeners_are_listed_without_the_servers_own_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with serving(tmp_path) as daemon:
            listed = (await exchange(daemon.port, "GET", "/v1/ports")).json["ports"]
            assert daemon.port not in [each["port"] for each in listed]
            (found,) = [each for each in listed if each["port"] == port]
            assert found["addresses"] == ["127.0.0.1"]
            assert found["onLoopback"] is True
            assert isinstance(found["pid"], int)
            assert found["command"]


async def test_a_port_is_waited_for(tmp_path: Path) -> None:
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        port = later.getsockname()[1]
        async with serving(tmp_path) as daemon:
            answer = await exchange(daemon.port, "GET", f"/v1/ports/{port}/wait?timeoutMs=1")
            assert (answer.status, answer.problem) == (504, "timeout")
            assert f"port {port}" in answer.detail

            async def wait() -> None:
                waited = await exchange(daemon.port, "GET", f"/v1/ports/{port}/wait")
                assert (waited.status, waited.json["port"]) == (200, port)

            with trio.fail_after(15):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    # Once another request was answered the first one has been there.
                    await exchange(daemon.port, "GET", "/v1/health")
                    later.listen()


@pytest.mark.parametrize(
    "target",
    [
        "x/wait",
        "0/wait",
        "65536/wait",
        "-1/wait",
        "80/wait?timeoutMs=x",
        "80/wait?timeoutMs=-1",
        "80/wait?timeoutMs=1e9",
    ],
)
async def test_what_is_no_port_or_no_time_is_refused(tmp_path: Path, target: str) -> None:
    async with serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "GET", f"/v1/ports/{target}")
        assert (answer.status, answer.problem) == (400, "invalid_request")
        assert "must be a number from" in answer.detail
