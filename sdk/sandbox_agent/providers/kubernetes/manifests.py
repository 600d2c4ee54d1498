"""What we have the cluster make: pods that are harmless as far as a pod can be, and the objects around them.

`deploy/kubernetes` has the same for warm pools, whose pods somebody else makes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .cluster import Object

__all__ = [
    "LABELS",
    "NAME",
    "NAME_LABEL",
    "PORT",
    "TOKEN",
    "Shape",
    "claim",
    "owned_by",
    "pod",
    "sandbox",
    "secret",
    "service",
]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Of a variable."""

PORT = 2468
"""That servers listen on; each pod has all ports to itself."""

LABELS = {"app.kubernetes.io/name": "sandbox-agent", "app.kubernetes.io/managed-by": "trio-sandbox-agent"}
"""Of all that we make."""

NAME_LABEL = "sandbox-agent/name"
"""The label that has the sandbox's name."""

TOKEN = "token"
"""The key of the token in the Secret. Variables have keys that begin with `env.`."""

SECRETS = "/run/secrets/sandbox-agent"

HOME = "/home/sandbox"
"""Of the server, on a volume: what is there outlives the container."""

USER = 1000
"""The user of our image, who is nobody special. A Secret's files are readable for that group."""

RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "250m", "memory": "512Mi"},
    "limits": {"memory": "4Gi"},
}
"""Room for a server and an agent at work; a compiler that runs wild ends in its own pod."""

STOP_SECONDS = 15
"""From SIGTERM to SIGKILL: the server gives itself 8."""

START_PROBES = 120
"""Seconds for a server to listen: a long journal is read through first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How pods are.

    Attributes:
      image: with `sandbox-agent` on its PATH.
      variables: names of the server's variables; their values are in the Secret.
      resources: `requests` and `limits` of the container.
      storage: size of a volume that outlives the pod; None: the files go with the pod.
      pod: changes to the pod's spec, merged into it (RFC 7386): `{"runtimeClassName": "gvisor"}`.
    """

    image: str
    variables: Sequence[str] = ()
    resources: Mapping[str, Any] | None = None
    storage: str | None = None
    pod: Mapping[str, Any] | None = None


def secret(name: str, token: str, variables: Mapping[str, str], owner: Object | None = None) -> Object:
    """The token, and the values of variables."""
    values = {TOKEN: token, **{f"env.{key}": value for key, value in variables.items()}}
    owned = {} if owner is None else {"ownerReferences": owned_by(owner)}
    metadata = {**_metadata(name), **owned}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": values}


def owned_by(owner: Object) -> list[Object]:
    """For `metadata.ownerReferences`: what has this is deleted with its owner."""
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    return [{**reference, "name": metadata["name"], "uid": metadata["uid"]}]


def pod(name: str, shape: Shape) -> Object:
    """A pod of its own, whose files go with it."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(name), "spec": _spec(name, shape)}


def service(name: str, owner: Object) -> Object:
    """The name of a plain pod, for routers and for others in the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**_metadata(name), "ownerReferences": owned_by(owner)},
        "spec": {
            "clusterIP": "None",
            "selector": {NAME_LABEL: name},
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT}],
        },
    }


def sandbox(name: str, shape: Shape, shutdown: str | None) -> Object:
    """A Sandbox, whose pod has its name."""
    spec: Object = {
        "podTemplate": {"metadata": {"labels": _labels(name)}, "spec": _spec(name, shape)},
        "service": True,
        "operatingMode": "Running",
        "shutdownPolicy": "Delete",
    }
    if shutdown is not None:
        spec["shutdownTime"] = shutdown
    if shape.storage is not None:
        storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": shape.storage}}}
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "home"}, "spec": storage}]
    return {"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "metadata": _metadata(name), "spec": spec}


def claim(name: str, pool: str, shutdown: str | None) -> Object:
    """A claim to a sandbox in stock. No `env`: with it there would be a cold start."""
    lifecycle = {"shutdownPolicy": "Delete", **({} if shutdown is None else {"shutdownTime": shutdown})}
    return {
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": "SandboxClaim",
        "metadata": _metadata(name),
        "spec": {"warmPoolRef": {"name": pool}, "lifecycle": lifecycle},
    }


def _metadata(name: str) -> Object:
    return {"name": name, "labels": _labels(name)}


def _labels(name: str) -> dict[str, str]:
    return {**LABELS, NAME_LABEL: name}


def _spec(name: str, shape: Shape) -> Object:
    port = {"tcpSocket": {"port": PORT}}
    container = {
        "name": "server",
        "image": shape.image,
        "command": ["sandbox-agent", "server", "--host", "0.0.0.0", "--port", str(PORT)],
        "env": [
            {"name": "HOME", "value": HOME},
            {"name": "SANDBOX_AGENT_TOKEN_FILE", "value": f"{SECRETS}/{TOKEN}"},
            {"name": "SANDBOX_AGENT_STATE_DIR", "value": f"{HOME}/.local/state/sandbox-agent"},
            *(
                {"name": each, "valueFrom": {"secretKeyRef": {"name": name, "key": f"env.{each}"}}}
                for each in sorted(shape.variables)
            ),
        ],
        "workingDir": HOME,
        "ports": [{"name": "http", "containerPort": PORT}],
        # An httpGet would need the token, for all to see who may read pods.
        "startupProbe": {**port, "periodSeconds": 1, "failureThreshold": START_PROBES},
        "readinessProbe": {**port, "periodSeconds": 5},
        "livenessProbe": {**port, "periodSeconds": 10, "failureThreshold": 6},
        "resources": RESOURCES if shape.resources is None else shape.resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "token", "mountPath": SECRETS, "readOnly": True},
        ],
    }
    token = {"secretName": name, "items": [{"key": TOKEN, "path": TOKEN}], "defaultMode": 0o440}
    volumes: list[Object] = [{"name": "token", "secret": token}]
    if shape.storage is None:
        volumes.append({"name": "home", "emptyDir": {}})
    spec: Object = {
        "containers": [container],
        "volumes": volumes,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return _merged(spec, shape.pod or {})


def _merged(target: Object, change: Mapping[str, Any]) -> Object:
    merged = dict(target)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = _merged(cast("Object", before) if isinstance(before, dict) else {}, cast("Object", value))
        else:
            merged[key] = value
    return merged
