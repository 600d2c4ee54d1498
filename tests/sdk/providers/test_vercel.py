"""The Vercel provider against a fake of Vercel's API, by Vercel's own SDK."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sandbox_agent.errors import MissingExtra, ProviderError, SandboxDestroyed
from sandbox_agent.providers import Preinstalled, Server, VercelProvider
from sdk.fakes.cloud import Reply, crash_server
from sdk.fakes.vercel import PROJECT, TEAM, TOKEN, FakeVercel
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


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeVercel]:
    with FakeVercel(tmp_path).running() as cloud:
        yield cloud


def provider_of(cloud: FakeVercel, command: str = "sandbox-agent", **options: Any) -> VercelProvider:
    server = Server(install=Preinstalled(command), port=free_port())
    defaults: dict[str, Any] = {"token": TOKEN, "team": TEAM, "project": PROJECT, "url": cloud.api, "server": server}
    return VercelProvider(**(defaults | options))


@each_check()
def test_it_conforms(cloud: FakeVercel, check: Check, backend: str) -> None:
    subject = cloud_subject(
        partial(provider_of, cloud), lambda: len(cloud.sandboxes), lambda id: crash_server(cloud.sandboxes[id])
    )
    run_check(check, backend, subject)
    assert cloud.sandboxes == {}


async def test_what_is_asked_for_is_told_to_vercel(cloud: FakeVercel) -> None:
    provider = provider_of(
        cloud,
        NO_SERVER,
        image="mine:1",
        timeout=1800,
        cpus=2,
        memory=4096,
        region="iad1",
        env={"COLOUR": "green"},
        tags={"team": "blue"},
    )
    cloud.starting = 1
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
    assert cloud.starting == 0
    (told,) = cloud.created
    assert told == {
        "projectId": PROJECT,
        "name": sandbox_id,
        "image": "mine:1",
        "ports": [provider.server.port],
        "timeout": 1_800_000,
        "resources": {"vcpus": 2, "memory": 4096},
        "persistent": True,
        "env": {"COLOUR": "green"},
        "tags": {"team": "blue"},
        "region": "iad1",
    }
    assert OF_SERVER not in str(cloud.created)


async def test_a_sandbox_whose_time_was_over_comes_back_with_its_token(cloud: FakeVercel) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        for method in (provider.ensure_server, provider.endpoint, provider.reconnect):
            await trio.to_thread.run_sync(cloud.expire, sandbox_id)
            await method(sandbox_id)
        assert (await provider.endpoint(sandbox_id)).token == OF_SERVER


async def test_a_sandbox_whose_snapshot_is_gone_is_destroyed(cloud: FakeVercel) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        await provider.pause(sandbox_id)
        cloud.lose_snapshot(sandbox_id)
        for method in (provider.ensure_server, provider.endpoint, provider.reconnect):
            with pytest.raises(SandboxDestroyed, match="snapshot"):
                await method(sandbox_id)
        await provider.destroy(sandbox_id)
    assert cloud.sandboxes == {}


async def test_a_pause_ends_when_the_files_are_written(cloud: FakeVercel) -> None:
    provider = provider_of(cloud, NO_SERVER)
    cloud.resting = 2
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        await provider.pause(sandbox_id)
        assert cloud.resting == 0
        await provider.pause(sandbox_id)


async def test_a_session_gets_more_time(cloud: FakeVercel) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        await provider.extend(await provider.create(OF_SERVER), 600)
    assert cloud.extended == [600_000]


async def test_a_wrong_token_is_told_and_not_taken_for_a_sandbox_that_is_gone(cloud: FakeVercel) -> None:
    provider = provider_of(cloud, token="wr0ng")
    with trio.fail_after(WITHIN):
        for asked in (provider.create("t"), provider.endpoint("some"), provider.destroy("some")):
            with pytest.raises(ProviderError, match="Not authorized") as refused:
                await asked
            assert not isinstance(refused.value, SandboxDestroyed)
            assert "wr0ng" not in str(refused.value)


async def test_a_project_that_is_not_there_is_told(cloud: FakeVercel) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="Project not found") as refused:
        await provider_of(cloud, project="prj_other").create("t")
    assert not isinstance(refused.value, SandboxDestroyed)


async def test_when_to_try_again_is_told(cloud: FakeVercel) -> None:
    slow_down = {"error": {"code": "rate_limited", "message": "Too many requests"}}
    cloud.refusals.append(Reply.of(slow_down, 429, **{"Retry-After": "7"}))
    with (
        trio.fail_after(WITHIN),
        pytest.raises(ProviderError, match=r"429: Too many requests .*try again after 7 seconds"),
    ):
        await provider_of(cloud).create("t")
    assert cloud.created == []


async def test_why_a_server_does_not_start_is_told_and_nothing_stays(cloud: FakeVercel) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-command: not found"):
        await provider_of(cloud, "no-such-command").create("t")
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_what_may_be_left_is_told(cloud: FakeVercel) -> None:
    cloud.broken.add("DELETE")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="no-such-command: not found") as failed:
        await provider_of(cloud, "no-such-command").create("t")
    (note,) = failed.value.__notes__
    assert "may be left" in note
    assert len(cloud.sandboxes) == 1


async def test_a_create_that_is_cancelled_while_vercel_works_leaves_nothing(cloud: FakeVercel) -> None:
    cloud.hold()
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider_of(cloud, NO_SERVER).create, "t")
            assert await trio.to_thread.run_sync(cloud.held.wait, 10)
            nursery.cancel_scope.cancel()
            cloud.release()
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


def test_a_create_that_asyncio_cancels_leaves_nothing(cloud: FakeVercel) -> None:
    cloud.hold()
    cancelled_by_asyncio(lambda: provider_of(cloud, NO_SERVER).create("t"), cloud.held, cloud.release)
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_an_api_that_cannot_be_reached_is_told() -> None:
    provider = VercelProvider(token="t", team="t", project="p", url=f"http://127.0.0.1:{free_port()}")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"Vercel: .*connect"):
        await provider.endpoint("some")


async def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERCEL_TOKEN", "VERCEL_OIDC_TOKEN", "VERCEL_TEAM_ID", "VERCEL_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="VERCEL_TOKEN"):
        await VercelProvider().endpoint("some")
    with pytest.raises(ProviderError, match="all are needed"):
        VercelProvider(token="alone")


async def test_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vercel", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[vercel\]"):
        await VercelProvider().create("t")
