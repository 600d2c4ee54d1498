"""The Cloudflare provider against a fake of the sandbox bridge."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sandbox_agent.errors import ProviderError, SandboxDestroyed, UnsupportedByProvider
from sandbox_agent.providers import CloudflareProvider, Preinstalled, Server, Wheel
from sdk.fakes.cloud import Reply, crash_server
from sdk.fakes.cloudflare import KEY, FakeBridge
from support.cancelling import cancelled_by_asyncio
from support.conforming import cloud_subject, each_check, run_check
from support.daemon import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox_agent.providers.conformance import Check

NO_SERVER = "true"
"""A command that starts nothing, and is content with that: for what needs no server."""

WITHIN = 60
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"

NEVER = "mfrggzdfmy2tqnrzgezdgnbv"
"""An id that was given to nobody."""


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[FakeBridge]:
    with FakeBridge(tmp_path).running() as bridge:
        yield bridge


def provider_of(bridge: FakeBridge, command: str = "sandbox-agent", **options: Any) -> CloudflareProvider:
    server = Server(install=Preinstalled(command), port=free_port())
    defaults: dict[str, Any] = {"url": bridge.url, "key": KEY, "server": server}
    return CloudflareProvider(**(defaults | options))


@each_check()
def test_it_conforms(bridge: FakeBridge, check: Check, backend: str) -> None:
    subject = cloud_subject(
        partial(provider_of, bridge), lambda: len(bridge.sandboxes), lambda id: crash_server(bridge.sandboxes[id])
    )
    run_check(check, backend, subject)
    assert bridge.sandboxes == {}


async def test_its_tunnel_has_the_name_of_the_sandbox(bridge: FakeBridge) -> None:
    provider = provider_of(bridge, NO_SERVER, headers={"X-Gate": "open"})
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        endpoint = await provider.endpoint(sandbox_id)
    assert bridge.names == {sandbox_id: sandbox_id}
    assert endpoint.url == f"http://127.0.0.1:{provider.server.port}"
    assert endpoint.token == OF_SERVER
    assert endpoint.headers == {"X-Gate": "open"}


async def test_a_worker_that_hands_on_to_ports_needs_no_tunnel(bridge: FakeBridge) -> None:
    provider = provider_of(bridge, NO_SERVER, url_of=lambda id, port: f"https://worker.example.com/agent/{id}/{port}/")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        endpoint = await provider.endpoint(sandbox_id)
    assert endpoint.url == f"https://worker.example.com/agent/{sandbox_id}/{provider.server.port}"
    assert bridge.names == {}


async def test_the_token_is_in_no_command_and_not_left_in_the_workspace(bridge: FakeBridge) -> None:
    with trio.fail_after(WITHIN):
        sandbox_id = await provider_of(bridge, NO_SERVER).create(OF_SERVER)
    assert OF_SERVER not in str(bridge.executed)
    home = bridge.sandboxes[sandbox_id].home
    assert list((home / "workspace").iterdir()) == []
    assert (home / ".sandbox-agent" / "token").read_text() == OF_SERVER


async def test_a_container_that_slept_is_a_sandbox_that_is_gone_and_no_new_one_stays(bridge: FakeBridge) -> None:
    provider = provider_of(bridge, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        for method in (provider.ensure_server, provider.endpoint, provider.reconnect):
            if sandbox_id in bridge.sandboxes:
                await trio.to_thread.run_sync(bridge.sleep, sandbox_id)
            with pytest.raises(SandboxDestroyed, match="with all that was in it"):
                await method(sandbox_id)
            assert bridge.sandboxes == {}


async def test_an_id_of_nobody_is_a_sandbox_that_is_gone(bridge: FakeBridge) -> None:
    with trio.fail_after(WITHIN):
        with pytest.raises(SandboxDestroyed):
            await provider_of(bridge).endpoint(NEVER)
        await provider_of(bridge).destroy(NEVER)
    assert bridge.sandboxes == {}


async def test_it_cannot_pause(bridge: FakeBridge) -> None:
    with pytest.raises(UnsupportedByProvider):
        await provider_of(bridge).pause(NEVER)


async def test_a_wrong_key_is_told_and_not_taken_for_a_sandbox_that_is_gone(bridge: FakeBridge) -> None:
    provider = provider_of(bridge, key="wr0ng")
    with trio.fail_after(WITHIN):
        for asked in (provider.create("t"), provider.endpoint(NEVER), provider.destroy(NEVER)):
            with pytest.raises(ProviderError, match="401: Unauthorized") as refused:
                await asked
            assert not isinstance(refused.value, SandboxDestroyed)
            assert "wr0ng" not in str(refused.value)
    assert bridge.sandboxes == {}


async def test_when_to_try_again_is_told(bridge: FakeBridge) -> None:
    bridge.refusals.append(Reply(429, b"error code: 1015", {"Content-Type": "text/plain", "Retry-After": "9"}))
    told = "429: error code: 1015; try again after 9 seconds"
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=told):
        await provider_of(bridge).create("t")


async def test_that_there_is_no_room_is_told(bridge: FakeBridge) -> None:
    bridge.instances = 0
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="503: instance limit reached"):
        await provider_of(bridge).create("t")


async def test_why_a_server_does_not_start_is_told_and_nothing_stays(bridge: FakeBridge) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-command: not found"):
        await provider_of(bridge, "no-such-command").create("t")
    assert bridge.sandboxes == {}


async def test_what_may_be_left_is_told(bridge: FakeBridge) -> None:
    bridge.broken.add("DELETE")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-command: not found") as failed:
        await provider_of(bridge, "no-such-command").create("t")
    (note,) = failed.value.__notes__
    assert "may be left" in note
    assert len(bridge.sandboxes) == 1


async def test_a_wheel_that_is_too_large_for_the_bridge_is_told(bridge: FakeBridge, tmp_path: Path) -> None:
    wheel = tmp_path / "large-1-py3-none-any.whl"
    with wheel.open("wb") as file:
        file.truncate((32 << 20) + 1)
    provider = provider_of(bridge, server=Server(install=Wheel(wheel), port=free_port()))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="413: payload too large"):
        await provider.create("t")
    assert bridge.sandboxes == {}


async def test_a_create_that_is_cancelled_while_the_container_starts_leaves_nothing(bridge: FakeBridge) -> None:
    bridge.hold()
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider_of(bridge, NO_SERVER).create, "t")
            assert await trio.to_thread.run_sync(bridge.held.wait, 10)
            nursery.cancel_scope.cancel()
            bridge.release()
    assert len(bridge.executed) == 1
    assert bridge.sandboxes == {}


def test_a_create_that_asyncio_cancels_leaves_nothing(bridge: FakeBridge) -> None:
    bridge.hold()
    cancelled_by_asyncio(lambda: provider_of(bridge, NO_SERVER).create("t"), bridge.held, bridge.release)
    assert len(bridge.executed) == 1
    assert bridge.sandboxes == {}


@pytest.mark.parametrize("garbage", [b"{", b"[]", b"{}", b"\xff"])
async def test_an_answer_that_makes_no_sense_is_told(bridge: FakeBridge, garbage: bytes) -> None:
    bridge.refusals.append(Reply(200, garbage, {"Content-Type": "application/json"}))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="the bridge's answer"):
        await provider_of(bridge).create("t")


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b"", "ends before the script does"),
        (b"event: exit\ndata: {}\n\n", "has no exit_code"),
        (b'event: error\ndata: {"error": "it burns", "code": "exec_error"}\n\n', "it burns"),
        (b"event: stdout\ndata: !!!\n\n", "is no base64"),
    ],
)
async def test_output_that_makes_no_sense_is_told(bridge: FakeBridge, stream: bytes, told: str) -> None:
    bridge.refusals.append(Reply(200, [stream], {"Content-Type": "text/event-stream"}))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=told):
        await provider_of(bridge).endpoint(NEVER)


async def test_a_bridge_that_cannot_be_reached_is_told() -> None:
    provider = CloudflareProvider(f"http://127.0.0.1:{free_port()}")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"Cloudflare: .*connect"):
        await provider.create("t")


def test_without_an_address_it_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANDBOX_API_URL", raising=False)
    with pytest.raises(ProviderError, match="SANDBOX_API_URL"):
        CloudflareProvider()
