"""The Daytona provider against a fake of Daytona's API and of what is in its sandboxes, by Daytona's own SDK."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from sandbox_agent.errors import MissingExtra, ProviderError, SandboxDestroyed
from sandbox_agent.providers import DaytonaProvider, Pip, Preinstalled, Server
from sandbox_agent.providers.daytona import _DaytonaMachine
from sdk.fakes.cloud import Reply, crash_server
from sdk.fakes.daytona import KEY, FakeDaytona
from support.cancelling import cancelled_by_asyncio
from support.conforming import cloud_subject, each_check, run_check
from support.daemon import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox_agent.providers.conformance import Check

WITHIN = 60
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"

NO_SERVER = "true"
"""A command that starts nothing, and is content with that: for what needs no server."""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeDaytona]:
    with FakeDaytona(tmp_path).running() as cloud:
        yield cloud


def provider_of(cloud: FakeDaytona, command: str = "sandbox-agent", **options: Any) -> DaytonaProvider:
    server = Server(install=Preinstalled(command), port=free_port())
    defaults: dict[str, Any] = {"api_key": KEY, "url": cloud.api, "server": server}
    return DaytonaProvider(**(defaults | options))


@each_check()
def test_it_conforms(cloud: FakeDaytona, check: Check, backend: str) -> None:
    subject = cloud_subject(
        partial(provider_of, cloud), lambda: len(cloud.sandboxes), lambda id: crash_server(cloud.machine(id))
    )
    run_check(check, backend, subject)
    assert cloud.sandboxes == {}


async def test_what_is_asked_for_is_told_to_daytona(cloud: FakeDaytona) -> None:
    provider = provider_of(
        cloud,
        NO_SERVER,
        snapshot="mine",
        idle_timeout=90,
        env={"COLOUR": "green"},
        labels={"team": "blue"},
        target="eu",
    )
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
    (told,) = cloud.created
    assert told["labels"].pop("code-toolbox-language") == "python"
    wanted = {
        "name": sandbox_id,
        "snapshot": "mine",
        "autoStopInterval": 2,
        "env": {"COLOUR": "green"},
        "labels": {"team": "blue"},
        "target": "eu",
        "volumes": [],
    }
    assert {name: value for name, value in told.items() if value is not None} == wanted
    assert OF_SERVER not in str(cloud.created)


async def test_an_image_has_its_resources(cloud: FakeDaytona) -> None:
    provider = provider_of(cloud, NO_SERVER, image="python:3.13", cpu=2, memory=4, disk=8, idle_timeout=None)
    with trio.fail_after(WITHIN):
        await provider.create(OF_SERVER)
    (told,) = cloud.created
    assert "FROM python:3.13" in told["buildInfo"]["dockerfileContent"]
    assert (told["cpu"], told["memory"], told["disk"], told["autoStopInterval"]) == (2, 4, 8, 0)


def test_what_does_not_go_together_is_told() -> None:
    with pytest.raises(ProviderError, match="not of both"):
        DaytonaProvider("mine", image="python:3.13")
    with pytest.raises(ProviderError, match="with an image"):
        DaytonaProvider("mine", memory=4)


async def test_nobody_reaches_the_server_but_by_the_endpoint(cloud: FakeDaytona) -> None:
    provider = provider_of(cloud)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        endpoint = await provider.endpoint(sandbox_id)
        assert endpoint.token == OF_SERVER
        assert OF_SERVER not in repr(endpoint)
        async with httpx.AsyncClient(trust_env=False, headers={endpoint.token_header: OF_SERVER}) as client:
            assert (await client.get(f"{endpoint.url}/v1/sessions", headers=dict(endpoint.headers))).is_success
            assert (await client.get(f"{endpoint.url}/v1/sessions")).status_code == 401


async def test_a_sandbox_that_was_stopped_comes_back_with_its_token_and_another_preview(cloud: FakeDaytona) -> None:
    provider = provider_of(cloud)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        before = await provider.endpoint(sandbox_id)
        await trio.to_thread.run_sync(cloud.idle, sandbox_id)
        assert cloud.machine(sandbox_id).processes() == []
        await provider.ensure_server(sandbox_id)
        after = await provider.endpoint(sandbox_id)
    assert after.token == OF_SERVER
    assert after.headers != before.headers


async def test_what_is_about_to_change_is_waited_for(cloud: FakeDaytona) -> None:
    cloud.looks = 2
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        async with trio.open_nursery() as nursery:
            for method in (provider.pause, provider.pause):
                nursery.start_soon(method, sandbox_id)
        async with trio.open_nursery() as nursery:
            for method in (provider.reconnect, provider.reconnect, provider.destroy):
                nursery.start_soon(_content_with_its_end, method, sandbox_id)
    assert cloud.sandboxes == {}


async def _content_with_its_end(method: Any, sandbox_id: str) -> None:
    try:
        await method(sandbox_id)
    except SandboxDestroyed:
        return


async def test_a_sandbox_that_was_deleted_meanwhile_is_destroyed(cloud: FakeDaytona) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        await provider_of(cloud).destroy(sandbox_id)
        for method in (provider.ensure_server, provider.endpoint, provider.reconnect, provider.pause):
            with pytest.raises(SandboxDestroyed, match=sandbox_id):
                await method(sandbox_id)
        await provider.destroy(sandbox_id)


async def test_why_a_sandbox_could_not_be_made_is_told_and_nothing_stays(cloud: FakeDaytona) -> None:
    cloud.fails = True
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="the image has no such thing"):
        await provider_of(cloud).create("t")
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_a_wrong_key_is_told_and_not_taken_for_a_sandbox_that_is_gone(cloud: FakeDaytona) -> None:
    provider = provider_of(cloud, api_key="dtn_wr0ng")
    with trio.fail_after(WITHIN):
        for asked in (provider.create("t"), provider.endpoint("some"), provider.destroy("some")):
            with pytest.raises(ProviderError, match="Invalid credentials") as refused:
                await asked
            assert not isinstance(refused.value, SandboxDestroyed)
            assert "wr0ng" not in str(refused.value)
    assert cloud.created == []


@pytest.mark.parametrize(
    ("status", "message"),
    [(429, "ThrottlerException: Too Many Requests"), (403, "Total CPU limit exceeded. Maximum allowed: 10.")],
)
async def test_a_limit_is_told(cloud: FakeDaytona, status: int, message: str) -> None:
    cloud.refusals.append(Reply.of({"statusCode": status, "message": message}, status))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=message):
        await _create_once_connected(cloud)
    assert cloud.created == []


async def _create_once_connected(cloud: FakeDaytona) -> None:
    """The refusal is for the create, and not for the client's first request, by which it hears of changes."""
    provider = provider_of(cloud)
    refusals, cloud.refusals = cloud.refusals, []
    await trio.to_thread.run_sync(provider._open)
    while not any("socket.io" in asked for asked in cloud.asked):  # noqa: ASYNC110 (the cloud is of threads)
        await trio.sleep(0.02)
    cloud.refusals = refusals
    await provider.create("t")


async def test_a_create_that_is_cancelled_while_daytona_works_leaves_nothing(cloud: FakeDaytona) -> None:
    cloud.hold()
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider_of(cloud).create, "t")
            assert await trio.to_thread.run_sync(cloud.held.wait, 10)
            nursery.cancel_scope.cancel()
            cloud.release()
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


def test_a_create_that_asyncio_cancels_leaves_nothing(cloud: FakeDaytona) -> None:
    cloud.hold()
    cancelled_by_asyncio(lambda: provider_of(cloud, NO_SERVER).create("t"), cloud.held, cloud.release)
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_a_missing_python_is_told_in_the_sandboxs_words_and_nothing_stays(cloud: FakeDaytona) -> None:
    server = Server(install=Pip(python="python3.99"), port=free_port())
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"python3\.99: .*not found"):
        await provider_of(cloud, server=server).create("t")
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_what_may_be_left_is_told(cloud: FakeDaytona) -> None:
    cloud.broken.add("DELETE")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"no-such-command: .*not found") as failed:
        await provider_of(cloud, "no-such-command").create("t")
    (note,) = failed.value.__notes__
    assert "may be left" in note
    assert len(cloud.sandboxes) == 1


async def test_a_script_has_its_time_and_no_more(cloud: FakeDaytona) -> None:
    provider = provider_of(cloud, NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        machine = _DaytonaMachine(await provider._woken(sandbox_id))
        ran = await machine.run('echo "it\'s out"; echo err >&2; exit 3', within=10)
        assert (ran.code, ran.output) == (3, "it's out\nerr\n")
        with pytest.raises(ProviderError, match=r"longer than 0\.2 seconds"):
            await machine.run("sleep 60", within=0.2)
        path = cloud.machine(sandbox_id).home / "some file"
        await machine.write(str(path), b"\0\r\n\xff--\r\n")
        assert path.read_bytes() == b"\0\r\n\xff--\r\n"


async def test_an_api_that_cannot_be_reached_is_told() -> None:
    provider = DaytonaProvider(api_key=KEY, url=f"http://127.0.0.1:{free_port()}/api")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"Daytona: .*refused"):
        await provider.endpoint("some")


async def test_a_missing_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="DAYTONA_API_KEY"):
        await DaytonaProvider().endpoint("some")


async def test_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "daytona", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[daytona\]"):
        await DaytonaProvider(api_key=KEY).create("t")
