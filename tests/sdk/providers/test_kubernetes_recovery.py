"""Sandboxes of the Kubernetes provider whose pods fail, whose time ends, or that somebody else has changed."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sandbox_agent.errors import ProviderError, SandboxDestroyed, UnsupportedByProvider
from sdk.fakes.kubernetes.cluster import NAMESPACE, FakeCluster
from sdk.fakes.kubernetes.kubelet import BROKEN, STAND_IN
from sdk.fakes.kubernetes.making import provider_of
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_agent.providers import KubernetesProvider
    from sdk.fakes.kubernetes.making import Made

WITHIN = 60
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"

SOON = 1.5
"""Seconds after which a provider stops waiting for a pod that does not come back."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with FakeCluster(tmp_path_factory.mktemp("cluster")).running() as cluster:
        yield cluster


def by_address(cluster: FakeCluster, made: Made, **options: Any) -> KubernetesProvider:
    return provider_of(cluster, made, "cluster", **({"image": STAND_IN} | options))


@pytest.mark.parametrize("made", ["sandbox", "pod"])
async def test_an_evicted_pod_whose_files_went_with_it_is_a_sandbox_that_is_gone(
    cluster: FakeCluster, made: Made
) -> None:
    provider = by_address(cluster, made)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        await trio.to_thread.run_sync(cluster.kubelet.evict, NAMESPACE, cluster.pod_name(sandbox_id))
        for method in (provider.ensure_server, provider.reconnect):
            with pytest.raises(SandboxDestroyed, match="low on resource: memory"):
                await method(sandbox_id)
        await provider.destroy(sandbox_id)


async def test_an_evicted_pod_with_a_volume_is_replaced_by_one_with_that_volume(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "sandbox", storage="1Gi")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        before = cluster.running_pod(sandbox_id)
        volumes = cluster.store.all("persistentvolumeclaims")
        await trio.to_thread.run_sync(cluster.kubelet.evict, NAMESPACE, cluster.pod_name(sandbox_id))
        await provider.ensure_server(sandbox_id)
        assert cluster.running_pod(sandbox_id) is not before
        assert cluster.store.all("persistentvolumeclaims") == volumes
        await provider.destroy(sandbox_id)
        assert cluster.store.all("persistentvolumeclaims") == []


async def test_a_plain_pod_that_somebody_has_deleted_is_a_sandbox_that_is_gone(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "pod")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        cluster.store.delete("pods", NAMESPACE, cluster.pod_name(sandbox_id))
        with pytest.raises(SandboxDestroyed):
            await provider.ensure_server(sandbox_id)
        await eventually(lambda: not cluster.store.all("pods"))
        await eventually(lambda: not cluster.store.all("secrets"))


async def test_a_new_pod_without_the_old_ones_files_is_not_taken_for_the_sandbox(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "sandbox")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        name = cluster.pod_name(sandbox_id)
        before = cluster.store.get("pods", NAMESPACE, name)["metadata"]["uid"]
        cluster.store.delete("pods", NAMESPACE, name)
        await eventually(
            lambda: (
                (pod := cluster.store.find("pods", NAMESPACE, name)) is not None and pod["metadata"]["uid"] != before
            )
        )
        with pytest.raises(SandboxDestroyed, match="its files went with the old one"):
            await provider.ensure_server(sandbox_id)
        await provider.destroy(sandbox_id)


async def test_a_pod_that_does_not_get_ready_is_replaced_where_its_files_outlive_it(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "sandbox", storage="1Gi", recover_within=SOON)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        name = cluster.pod_name(sandbox_id)
        before = cluster.store.get("pods", NAMESPACE, name)["metadata"]["uid"]
        cluster.kubelet.mute.add(name)
        await eventually(lambda: "False" in str(cluster.store.get("pods", NAMESPACE, name)["status"]))
        await provider.ensure_server(sandbox_id)
        assert cluster.store.get("pods", NAMESPACE, name)["metadata"]["uid"] != before
        await provider.kill(sandbox_id)


async def test_a_pod_that_does_not_get_ready_is_left_where_its_files_would_go_with_it(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "pod", recover_within=SOON)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        name = cluster.pod_name(sandbox_id)
        cluster.kubelet.mute.add(name)
        await eventually(lambda: "False" in str(cluster.store.get("pods", NAMESPACE, name)["status"]))
        with pytest.raises(ProviderError, match="containers with unready status"):
            await provider.ensure_server(sandbox_id)
        cluster.kubelet.mute.discard(name)
        await provider.ensure_server(sandbox_id)
        await provider.kill(sandbox_id)


async def test_a_server_that_hangs_is_replaced_with_its_pod(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "sandbox", storage="1Gi", recover_within=SOON)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        running = cluster.running_pod(sandbox_id)
        assert running.process is not None
        os.kill(running.process.pid, signal.SIGSTOP)
        cluster.store.change(
            "pods",
            NAMESPACE,
            cluster.pod_name(sandbox_id),
            lambda pod: pod["spec"].update(terminationGracePeriodSeconds=1),
        )
        await provider.ensure_server(sandbox_id)
        assert cluster.running_pod(sandbox_id) is not running
        await provider.kill(sandbox_id)


async def test_why_a_server_does_not_start_is_told(cluster: FakeCluster) -> None:
    before = cluster.count()
    with trio.fail_after(WITHIN):
        with pytest.raises(ProviderError, match=r"CrashLoopBackOff: .*; Error \(exit code 3\)"):
            await provider_of(cluster, "sandbox", image=BROKEN).create(OF_SERVER)
        with pytest.raises(ProviderError, match="ImagePullBackOff: Back-off pulling image nowhere/to/be:found"):
            await provider_of(cluster, "pod", image="nowhere/to/be:found").create(OF_SERVER)
    assert cluster.count() == before
    assert cluster.store.all("secrets") == [], (cluster.store.everything(), cluster.api.asked[-60:])


async def test_a_sandbox_whose_time_is_over_is_gone(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "sandbox", ttl=600)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        name = cluster.pod_name(sandbox_id)
        past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        cluster.store.change("sandboxes", NAMESPACE, name, lambda each: each["spec"].update(shutdownTime=past))
        await eventually(lambda: cluster.store.find("pods", NAMESPACE, name) is None)
        for method in (provider.ensure_server, provider.reconnect, provider.endpoint, provider.extend):
            with pytest.raises(SandboxDestroyed):
                await method(sandbox_id)


async def test_time_begins_anew_while_somebody_reaches_the_sandbox_and_rests_while_it_is_paused(
    cluster: FakeCluster,
) -> None:
    provider = by_address(cluster, "sandbox", storage="1Gi", ttl=3.0)

    def ends() -> str:
        return str(cluster.store.get("sandboxes", NAMESPACE, cluster.pod_name(sandbox_id))["spec"].get("shutdownTime"))

    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        first = ends()
        assert first < (datetime.now(UTC) + timedelta(seconds=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
        async with provider.reach(sandbox_id):
            await eventually(lambda: ends() > first)
            second = ends()
            await eventually(lambda: ends() > second)
        await provider.pause(sandbox_id)
        assert ends() == "None"
        await provider.reconnect(sandbox_id)
        await provider.extend(sandbox_id, 3600)
        assert ends() > (datetime.now(UTC) + timedelta(minutes=50)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await provider.kill(sandbox_id)


async def test_a_plain_pod_can_neither_be_paused_nor_given_time(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "pod")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        with pytest.raises(UnsupportedByProvider):
            await provider.pause(sandbox_id)
        with pytest.raises(UnsupportedByProvider):
            await provider.extend(sandbox_id, 60)
        with pytest.raises(ProviderError, match="say how many seconds"):
            await provider.extend(sandbox_id)
        await provider.kill(sandbox_id)


async def test_a_token_that_was_taken_away_is_told(cluster: FakeCluster) -> None:
    provider = by_address(cluster, "pod")
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        cluster.store.delete("secrets", NAMESPACE, cluster.pod_name(sandbox_id))
        with pytest.raises(ProviderError, match="with the sandbox's token is gone"):
            await provider.endpoint(sandbox_id)
        await provider.kill(sandbox_id)
