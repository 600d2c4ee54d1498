"""Warm pools of the Kubernetes provider: who is told what, by whom, and who else hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import trio

from sandbox_agent import Recovery, SandboxAgent
from sandbox_agent.errors import ProviderError, SandboxDestroyed, UnsupportedByProvider
from sdk.fakes.kubernetes.cluster import NAMESPACE, FakeCluster
from sdk.fakes.kubernetes.controllers import POOL_LABEL
from sdk.fakes.kubernetes.kubelet import STAND_IN
from sdk.fakes.kubernetes.making import POOL, provider_of, stock
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox_agent.providers import KubernetesProvider
    from sdk.fakes.kubernetes.store import Object

WITHIN = 60
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"

OF_POOL = "0pen sesame"

OF_MODEL = "k3y-of-the-model"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    """A cluster with a pool of one, whose servers want a secret of who tells them something."""
    root = tmp_path_factory.mktemp("cluster")
    (root / "init-secret").write_text(OF_POOL)
    with FakeCluster(root).running() as cluster:
        stock(cluster, 1, "--init-secret-file", str(root / "init-secret"))
        yield cluster


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: FakeCluster) -> Iterator[None]:
    """Of a test are neither sandboxes nor secrets left."""
    yield
    assert cluster.count() == 0
    assert cluster.store.all("secrets") == []


async def warm(cluster: FakeCluster, pool: str = POOL) -> Object:
    """A sandbox that nobody has claimed yet, once it is ready."""
    found: list[Object] = []

    def look() -> bool:
        stock = [each for each in cluster.store.all("sandboxes") if each["metadata"]["labels"].get(POOL_LABEL) == pool]
        found[:] = [each for each in stock if each.get("status", {}).get("podIPs")]
        return bool(found)

    await eventually(look)
    return found[0]


def by_address(cluster: FakeCluster, **options: Any) -> KubernetesProvider:
    return provider_of(cluster, "claim", "cluster", **({"init_secret": OF_POOL} | options))


async def printed(sandbox: SandboxAgent, *names: str) -> list[str]:
    script = "; ".join(f'echo "${name}"' for name in names)
    return (await sandbox.processes.run("sh", "-c", script)).stdout.splitlines()


def test_a_claimed_server_is_told_its_variables_and_again_after_a_crash(cluster: FakeCluster, tmp_path: Path) -> None:
    workspace = str(tmp_path / "work")
    told = {"env": {"GREETING": "hello"}, "secrets": {"MODEL": OF_MODEL}, "workspace": workspace}
    provider = provider_of(cluster, "claim", "port-forward", init_secret=OF_POOL, **told)

    async def check() -> None:
        with anyio.fail_after(WITHIN):
            async with SandboxAgent.start(provider, token=OF_SERVER, recovery=Recovery(interval=0.1)) as sandbox:
                session = await sandbox.create_session("mock")
                assert await printed(sandbox, "GREETING", "MODEL", "HOME") == ["hello", OF_MODEL, workspace]
                sandbox_id = str(sandbox.id).partition("/")[2]
                await anyio.to_thread.run_sync(cluster.crash, sandbox_id)
                assert (await session.prompt("after the crash")).completed
                assert await printed(sandbox, "GREETING", "MODEL", "HOME") == ["hello", OF_MODEL, workspace]

    anyio.run(check, backend="asyncio")
    assert OF_MODEL not in str(cluster.store.changes)
    assert OF_MODEL not in str(cluster.api.bodies)


async def test_a_claim_is_of_a_warm_sandbox_and_goes_with_it_though_it_gets_a_new_one(cluster: FakeCluster) -> None:
    provider = by_address(cluster)
    with trio.fail_after(WITHIN):
        name = (await warm(cluster))["metadata"]["name"]
        sandbox_id = await provider.create(OF_SERVER)
        claim = cluster.store.get("sandboxclaims", NAMESPACE, sandbox_id.removeprefix("claim:"))
        assert claim["spec"] == {"warmPoolRef": {"name": POOL}, "lifecycle": {"shutdownPolicy": "Delete"}}
        assert cluster.pod_name(sandbox_id) == name
        pod = cluster.running_pod(sandbox_id).uid
        with pytest.raises(UnsupportedByProvider, match="pausing would lose its files"):
            await provider.pause(sandbox_id)
        await provider.ensure_server(sandbox_id)

        await warm(cluster)
        cluster.store.delete("sandboxes", NAMESPACE, name)
        await eventually(lambda: cluster.pod_name(sandbox_id) != name)
        with pytest.raises(SandboxDestroyed):
            await provider.ensure_server(sandbox_id)
        await provider.destroy(sandbox_id)
        await eventually(lambda: pod not in cluster.kubelet.pods)


async def test_claims_to_more_than_there_is_get_a_sandbox_each(cluster: FakeCluster) -> None:
    stock(cluster, name="small", image=STAND_IN)
    provider = by_address(cluster, pool="small")
    made: list[str] = []

    async def create() -> None:
        made.append(await provider.create(OF_SERVER))

    with trio.fail_after(WITHIN):
        await warm(cluster, "small")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(create)
        assert len({cluster.pod_name(each) for each in made}) == 3
        for each in made:
            await provider.ensure_server(each)
            await provider.destroy(each)


async def test_a_server_that_somebody_else_was_first_to_tell_is_not_taken(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN):
        [ip] = (await warm(cluster))["status"]["podIPs"]
        async with httpx.AsyncClient(trust_env=False) as thief:
            url, secret = f"http://{ip}:2468/v1/init", {"X-Sandbox-Agent-Init-Secret": OF_POOL}
            assert (await thief.post(url, json={"token": "stolen"})).status_code == 401
            assert (await thief.post(url, json={"token": "stolen"}, headers=secret)).is_success
        with pytest.raises(ProviderError, match="does not take our token"):
            await by_address(cluster).create(OF_SERVER)


async def test_a_server_that_wants_another_secret_of_us_is_not_taken(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="cannot be initialized: 401") as refused:
        await by_address(cluster, init_secret="wr0ng").create(OF_SERVER)
    assert "wr0ng" not in str(refused.value)
    assert OF_SERVER not in str(refused.value)


async def test_what_a_server_of_a_pool_cannot_take_is_told_and_nothing_stays(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="'workspace' must be an absolute path") as refused:
        await by_address(cluster, workspace="here", secrets={"MODEL": OF_MODEL}).create(OF_SERVER)
    assert OF_MODEL not in str(refused.value)
    assert OF_SERVER not in str(refused.value)


async def test_a_pool_that_is_not_there_is_told(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match='"no-pool" not found'):
        await by_address(cluster, pool="no-pool").create(OF_SERVER)


async def test_a_cluster_without_claims_is_told(tmp_path: Path) -> None:
    with (
        FakeCluster(tmp_path, sandboxes=False).running() as plain,
        trio.fail_after(WITHIN),
        pytest.raises(ProviderError, match="no SandboxClaims"),
    ):
        await by_address(plain).create(OF_SERVER)


async def test_a_claim_with_a_volume_is_paused_and_woken(cluster: FakeCluster) -> None:
    stock(cluster, 0, name="with-volumes", storage=True, image=STAND_IN)
    provider = by_address(cluster, pool="with-volumes", ttl=600)

    def ends() -> str | None:
        claim = cluster.store.get("sandboxclaims", NAMESPACE, sandbox_id.removeprefix("claim:"))
        time: str | None = claim["spec"]["lifecycle"].get("shutdownTime")
        return time

    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(OF_SERVER)
        volumes = cluster.store.all("persistentvolumeclaims")
        assert ends() is not None
        for _ in range(2):
            await provider.pause(sandbox_id)
        assert cluster.store.find("pods", NAMESPACE, cluster.pod_name(sandbox_id)) is None
        assert ends() is None
        with pytest.raises(ProviderError, match="is paused"):
            await provider.ensure_server(sandbox_id)
        await provider.reconnect(sandbox_id)
        await provider.ensure_server(sandbox_id)
        assert ends() is not None
        assert cluster.store.all("persistentvolumeclaims") == volumes
        await provider.destroy(sandbox_id)
