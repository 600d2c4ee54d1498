"""Ways to the servers of the Kubernetes provider: a forwarded port, the pod's address, a router with its manners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from sandbox_agent import Recovery, SandboxAgent
from sandbox_agent.errors import ProviderError, SandboxDestroyed
from sandbox_agent.events import Event, MessageChunk
from sandbox_agent.providers import KubernetesProvider
from sdk.fakes.kubernetes.cluster import NAMESPACE, FakeCluster
from sdk.fakes.kubernetes.kubelet import STAND_IN
from sdk.fakes.kubernetes.making import provider_of, stock
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdk.fakes.kubernetes.making import Made

WITHIN = 60
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"

OF_ROUTER = "k3y-of-the-router"

CUT_AFTER = 0.5
"""Seconds that this router lets a request have."""

UPDATES, A_SECOND = 60, 40
"""Of a turn that takes longer than that."""

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    """A cluster with a warm pool, and a router that wants a key and cuts soon."""
    with FakeCluster(tmp_path_factory.mktemp("cluster"), cut_after=CUT_AFTER).running() as cluster:
        cluster.router.key = OF_ROUTER
        stock(cluster, image=STAND_IN)
        yield cluster


def provider_by(cluster: FakeCluster, made: Made, reach: str, **options: Any) -> KubernetesProvider:
    if reach == "router":
        options = {"router_headers": {"Authorization": f"Bearer {OF_ROUTER}"}, **options}
    return provider_of(cluster, made, reach, **options)


@pytest.mark.parametrize("made", ["claim", "sandbox", "pod"])
async def test_all_ways_lead_to_the_same_server(cluster: FakeCluster, made: Made) -> None:
    image = {} if made == "claim" else {"image": STAND_IN}
    with trio.fail_after(WITHIN):
        sandbox_id = await provider_by(cluster, made, "cluster", **image).create(OF_SERVER)
        for reach in ("cluster", "router", "port-forward"):
            provider = provider_by(cluster, made, reach, **image)
            await provider.ensure_server(sandbox_id)
            async with provider.reach(sandbox_id) as endpoint, httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"{endpoint.url}/v1/health", headers=dict(endpoint.headers))
                assert answer.json() == {"status": "ok"}
                assert endpoint.token == OF_SERVER
                assert OF_SERVER not in repr(endpoint)
                if reach == "router":
                    routed = {**endpoint.headers, "X-Sandbox-ID": "somebody-else"}
                    assert (await client.get(endpoint.url, headers=routed)).status_code == 502
        await provider_by(cluster, made, "cluster", **image).destroy(sandbox_id)


async def test_no_event_is_lost_where_a_router_cuts_and_keeps_credentials(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN):
        async with SandboxAgent.start(provider_by(cluster, "sandbox", "router"), token=OF_SERVER) as sandbox:
            session = await sandbox.create_session("mock")
            before = cluster.router.cuts
            async with session.stream(f"/stream {UPDATES} 20 {A_SECOND}") as turn:
                chunks = [event async for event in turn if isinstance(event, MessageChunk)]
                assert turn.result.completed
            assert cluster.router.cuts > before
            assert len(chunks) == UPDATES
            async with session.events(follow=False) as events:
                numbers = [event.seq async for event in events if isinstance(event, Event)]
            assert numbers == list(range(1, len(numbers) + 1))
            # A WebSocket is not cut, and has the token where the router leaves it.
            process = await sandbox.processes.terminal("sh", env={"PS1": "$ "})
            async with process.terminal() as terminal:
                await trio.sleep(2 * CUT_AFTER)
                await terminal.write("echo $((40 + 2)); exit\n")
                assert b"42" in b"".join([shown async for shown in terminal])
    for headers in cluster.router.seen:
        assert not any(name.lower() == "authorization" for name in headers)
    assert any(headers.get("X-Sandbox-Agent-Token") == OF_SERVER for headers in cluster.router.seen)


async def test_a_router_that_does_not_know_us_is_told_apart_from_a_sandbox_that_is_gone(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN):
        sandbox_id = await provider_by(cluster, "pod", "cluster", image=STAND_IN).create(OF_SERVER)
        provider = provider_by(cluster, "pod", "router", image=STAND_IN, router_headers={"Authorization": "Bearer no"})
        with pytest.raises(ProviderError, match="a router before it, does not take our token") as refused:
            await provider.ensure_server(sandbox_id)
        assert not isinstance(refused.value, SandboxDestroyed)
        await provider.destroy(sandbox_id)


async def test_files_of_a_plain_pod_go_through_a_forwarded_port_and_outlive_a_crash(cluster: FakeCluster) -> None:
    content = bytes(range(256)) * (MIB // 256)
    provider = provider_by(cluster, "pod", "port-forward")
    with trio.fail_after(WITHIN):
        async with SandboxAgent.start(provider, recovery=Recovery(interval=0.1)) as sandbox:
            async with trio.open_nursery() as nursery:
                for name in ("one", "two"):
                    nursery.start_soon(sandbox.files.write, name, content)
            assert await sandbox.files.read("one") == content
            await trio.to_thread.run_sync(cluster.crash, str(sandbox.id).partition("/")[2])
            assert await sandbox.files.read("two") == content


async def test_a_port_that_may_not_be_forwarded_is_told(cluster: FakeCluster) -> None:
    provider = provider_by(cluster, "pod", "port-forward", image=STAND_IN)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        # Over WebSockets it is a `get`, and from Kubernetes 1.35 on a `create` as well.
        cluster.api.forbidden.add(("get", "pods/portforward"))
        try:
            with pytest.raises(ProviderError, match=r'403 .*cannot get resource "pods/portforward"'):
                async with provider.reach(sandbox_id):
                    raise AssertionError("it leads nowhere")
        finally:
            cluster.api.forbidden.clear()
        await provider.destroy(sandbox_id)


async def test_a_forwarded_port_whose_server_is_away_ends_its_connections_and_takes_new_ones(
    cluster: FakeCluster,
) -> None:
    provider = provider_by(cluster, "sandbox", "port-forward", image=STAND_IN)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        async with provider.reach(sandbox_id) as endpoint, httpx.AsyncClient(trust_env=False) as client:
            running = cluster.running_pod(sandbox_id)
            assert running.process is not None
            running.wait_until = float("inf")  # no restart
            running.process.kill()
            await eventually(lambda: running.process is None)
            with pytest.raises(httpx.TransportError):
                await client.get(endpoint.url)
            running.wait_until = 0.0
            await provider.ensure_server(sandbox_id)
            assert (await client.get(endpoint.url)).is_success
        await provider.destroy(sandbox_id)
        with pytest.raises(SandboxDestroyed):
            await provider.endpoint(sandbox_id)
    assert cluster.store.find("pods", NAMESPACE, sandbox_id.partition(":")[2]) is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give an image, or a pool"),
        ({"image": "i", "pool": "p"}, "give an image, or a pool"),
        ({"image": "i", "mode": "pod", "ttl": 60}, "a plain pod has no storage"),
        ({"pool": "p", "storage": "1Gi"}, "the pool's template says"),
        ({"image": "i", "reach": "router"}, "give the router's URL"),
        ({"image": "i", "router": "http://r", "reach": "cluster"}, "give the router's URL"),
        ({"image": "i", "router": "router.example"}, "the router: 'router.example' is no URL"),
        ({"image": "i", "env": {"A B": "c"}}, "no names of environment variables: A B"),
        ({"pool": "p", "env": {"SANDBOX_AGENT_GRACE": "1"}}, "belong into its template: SANDBOX_AGENT_GRACE"),
    ],
)
def test_options_that_make_no_sense_are_told_at_once(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ProviderError, match=complaint):
        KubernetesProvider(**options)
