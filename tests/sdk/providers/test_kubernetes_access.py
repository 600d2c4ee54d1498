"""How the Kubernetes provider finds its cluster, and who it is there."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from sandbox_agent.errors import MissingExtra, ProviderError
from sandbox_agent.providers import KubernetesProvider
from sdk.fakes.certificate import make_certificate
from sdk.fakes.kubernetes.cluster import NAMESPACE, FakeCluster
from sdk.fakes.kubernetes.kubelet import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITHIN = 30
"""Seconds for a whole test."""

OF_SERVER = "t0ken-of-the-server"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    with FakeCluster(tmp_path).running() as cluster:
        yield cluster


def provider_of(kubeconfig: Path, reach: str = "cluster") -> KubernetesProvider:
    return KubernetesProvider(STAND_IN, kubeconfig=kubeconfig, reach=reach)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_certificate_says_who_we_are_and_its_key_is_left_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    written = tmp_path / "temporary"
    written.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(written))
    certificate = make_certificate(tmp_path)
    data = base64.b64encode(certificate.read_bytes()).decode()

    async def check(cluster: FakeCluster) -> None:
        with anyio.fail_after(WITHIN):
            provider = provider_of(cluster.kubeconfig, "port-forward")
            sandbox_id = await provider.create(OF_SERVER)
            await provider.ensure_server(sandbox_id)  # the WebSocket of a forwarded port has the certificate, too
            await provider.destroy(sandbox_id)

    with FakeCluster(tmp_path, certificate=certificate).running() as cluster:
        user = {"client-certificate-data": data, "client-key-data": data}
        cluster.configure(user, **{"certificate-authority-data": data})
        anyio.run(check, cluster, backend=backend)
        assert list(written.iterdir()) == []


async def test_a_server_that_nobody_vouches_for_is_not_talked_to(tmp_path: Path) -> None:
    with FakeCluster(tmp_path, certificate=make_certificate(tmp_path)).running() as cluster, trio.fail_after(WITHIN):
        with pytest.raises(ProviderError, match="CERTIFICATE_VERIFY_FAILED"):
            await provider_of(cluster.kubeconfig).create(OF_SERVER)
        assert cluster.api.asked == []


async def test_a_token_that_does_not_hold_any_more_is_asked_for_anew(cluster: FakeCluster, tmp_path: Path) -> None:
    credential = tmp_path / "credential"

    def log_in(token: str) -> None:
        told = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
        credential.write_text(json.dumps(told))
        cluster.api.tokens = {token}

    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [str(credential)]}
    cluster.configure({"exec": plugin})
    with trio.fail_after(WITHIN):
        log_in("f1rst")
        provider = provider_of(cluster.kubeconfig)
        sandbox_id = await provider.create(OF_SERVER)
        log_in("sec0nd")
        await provider.ensure_server(sandbox_id)
        cluster.api.tokens = {"an0ther"}
        with pytest.raises(ProviderError, match="401 Unauthorized") as refused:
            await provider.destroy(sandbox_id)
        assert "sec0nd" not in str(refused.value)
        log_in("third")
        await provider.destroy(sandbox_id)
    assert cluster.count() == 0


async def test_the_namespace_is_the_contexts_or_the_one_that_is_named(cluster: FakeCluster) -> None:
    with trio.fail_after(WITHIN):
        for namespace, where in ((None, NAMESPACE), ("elsewhere", "elsewhere")):
            provider = KubernetesProvider(
                STAND_IN, kubeconfig=cluster.kubeconfig, reach="cluster", mode="pod", namespace=namespace
            )
            sandbox_id = await provider.create(OF_SERVER)
            assert [each["metadata"]["namespace"] for each in cluster.store.all("pods")] == [where]
            assert [each["metadata"]["namespace"] for each in cluster.store.all("secrets")] == [where]
            await provider.destroy(sandbox_id)


async def test_a_cluster_that_is_not_to_be_found_is_told_and_no_secret_with_it(tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    with trio.fail_after(WITHIN):
        with pytest.raises(ProviderError, match=r"no way to a Kubernetes cluster: ValueError: .*credentials"):
            await provider_of(config).create(OF_SERVER)
        config.write_text("users: [{name: app, user: {token: s3cret\n")
        with pytest.raises(ProviderError, match="no way to a Kubernetes cluster") as told:
            await provider_of(config).create(OF_SERVER)
        assert "s3cret" not in str(told.value)


async def test_a_context_that_is_not_there_is_told(cluster: FakeCluster) -> None:
    provider = KubernetesProvider(STAND_IN, kubeconfig=cluster.kubeconfig, context="production")
    with trio.fail_after(WITHIN), pytest.raises(ProviderError, match="production"):
        await provider.create(OF_SERVER)


async def test_the_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kr8s._auth", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[kubernetes\]"):
        await provider_of(tmp_path / "kubeconfig").create(OF_SERVER)
