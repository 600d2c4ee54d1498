"""What a cluster refuses, and what is left of a sandbox whose making is broken off: nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trio

from sandbox_agent.errors import ProviderError, SandboxDestroyed
from sdk.fakes.kubernetes.cluster import FakeCluster
from sdk.fakes.kubernetes.kubelet import STAND_IN
from sdk.fakes.kubernetes.making import provider_of, stock
from sdk.fakes.kubernetes.store import Refusal
from support.daemon import free_port
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox_agent.providers import KubernetesProvider
    from sdk.fakes.kubernetes.making import Made

WITHIN = 60
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"

AT_LEAST = 6
"""Requests of a create, whatever is made."""


@pytest.fixture(scope="module")
def the_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with FakeCluster(tmp_path_factory.mktemp("cluster")).running() as cluster:
        stock(cluster, 0, image=STAND_IN)
        yield cluster


@pytest.fixture
def cluster(the_cluster: FakeCluster) -> Iterator[FakeCluster]:
    """The cluster, in which a test leaves nothing: no sandbox, no token, no pod."""
    yield the_cluster
    the_cluster.api.forbidden.clear()
    the_cluster.store.quota = None
    left = [
        plural for plural, _ in the_cluster.store.everything() if plural not in ("sandboxtemplates", "sandboxwarmpools")
    ]
    assert left == []


def provider(cluster: FakeCluster, made: Made, **options: Any) -> KubernetesProvider:
    image = {} if made == "claim" else {"image": STAND_IN}
    return provider_of(cluster, made, "cluster", **(image | options))


async def create_and_destroy(provider: KubernetesProvider) -> None:
    await provider.destroy(await provider.create(OF_SERVER))


@pytest.mark.parametrize("made", ["sandbox", "claim"])
async def test_a_create_that_is_cancelled_at_any_of_its_requests_leaves_nothing(
    cluster: FakeCluster, made: Made
) -> None:
    with trio.fail_after(WITHIN):
        for number in range(1, AT_LEAST + 1):
            cluster.api.hold(number)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(create_and_destroy, provider(cluster, made))
                assert await trio.to_thread.run_sync(cluster.api.held.wait, WITHIN)
                nursery.cancel_scope.cancel()
                cluster.api.release()
            assert cluster.count() == 0, f"request {number}"
            await eventually(lambda: not cluster.store.all("pods"))


def test_a_create_that_asyncio_cancels_at_any_of_its_requests_leaves_nothing(cluster: FakeCluster) -> None:
    async def cancel_it(number: int) -> None:
        cluster.api.hold(number)
        create = asyncio.create_task(create_and_destroy(provider(cluster, "pod")))
        assert await anyio.to_thread.run_sync(cluster.api.held.wait, WITHIN)
        create.cancel()
        asyncio.get_running_loop().call_later(0.1, cluster.api.release)
        with pytest.raises(asyncio.CancelledError):
            await create
        cluster.api.release()

    for number in range(1, AT_LEAST + 1):
        anyio.run(cancel_it, number, backend="asyncio")
        assert (cluster.count(), cluster.store.all("secrets"), cluster.store.all("services")) == (0, [], []), number


@pytest.mark.parametrize(
    ("made", "verb", "resource"),
    [
        ("pod", "create", "secrets"),
        ("pod", "create", "pods"),
        ("pod", "create", "services"),
        ("pod", "list", "pods"),
        ("sandbox", "create", "sandboxes"),
        ("sandbox", "patch", "secrets"),
        ("sandbox", "patch", "sandboxes"),
        ("claim", "create", "sandboxclaims"),
        ("claim", "get", "sandboxes"),
    ],
)
async def test_what_we_may_not_do_is_told_and_nothing_stays(
    cluster: FakeCluster, made: Made, verb: str, resource: str
) -> None:
    cluster.api.forbidden.add((verb, resource))
    with trio.fail_after(WITHIN):
        with pytest.raises(ProviderError, match=f'403 .*"app" cannot {verb} resource "{resource}"') as refused:
            await provider(cluster, made).create(OF_SERVER)
        assert OF_SERVER not in str(refused.value)
        assert not isinstance(refused.value, SandboxDestroyed)
        await eventually(lambda: not cluster.store.all("pods"))


async def test_a_sandbox_that_we_may_not_see_is_not_taken_for_one_that_is_gone(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN):
        sandbox_id = await provider(cluster, "sandbox").create(OF_SERVER)
        cluster.api.forbidden |= {("get", "sandboxes"), ("watch", "pods")}
        for method in (provider(cluster, "sandbox").ensure_server, provider(cluster, "sandbox").endpoint):
            with pytest.raises(ProviderError, match="cannot get resource") as refused:
                await method(sandbox_id)
            assert not isinstance(refused.value, SandboxDestroyed)
        cluster.api.forbidden.remove(("get", "sandboxes"))
        # Without watches it is asked again and again.
        await provider(cluster, "sandbox").ensure_server(sandbox_id)
        await provider(cluster, "sandbox").destroy(sandbox_id)


async def test_what_may_be_left_is_told(cluster: FakeCluster) -> None:
    cluster.api.forbidden |= {("list", "pods"), ("delete", "pods")}
    with trio.fail_after(WITHIN):
        with pytest.raises(ProviderError, match="cannot list") as failed:
            await provider(cluster, "pod").create(OF_SERVER)
        assert "may be left" in str(failed.value.__notes__)
        assert "cannot delete" in str(failed.value.__notes__)
        cluster.api.forbidden.clear()
        [left] = cluster.store.all("pods")
        await provider(cluster, "pod").destroy(f"pod:{left['metadata']['name']}")


async def test_a_quota_that_is_used_up_is_told_by_whoever_hears_of_it(cluster: FakeCluster) -> None:
    cluster.store.quota = 0
    with trio.fail_after(WITHIN):
        with pytest.raises(ProviderError, match=r"403 .*exceeded quota: few"):
            await provider(cluster, "pod").create(OF_SERVER)
        for made in ("sandbox", "claim"):
            # Somebody may make room: it is waited for that.
            impatient = provider(cluster, made, start_within=0.5)
            with pytest.raises(ProviderError, match=r"not ready within 0\.5 s: ReconcilerError: .*exceeded quota: few"):
                await impatient.create(OF_SERVER)


async def test_room_that_somebody_makes_is_waited_for_though_watches_are_cut_and_forgotten(
    cluster: FakeCluster,
) -> None:
    cluster.store.quota = 0
    made: list[str] = []

    async def create() -> None:
        made.append(await provider(cluster, "sandbox").create(OF_SERVER))

    def watched() -> int:
        return cluster.api.asked.count("GET /api/v1/namespaces/agents/pods")

    with trio.fail_after(WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            for _ in range(2):
                before = watched()
                await eventually(lambda: watched() >= before + 2)  # noqa: B023 (it is waited for here)
                cluster.store.forget()
                cluster.api.cut_watches()
            cluster.store.quota = None
        await provider(cluster, "sandbox").destroy(made[0])


async def test_a_server_that_is_too_busy_is_asked_again_and_one_that_stays_so_is_told(cluster: FakeCluster) -> None:
    busy = Refusal(429, "TooManyRequests", "the server has received too many requests")
    with trio.fail_after(WITHIN):
        cluster.api.refusals.append(busy)
        await create_and_destroy(provider(cluster, "pod"))
        cluster.api.retry_after = "0"
        cluster.api.refusals += [busy] * 6
        with pytest.raises(ProviderError, match="429 the server has received too many requests"):
            await provider(cluster, "pod").endpoint("pod:sandbox-agent-0123456789abcdef")
    assert cluster.api.refusals == []


async def test_what_is_no_id_of_ours_is_gone_and_nobody_is_asked(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN):
        asked = len(cluster.api.asked)
        with pytest.raises(SandboxDestroyed, match="ours are called"):
            await provider(cluster, "pod").endpoint("pod:kube-apiserver")
        await provider(cluster, "pod").destroy("pod:kube-apiserver")
        assert len(cluster.api.asked) == asked


async def test_a_server_that_nobody_runs_is_told(cluster: FakeCluster, tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(cluster.kubeconfig.read_text().replace(cluster.api.url, f"http://127.0.0.1:{free_port()}"))
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match=r"the API server .* cannot be asked"):
        await provider(cluster, "pod", kubeconfig=config).create(OF_SERVER)
