"""The E2B provider against a fake of E2B's API and of what is in its sandboxes, by E2B's own SDK."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from sandbox_agent.errors import MissingExtra, ProviderError, SandboxDestroyed
from sandbox_agent.providers import E2BProvider, Pip, Preinstalled, Server
from sandbox_agent.providers.e2b import _E2BMachine
from sdk.fakes.cloud import Reply, crash_server
from sdk.fakes.e2b import KEY, FakeE2B
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
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeE2B]:
    with FakeE2B(tmp_path).running() as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        yield cloud


def provider_of(command: str = "sandbox-agent", **options: Any) -> E2BProvider:
    return E2BProvider(**({"server": Server(install=Preinstalled(command), port=free_port())} | options))


@each_check()
def test_it_conforms(cloud: FakeE2B, check: Check, backend: str) -> None:
    subject = cloud_subject(provider_of, lambda: len(cloud.sandboxes), lambda id: crash_server(cloud.sandboxes[id]))
    run_check(check, backend, subject)
    assert cloud.sandboxes == {}


async def test_what_is_asked_for_is_told_to_e2b(cloud: FakeE2B) -> None:
    provider = provider_of(
        NO_SERVER, template="mine", timeout=1800.5, env={"COLOUR": "green"}, metadata={"team": "blue"}
    )
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
    (told,) = cloud.created
    assert told["metadata"].pop("sandbox-agent")
    assert told == {
        "templateID": "mine",
        "timeout": 1801,
        "autoPause": True,
        "envVars": {"COLOUR": "green"},
        "metadata": {"team": "blue"},
    }
    assert list(cloud.sandboxes) == [sandbox_id]
    assert OF_SERVER not in str(cloud.created)


async def test_nobody_reaches_the_server_but_by_the_endpoint(cloud: FakeE2B) -> None:
    provider = provider_of()
    with trio.fail_after(WITHIN):
        endpoint = await provider.endpoint(await provider.create(OF_SERVER))
        assert endpoint.token == OF_SERVER
        assert OF_SERVER not in repr(endpoint)
        token = {"Authorization": f"Bearer {OF_SERVER}"}
        async with httpx.AsyncClient(trust_env=False, headers=token) as client:
            assert (await client.get(f"{endpoint.url}/v1/health", headers=dict(endpoint.headers))).is_success
            only_routed = {name: value for name, value in endpoint.headers.items() if "Token" not in name}
            assert (await client.get(f"{endpoint.url}/v1/health", headers=only_routed)).status_code == 403


async def test_a_sandbox_whose_time_was_over_goes_on_where_it_was(cloud: FakeE2B) -> None:
    provider = provider_of()
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        before = cloud.sandboxes[sandbox_id].processes()
        await trio.to_thread.run_sync(cloud.expire, sandbox_id)
        await provider.ensure_server(sandbox_id)
        assert set(before) <= set(cloud.sandboxes[sandbox_id].processes())
        assert (await provider.endpoint(sandbox_id)).token == OF_SERVER


async def test_a_sandbox_that_is_not_to_be_paused_ends_with_its_time(cloud: FakeE2B) -> None:
    provider = provider_of(NO_SERVER, on_timeout="kill")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        await trio.to_thread.run_sync(cloud.expire, sandbox_id)
        for method in (provider.ensure_server, provider.endpoint, provider.reconnect, provider.pause):
            with pytest.raises(SandboxDestroyed, match=sandbox_id):
                await method(sandbox_id)
        await provider.destroy(sandbox_id)


async def test_time_begins_anew_while_somebody_is_connected(cloud: FakeE2B) -> None:
    provider = provider_of(NO_SERVER, timeout=0.3)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        async with provider.reach(sandbox_id):
            while len(cloud.extended) < 2:  # noqa: ASYNC110 (the cloud is of threads)
                await trio.sleep(0.02)
            # One that rests stays as it is, and the connection does not suffer from it.
            await provider.pause(sandbox_id)
            asked = len(cloud.asked)
            while len(cloud.asked) < asked + 2:  # noqa: ASYNC110
                await trio.sleep(0.02)
        await provider.destroy(sandbox_id)
    assert set(cloud.extended) == {1}


async def test_an_error_comes_out_of_a_connection_as_it_is(cloud: FakeE2B) -> None:
    provider = provider_of(NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        with pytest.raises(KeyError, match="mine"):
            async with provider.reach(sandbox_id):
                raise KeyError("mine")


async def test_a_wrong_key_is_told_and_not_taken_for_a_sandbox_that_is_gone(cloud: FakeE2B) -> None:
    provider = provider_of(api_key="e2b_wr0ng")
    with trio.fail_after(WITHIN):
        for asked in (provider.create("t"), provider.endpoint("some"), provider.destroy("some")):
            with pytest.raises(ProviderError, match="401: Unauthorized") as refused:
                await asked
            assert not isinstance(refused.value, SandboxDestroyed)
            assert "wr0ng" not in str(refused.value)
    assert cloud.created == []


async def test_what_cannot_be_an_id_is_no_sandbox(cloud: FakeE2B) -> None:
    with trio.fail_after(WITHIN):
        with pytest.raises(SandboxDestroyed):
            await provider_of().ensure_server("No_Id")
        await provider_of().destroy("No_Id")


async def test_a_limit_of_the_plan_is_told(cloud: FakeE2B) -> None:
    limit = {"code": 429, "message": "you have reached the maximum number of concurrent E2B sandboxes"}
    cloud.refusals.append(Reply.of(limit, 429, **{"Should-Retry": "false"}))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"429: Rate limit.*maximum number of concurrent"):
        await provider_of().create("t")
    assert cloud.created == []


async def test_a_moment_without_capacity_is_waited_out(cloud: FakeE2B) -> None:
    busy = Reply.of({"code": 503, "message": "no capacity"}, 503)
    cloud.refusals += [busy, busy]
    with trio.fail_after(WITHIN):
        await provider_of(NO_SERVER).create(OF_SERVER)
    assert len(cloud.created) == 1


async def test_a_sandbox_that_nobody_was_told_of_does_not_stay(cloud: FakeE2B) -> None:
    cloud.answers_lost = True
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"E2B: "):
        await provider_of().create("t")
    assert cloud.created != []
    assert cloud.sandboxes == {}


async def test_a_create_that_is_cancelled_while_e2b_works_leaves_nothing(cloud: FakeE2B) -> None:
    cloud.hold()
    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider_of().create, "t")
            assert await trio.to_thread.run_sync(cloud.held.wait, 10)
            nursery.cancel_scope.cancel()
            cloud.release()
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


def test_a_create_that_asyncio_cancels_leaves_nothing(cloud: FakeE2B) -> None:
    cloud.hold()
    cancelled_by_asyncio(lambda: provider_of(NO_SERVER).create("t"), cloud.held, cloud.release)
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_a_missing_python_is_told_in_the_sandboxs_words_and_nothing_stays(cloud: FakeE2B) -> None:
    server = Server(install=Pip(python="python3.99"), port=free_port())
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"python3\.99: .*not found"):
        await provider_of(server=server).create("t")
    assert len(cloud.created) == 1
    assert cloud.sandboxes == {}


async def test_what_may_be_left_is_told(cloud: FakeE2B) -> None:
    cloud.broken.add("DELETE")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"no-such-command: .*not found") as failed:
        await provider_of("no-such-command").create("t")
    (note,) = failed.value.__notes__
    assert "may be left" in note
    assert len(cloud.sandboxes) == 1


async def test_a_script_has_its_time_and_no_more(cloud: FakeE2B) -> None:
    provider = provider_of(NO_SERVER)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        machine = _E2BMachine(await provider._connect(sandbox_id))
        ran = await machine.run("echo out; echo err >&2; exit 3", within=10)
        assert (ran.code, ran.output, ran.errors) == (3, "out\n", "err\n")
        with pytest.raises(ProviderError, match=r"longer than 0\.2 seconds"):
            await machine.run("sleep 60", within=0.2)
        path = cloud.sandboxes[sandbox_id].home / "some file"
        await machine.write(str(path), b"\0\r\n\xff--\r\n")
        assert path.read_bytes() == b"\0\r\n\xff--\r\n"


async def test_an_api_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_API_URL", f"http://127.0.0.1:{free_port()}")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"E2B: .*connect"):
        await provider_of(api_key=KEY).endpoint("some")


async def test_a_missing_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="E2B_API_KEY"):
        await provider_of().endpoint("some")


async def test_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "e2b", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[e2b\]"):
        await provider_of().create("t")
