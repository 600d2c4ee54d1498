"""The Modal provider against a fake of Modal's API, by Modal's own SDK."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from grpclib import GRPCError, Status

from sandbox_agent.errors import MissingExtra, ProviderError, SandboxDestroyed, UnsupportedByProvider
from sandbox_agent.providers import Endpoint, ModalProvider, Preinstalled, Server, Wheel
from sandbox_agent.providers.modal import CHUNK, _ModalMachine
from sdk.fakes.cloud import crash_server
from sdk.fakes.modal import TOKEN_ID, TOKEN_SECRET, FakeModal
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


class Trusting(ModalProvider):
    """Trusts the certificate of the fake's tunnels; Modal's is one that everybody trusts."""

    def __init__(self, cloud: FakeModal, **options: Any) -> None:
        super().__init__(**options)
        self.cloud = cloud

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        return replace(await super().endpoint(sandbox_id), tls=self.cloud.tls)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModal]:
    with FakeModal(tmp_path).running() as cloud:
        monkeypatch.setenv("MODAL_SERVER_URL", cloud.url)
        yield cloud


def provider_of(cloud: FakeModal, command: str = "sandbox-agent", **options: Any) -> Trusting:
    server = Server(install=Preinstalled(command), port=free_port())
    defaults: dict[str, Any] = {"token_id": TOKEN_ID, "token_secret": TOKEN_SECRET, "server": server}
    return Trusting(cloud, **(defaults | options))


@each_check()
def test_it_conforms(cloud: FakeModal, check: Check, backend: str) -> None:
    subject = cloud_subject(
        partial(provider_of, cloud), lambda: len(cloud.sandboxes), lambda id: crash_server(cloud.sandboxes[id])
    )
    run_check(check, backend, subject)
    assert cloud.sandboxes == {}


async def test_what_is_asked_for_is_told_to_modal(cloud: FakeModal) -> None:
    provider = provider_of(
        cloud,
        NO_SERVER,
        image="debian:bookworm",
        app="mine",
        timeout=1800.5,
        idle_timeout=300,
        cpu=0.5,
        memory=4096,
        region="us-east",
        env={"COLOUR": "green"},
        tags={"team": "blue"},
    )
    with trio.fail_after(WITHIN):
        await provider.create(OF_SERVER)
    (told,) = cloud.created
    wanted = told.definition
    assert told.app_id == "ap-mine"
    assert list(wanted.entrypoint_args) == ["sleep", "infinity"]
    assert (wanted.timeout_secs, wanted.idle_timeout_secs) == (1801, 300)
    assert (wanted.resources.milli_cpu, wanted.resources.memory_mb) == (500, 4096)
    assert list(wanted.scheduler_placement.regions) == ["us-east"]
    assert [(spec.port, spec.unencrypted) for spec in wanted.open_ports.ports] == [(provider.server.port, False)]
    assert [dict(source.env.contents) for source in told.secret_sources] == [{"COLOUR": "green"}]
    assert {tag.tag_name: tag.tag_value for tag in told.tags} == {"team": "blue"}
    assert OF_SERVER not in str(told)


async def test_a_sandbox_whose_time_is_over_is_gone(cloud: FakeModal) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        await trio.to_thread.run_sync(cloud.expire, sandbox_id)
        for method in (provider.endpoint, provider.ensure_server, provider.reconnect):
            with pytest.raises(SandboxDestroyed, match="has ended"):
                await method(sandbox_id)
        await provider.destroy(sandbox_id)


async def test_it_cannot_pause(cloud: FakeModal) -> None:
    with pytest.raises(UnsupportedByProvider):
        await provider_of(cloud).pause("some")


async def test_a_large_file_arrives_as_it_is(cloud: FakeModal) -> None:
    # A wheel is one. Its installation fails, after it was written.
    wheel = cloud.root / "large-1-py3-none-any.whl"
    data = bytes(range(256)) * (3 * CHUNK // 256) + b"end"
    wheel.write_bytes(data)
    cloud.broken.add("SandboxTerminateV2")
    provider = provider_of(cloud, server=Server(install=Wheel(wheel, python="no-such-python"), port=free_port()))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-python: not found"):
        await provider.create("t")
    (sandbox,) = cloud.sandboxes.values()
    assert (sandbox.home / ".sandbox-agent" / wheel.name).read_bytes() == data


async def test_a_wrong_token_is_told_and_not_taken_for_a_sandbox_that_is_gone(cloud: FakeModal) -> None:
    provider = provider_of(cloud, token_secret="wr0ng")
    with trio.fail_after(WITHIN):
        for asked in (provider.create("t"), provider.endpoint("some"), provider.destroy("some")):
            with pytest.raises(ProviderError, match="is malformed") as refused:
                await asked
            assert not isinstance(refused.value, SandboxDestroyed)
            assert "wr0ng" not in str(refused.value)
    assert cloud.created == []


async def test_that_there_is_too_much_asked_is_told(cloud: FakeModal) -> None:
    cloud.refusals.append(GRPCError(Status.RESOURCE_EXHAUSTED, "rate limit exceeded, try again in 7 seconds"))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="try again in 7 seconds"):
        await provider_of(cloud).create("t")
    assert cloud.created == []


async def test_an_app_that_is_not_there_is_no_sandbox_that_is_gone(cloud: FakeModal) -> None:
    cloud.refusals.append(GRPCError(Status.NOT_FOUND, "there is no environment of that name"))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no environment") as refused:
        await provider_of(cloud, environment="other").create("t")
    assert not isinstance(refused.value, SandboxDestroyed)


async def test_why_a_server_does_not_start_is_told_and_nothing_stays(cloud: FakeModal) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-command: not found"):
        await provider_of(cloud, "no-such-command").create("t")
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_what_may_be_left_is_told(cloud: FakeModal) -> None:
    cloud.broken.add("SandboxTerminateV2")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-command: not found") as failed:
        await provider_of(cloud, "no-such-command").create("t")
    (note,) = failed.value.__notes__
    assert "may be left" in note
    assert len(cloud.sandboxes) == 1


async def test_a_create_that_is_cancelled_while_modal_works_leaves_nothing(cloud: FakeModal) -> None:
    cloud.hold()
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider_of(cloud, NO_SERVER).create, "t")
            assert await trio.to_thread.run_sync(cloud.held.wait, 20)
            nursery.cancel_scope.cancel()
            cloud.release()
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


def test_a_create_that_asyncio_cancels_leaves_nothing(cloud: FakeModal) -> None:
    cloud.hold()
    cancelled_by_asyncio(lambda: provider_of(cloud, NO_SERVER).create("t"), cloud.held, cloud.release)
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_a_script_that_takes_too_long_is_told(cloud: FakeModal) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        async with provider._sandbox(sandbox_id) as sandbox:
            with pytest.raises(ProviderError, match="took longer than 1 seconds"):
                await _ModalMachine(sandbox).run("sleep 30", within=1)


def test_credentials_are_taken_from_the_environment(cloud: FakeModal, monkeypatch: pytest.MonkeyPatch) -> None:
    import modal

    monkeypatch.setenv("MODAL_TOKEN_ID", TOKEN_ID)
    monkeypatch.setenv("MODAL_TOKEN_SECRET", TOKEN_SECRET)
    try:
        for _ in range(2):
            with pytest.raises(SandboxDestroyed):
                anyio.run(ModalProvider().endpoint, "some", backend="trio")
        assert cloud.asked.count("AuthTokenGet") == 1
    finally:
        modal.Client.from_env().close()


async def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch, cloud: FakeModal) -> None:
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.setenv(name, "")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="Token missing"):
        await ModalProvider().endpoint("some")
    with pytest.raises(ProviderError, match="both are needed"):
        ModalProvider(token_id="alone")


async def test_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[modal\]"):
        await ModalProvider().create("t")
