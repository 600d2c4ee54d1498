"""The examples in deploy/kubernetes: they are what the provider makes and needs, and a cluster takes them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import trio
import yaml  # type: ignore[import-untyped,unused-ignore]

from sandbox_agent.providers.kubernetes.manifests import PORT, Shape, claim, pod, sandbox, service
from sdk.fakes.kubernetes.cluster import FakeCluster
from sdk.fakes.kubernetes.kubelet import IMAGE, STAND_IN
from sdk.fakes.kubernetes.making import MANIFESTS, manifest, provider_of, stock
from sdk.fakes.kubernetes.schemas import check

if TYPE_CHECKING:
    from pathlib import Path

    from sdk.fakes.kubernetes.making import Made
    from sdk.fakes.kubernetes.store import Object

WITHIN = 60
"""Seconds for a whole test."""

NAMESPACE = "sandboxes"

FILES = sorted(MANIFESTS.glob("*.yaml"))

HARMLESS_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""What pods may mount where the Pod Security Standard `restricted` is enforced."""


def placed(body: Object) -> Object:
    """What we make, as it is once it is in the namespace of the examples."""
    return {**body, "metadata": {**body["metadata"], "namespace": NAMESPACE}}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_cluster_knows_every_field(file: Path) -> None:
    for body in yaml.safe_load_all(file.read_text()):
        check(body)
        where = body["metadata"]["name"] if body["kind"] == "Namespace" else body["metadata"]["namespace"]
        assert where == NAMESPACE


def test_the_plain_pod_is_the_one_that_the_provider_makes() -> None:
    example = manifest("60-plain-pod.yaml", "Pod")
    name = example["metadata"]["name"]
    assert example == placed(pod(name, Shape(image=IMAGE)))
    made = placed(service(name, {**example, "metadata": {**example["metadata"], "uid": "1"}}))
    del made["metadata"]["ownerReferences"]
    assert manifest("60-plain-pod.yaml", "Service") == made


def test_the_claim_is_the_one_that_the_provider_makes_and_leads_to_the_template() -> None:
    example = manifest("40-claim.yaml", "SandboxClaim")
    pool = manifest("30-warm-pool.yaml", "SandboxWarmPool")
    template = manifest("20-template.yaml", "SandboxTemplate")
    assert example == placed(claim(example["metadata"]["name"], pool["metadata"]["name"], None))
    assert pool["spec"]["sandboxTemplateRef"]["name"] == template["metadata"]["name"]


def test_pods_of_the_template_are_those_that_the_provider_makes_without_their_tokens() -> None:
    made = sandbox("some", Shape(image=IMAGE), None)["spec"]["podTemplate"]["spec"]
    [container] = made["containers"]
    container["command"].append("--await-init")
    container["env"] = [each for each in container["env"] if each["name"] != "SANDBOX_AGENT_TOKEN_FILE"]
    container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] != "token"]
    made["volumes"] = [each for each in made["volumes"] if each["name"] != "token"]
    assert manifest("20-template.yaml", "SandboxTemplate")["spec"]["podTemplate"]["spec"] == made


def test_pods_are_let_into_a_namespace_that_is_restricted() -> None:
    labels = manifest("00-namespace.yaml", "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = pod("some", Shape(image=IMAGE, variables=("KEY",)))["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= HARMLESS_VOLUMES
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    # Nor is there a way from the pod into the cluster.
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_probes_need_no_token() -> None:
    [container] = pod("some", Shape(image=IMAGE))["spec"]["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["tcpSocket"] == {"port": PORT}


def test_changes_to_the_pod_are_merged_into_it() -> None:
    change: dict[str, Any] = {
        "runtimeClassName": "gvisor",
        "enableServiceLinks": None,
        "securityContext": {"fsGroup": 2000},
    }
    spec = pod("some", Shape(image=IMAGE, pod=copy.deepcopy(change)))["spec"]
    assert spec["runtimeClassName"] == "gvisor"
    assert "enableServiceLinks" not in spec
    assert (spec["securityContext"]["fsGroup"], spec["securityContext"]["runAsNonRoot"]) == (2000, True)


def test_the_network_policy_holds_for_all_our_pods_and_lets_in_who_drives_them() -> None:
    policy = manifest("50-network-policy.yaml", "NetworkPolicy")["spec"]
    selected = policy["podSelector"]["matchLabels"].items()
    template = manifest("20-template.yaml", "SandboxTemplate")["spec"]
    for metadata in (
        template["podTemplate"]["metadata"],
        sandbox("some", Shape(image=IMAGE), None)["spec"]["podTemplate"]["metadata"],
        pod("some", Shape(image=IMAGE))["metadata"],
    ):
        assert selected <= metadata["labels"].items()
    assert template["networkPolicyManagement"] == "Unmanaged"  # of the controller's own
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    [ingress] = policy["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": PORT}]
    assert all(each["podSelector"]["matchLabels"] for each in ingress["from"])
    for rule in policy["egress"]:
        for to in rule["to"]:
            assert "podSelector" in to or "169.254.0.0/16" in to["ipBlock"]["except"]


async def test_the_role_allows_what_the_provider_does_and_nothing_else(tmp_path: Path) -> None:
    allowed = {
        (group, resource, verb)
        for rule in manifest("10-rbac.yaml", "Role")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    with FakeCluster(tmp_path).running() as cluster, trio.fail_after(WITHIN):
        stock(cluster, 0, storage=True, image=STAND_IN)
        options: dict[Made, dict[str, Any]] = {
            "claim": {"ttl": 600},
            "sandbox": {"image": STAND_IN, "storage": "1Gi", "ttl": 600},
            "pod": {"image": STAND_IN},
        }
        for made, given in options.items():
            provider = provider_of(cluster, made, **given)
            sandbox_id = await provider.create("t0ken")
            if made != "pod":
                await provider.pause(sandbox_id)
                await provider.reconnect(sandbox_id)
                await provider.extend(sandbox_id)
            await provider.ensure_server(sandbox_id)
            await provider.endpoint(sandbox_id)
            await provider.kill(sandbox_id)
        assert cluster.api.uses == allowed
