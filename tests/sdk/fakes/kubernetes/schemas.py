"""Which fields there are, so that a typing error of ours is refused and not dropped, as a real server would.

Of the CRDs of kubernetes-sigs/agent-sandbox, v1beta1, as of v0.5: all fields of the specs. Of Kubernetes itself: what
such specs are likely to have. `ANY` stands for what is not looked into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .store import Refusal

if TYPE_CHECKING:
    from .store import Object

__all__ = ["KINDS", "REQUIRED", "check"]

Fields: TypeAlias = "dict[str, Any]"
"""Names with what is below them: fields, a list of things with such fields, an enumeration, or `ANY`."""

ANY = object()

METADATA: Fields = {
    "name": ANY,
    "namespace": ANY,
    "labels": ANY,
    "annotations": ANY,
    "finalizers": ANY,
    "ownerReferences": [
        {"apiVersion": ANY, "kind": ANY, "name": ANY, "uid": ANY, "controller": ANY, "blockOwnerDeletion": ANY}
    ],
}

PROBE: Fields = {
    "tcpSocket": {"port": ANY, "host": ANY},
    "exec": {"command": ANY},
    "httpGet": ANY,
    "periodSeconds": ANY,
    "failureThreshold": ANY,
    "timeoutSeconds": ANY,
    "initialDelaySeconds": ANY,
}

CONTAINER: Fields = {
    "name": ANY,
    "image": ANY,
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": ANY,
    "args": ANY,
    "env": [{"name": ANY, "value": ANY, "valueFrom": {"secretKeyRef": {"name": ANY, "key": ANY, "optional": ANY}}}],
    "workingDir": ANY,
    "ports": [{"name": ANY, "containerPort": ANY, "protocol": ANY}],
    "startupProbe": PROBE,
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "resources": {"requests": ANY, "limits": ANY},
    "securityContext": {
        "allowPrivilegeEscalation": ANY,
        "capabilities": {"drop": ANY, "add": ANY},
        "readOnlyRootFilesystem": ANY,
        "runAsNonRoot": ANY,
        "runAsUser": ANY,
    },
    "volumeMounts": [{"name": ANY, "mountPath": ANY, "readOnly": ANY, "subPath": ANY}],
}

POD: Fields = {
    "containers": [CONTAINER],
    "initContainers": [CONTAINER],
    "volumes": [
        {
            "name": ANY,
            "emptyDir": {"sizeLimit": ANY, "medium": ANY},
            "secret": {"secretName": ANY, "items": [{"key": ANY, "path": ANY, "mode": ANY}], "defaultMode": ANY},
            "persistentVolumeClaim": {"claimName": ANY, "readOnly": ANY},
        }
    ],
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "terminationGracePeriodSeconds": ANY,
    "automountServiceAccountToken": ANY,
    "enableServiceLinks": ANY,
    "serviceAccountName": ANY,
    "runtimeClassName": ANY,
    "nodeSelector": ANY,
    "tolerations": ANY,
    "affinity": ANY,
    "imagePullSecrets": ANY,
    "priorityClassName": ANY,
    "securityContext": {
        "runAsNonRoot": ANY,
        "runAsUser": ANY,
        "runAsGroup": ANY,
        "fsGroup": ANY,
        "fsGroupChangePolicy": ("OnRootMismatch", "Always"),
        "seccompProfile": {"type": ("RuntimeDefault", "Unconfined", "Localhost"), "localhostProfile": ANY},
    },
}

POD_METADATA: Fields = {"labels": ANY, "annotations": ANY}

BLUEPRINT: Fields = {
    "podTemplate": {"metadata": POD_METADATA, "spec": POD},
    "volumeClaimTemplates": [
        {
            "metadata": {"name": ANY, "labels": ANY, "annotations": ANY},
            "spec": {
                "accessModes": ANY,
                "resources": {"requests": ANY, "limits": ANY},
                "storageClassName": ANY,
                "volumeMode": ANY,
            },
        }
    ],
    "service": (True, False),
}

RULES: Fields = {"from": ANY, "to": ANY, "ports": [{"port": ANY, "protocol": ANY, "endPort": ANY}]}

SPECS: dict[str, Fields] = {
    "Pod": POD,
    "Service": {
        "clusterIP": ANY,
        "selector": ANY,
        "type": ANY,
        "ports": [{"name": ANY, "port": ANY, "targetPort": ANY, "protocol": ANY}],
    },
    "Sandbox": {
        **BLUEPRINT,
        "shutdownTime": ANY,
        "shutdownPolicy": ("Delete", "Retain"),
        "operatingMode": ("Running", "Suspended"),
    },
    "SandboxTemplate": {
        **BLUEPRINT,
        "networkPolicy": {"ingress": [RULES], "egress": [RULES]},
        "networkPolicyManagement": ("Managed", "Unmanaged"),
        "envVarsInjectionPolicy": ("Allowed", "Overrides", "Disallowed"),
        "volumeClaimTemplatesPolicy": ("Disallowed", "Allowed", "Overrides"),
    },
    "SandboxWarmPool": {
        "replicas": ANY,
        "sandboxTemplateRef": {"name": ANY},
        "updateStrategy": {"type": ("Recreate", "OnReplenish")},
    },
    "SandboxClaim": {
        "warmPoolRef": {"name": ANY},
        "lifecycle": {
            "shutdownTime": ANY,
            "ttlSecondsAfterFinished": ANY,
            "shutdownPolicy": ("Delete", "DeleteForeground", "Retain"),
        },
        "additionalPodMetadata": POD_METADATA,
        "env": [{"name": ANY, "value": ANY, "containerName": ANY}],
        "safeToEvict": ("on-completion", "true", "false"),
    },
    "NetworkPolicy": {
        "podSelector": ANY,
        "policyTypes": ANY,
        "ingress": [RULES],
        "egress": [RULES],
    },
}

REQUIRED: dict[str, tuple[str, ...]] = {
    "Pod": ("containers",),
    "Sandbox": ("podTemplate.spec.containers",),
    "SandboxTemplate": ("podTemplate.spec.containers",),
    "SandboxWarmPool": ("sandboxTemplateRef.name",),
    "SandboxClaim": ("warmPoolRef.name",),
}

CORE = "v1"
AGENTS = "agents.x-k8s.io/v1beta1"
EXTENSIONS = "extensions.agents.x-k8s.io/v1beta1"

KINDS: dict[str, tuple[str, str]] = {
    "pods": (CORE, "Pod"),
    "services": (CORE, "Service"),
    "secrets": (CORE, "Secret"),
    "persistentvolumeclaims": (CORE, "PersistentVolumeClaim"),
    "sandboxes": (AGENTS, "Sandbox"),
    "sandboxclaims": (EXTENSIONS, "SandboxClaim"),
    "sandboxtemplates": (EXTENSIONS, "SandboxTemplate"),
    "sandboxwarmpools": (EXTENSIONS, "SandboxWarmPool"),
}
"""The plural of each, with its version and kind."""


def check(body: Object) -> None:
    """Raises `Refusal` for a field that does not exist, or one that is missing."""
    kind = str(body.get("kind"))
    whole: Fields = {"apiVersion": ANY, "kind": ANY, "metadata": METADATA}
    match kind:
        case "Secret":
            whole |= {"type": ANY, "data": ANY, "stringData": ANY}
        case "Namespace":
            pass
        case "Role":
            whole |= {"rules": [{"apiGroups": ANY, "resources": ANY, "verbs": ANY, "resourceNames": ANY}]}
        case "RoleBinding":
            whole |= {"roleRef": {"apiGroup": ANY, "kind": ANY, "name": ANY}}
            whole |= {"subjects": [{"kind": ANY, "name": ANY, "namespace": ANY, "apiGroup": ANY}]}
        case "ServiceAccount":
            whole |= {"automountServiceAccountToken": ANY}
        case _:
            whole |= {"spec": SPECS[kind]}
    _look("", body, whole)
    for path in REQUIRED.get(kind, ()):
        found: Any = body.get("spec", {})
        for name in path.split("."):
            found = cast("Object", found).get(name) if isinstance(found, dict) else None
        if not found:
            raise Refusal(422, "Invalid", f"{kind} is invalid: spec.{path}: Required value")


def _look(path: str, value: Any, fields: Any) -> None:
    if fields is ANY:
        return
    if isinstance(fields, tuple):
        if value not in fields:
            raise Refusal(422, "Invalid", f"{path}: Unsupported value: {value!r}: supported values: {fields}")
    elif isinstance(fields, list):
        if not isinstance(value, list):
            raise Refusal(400, "BadRequest", f"{path}: must be a list")
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        for place, each in enumerate(items):
            _look(f"{path}[{place}]", each, fields[0])
    else:
        if not isinstance(value, dict):
            raise Refusal(400, "BadRequest", f"{path}: must be an object")
        for name, each in cast("Object", value).items():
            if name not in fields:
                raise Refusal(
                    400, "BadRequest", f'strict decoding error: unknown field "{path}.{name}"'.replace('".', '"')
                )
            _look(f"{path}.{name}", each, fields[name])
