"""Providers for a fake cluster, and the example manifests that it is fed with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml  # type: ignore[import-untyped,unused-ignore]

from sandbox_agent.providers import KubernetesProvider

from .kubelet import IMAGE

if TYPE_CHECKING:
    from .cluster import FakeCluster
    from .store import Object

__all__ = ["MANIFESTS", "POOL", "Made", "manifest", "provider_of", "stock"]

MANIFESTS = Path(__file__).resolve().parents[4] / "deploy" / "kubernetes"

POOL = "sandbox-agent"

Made: TypeAlias = Literal["pod", "sandbox", "claim"]


def manifest(file: str, kind: str) -> Object:
    """The object of a kind in one of the example manifests."""
    found = [each for each in yaml.safe_load_all((MANIFESTS / file).read_text()) if each["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of this kind"
    body: Object = found[0]
    return body


def stock(
    cluster: FakeCluster,
    replicas: int = 1,
    *options: str,
    name: str = POOL,
    storage: bool = False,
    image: str = IMAGE,
) -> None:
    """Fill a warm pool, made of the example manifests.

    Args:
      options: further ones of the servers.
      storage: on a volume that outlives the pod.
    """
    template = manifest("20-template.yaml", "SandboxTemplate")["spec"]
    pod = template["podTemplate"]["spec"]
    pod["containers"][0]["command"] += options
    pod["containers"][0]["image"] = image
    if storage:
        pod["volumes"] = []
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        template["volumeClaimTemplates"] = [{"metadata": {"name": "home"}, "spec": claim}]
    cluster.pool(name, template, replicas)


def provider_of(cluster: FakeCluster, made: Made, reach: str = "port-forward", **options: Any) -> KubernetesProvider:
    """A provider whose sandboxes are of this kind, and are reached so."""
    given: dict[str, Any] = {"kubeconfig": cluster.kubeconfig, "start_within": 20.0, "recover_within": 20.0}
    given |= {"pool": POOL} if made == "claim" else {"image": IMAGE, "mode": made}
    given |= {"router": cluster.router.url} if reach == "router" else {"reach": reach}
    return KubernetesProvider(**(given | options))
