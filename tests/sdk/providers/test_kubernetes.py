"""The Kubernetes provider against a fake cluster, by its longest way: a Sandbox with a volume, by a forwarded port.

What is different with warm pools, with plain pods and by other ways is looked at in the modules beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trio

from sandbox_agent.providers.conformance import CHECKS, Check, Subject, name_of
from sdk.fakes.kubernetes.cluster import FakeCluster
from sdk.fakes.kubernetes.kubelet import BROKEN
from sdk.fakes.kubernetes.making import provider_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_agent.providers import KubernetesProvider

WITHIN = 90
"""Seconds for a whole test."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with FakeCluster(tmp_path_factory.mktemp("cluster")).running() as cluster:
        yield cluster


def subject_of(cluster: FakeCluster) -> Subject:
    def provider(**options: Any) -> KubernetesProvider:
        return provider_of(cluster, "sandbox", "port-forward", storage="1Gi", **options)

    async def crash(sandbox_id: str) -> None:
        await anyio.to_thread.run_sync(cluster.crash, sandbox_id)

    async def count() -> int:
        await anyio.lowlevel.checkpoint()
        return cluster.count()

    return Subject(provider=provider(), again=provider, crash=crash, count=count, broken=provider(image=BROKEN))


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_it_conforms(cluster: FakeCluster, check: Check) -> None:
    with trio.fail_after(WITHIN):
        await check(subject_of(cluster))
