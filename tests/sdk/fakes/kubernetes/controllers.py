"""What acts by itself in a cluster: the garbage collector, and the controllers of agent-sandbox.

All is looked at again after each change, until nothing is left to do: slow, and easy to see through.
"""

from __future__ import annotations

import copy
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .store import FOREGROUND, Refusal, now

if TYPE_CHECKING:
    from .store import Object, Store

__all__ = ["POOL_LABEL", "Controllers"]

LOOK_EVERY = 0.05
"""Seconds after which times that are over are noticed."""

POOL_LABEL = "agents.x-k8s.io/warm-pool-sandbox"
HASH_LABEL = "agents.x-k8s.io/sandbox-name-hash"


class Controllers:
    """They work in a thread of their own from `start` to `stop`.

    Attributes:
      with_sandboxes: those of agent-sandbox are installed.
    """

    def __init__(self, store: Store, *, with_sandboxes: bool) -> None:
        self.store = store
        self.with_sandboxes = with_sandboxes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        seen = -1
        while not self._over.is_set():
            with self.store.changed:
                if self.store.version == seen:
                    self.store.changed.wait(LOOK_EVERY)
                seen = self.store.version
            self._collect_garbage()
            if self.with_sandboxes:
                for plural, look in (
                    ("sandboxwarmpools", self._pool),
                    ("sandboxclaims", self._claim),
                    ("sandboxes", self._sandbox),
                ):
                    for each in self.store.all(plural):
                        if "deletionTimestamp" not in each["metadata"]:
                            try:
                                look(each)
                            except Refusal:  # somebody else was quicker: it is looked at again
                                continue

    def _collect_garbage(self) -> None:
        everything = self.store.everything()
        there = {each["metadata"]["uid"] for _, each in everything}
        for plural, each in everything:
            metadata = each["metadata"]
            owners = metadata.get("ownerReferences", [])
            if owners and not any(owner["uid"] in there for owner in owners) and "deletionTimestamp" not in metadata:
                self._delete(plural, each)
            if FOREGROUND not in metadata.get("finalizers", []):
                continue
            held_up = False
            for kind, other in everything:
                references = other["metadata"].get("ownerReferences", [])
                if any(one["uid"] == metadata["uid"] and one.get("blockOwnerDeletion") for one in references):
                    held_up = True
                    if "deletionTimestamp" not in other["metadata"]:
                        self._delete(kind, other, foreground=True)
            if not held_up:
                self._release(plural, each)

    def _delete(self, plural: str, each: Object, *, foreground: bool = False) -> None:
        try:
            self.store.delete(plural, each["metadata"]["namespace"], each["metadata"]["name"], foreground=foreground)
        except Refusal:
            return

    def _release(self, plural: str, each: Object) -> None:
        if plural != "pods":
            self.store.strike(plural, each["metadata"]["namespace"], each["metadata"]["name"])
            return

        def drop(pod: Object) -> None:  # the kubelet does the rest
            pod["metadata"]["finalizers"] = []

        try:
            self.store.change(plural, each["metadata"]["namespace"], each["metadata"]["name"], drop)
        except Refusal:
            return

    def _pool(self, pool: Object) -> None:
        space, name = pool["metadata"]["namespace"], pool["metadata"]["name"]
        template = self.store.find("sandboxtemplates", space, pool["spec"]["sandboxTemplateRef"]["name"])
        if template is None:
            return
        mine = [each for each in self.store.all("sandboxes", space) if _is_owned(each, pool)]
        for _ in range(pool["spec"].get("replicas", 1) - len(mine)):
            number = self.store.version
            self._make(f"{name}-{number:05x}", template, pool, {POOL_LABEL: name})
        ready = sum(_is_ready(each) for each in mine)
        self._status("sandboxwarmpools", pool, {"replicas": len(mine), "readyReplicas": ready})

    def _claim(self, claim: Object) -> None:
        space, spec = claim["metadata"]["namespace"], claim["spec"]
        if _is_over(spec.get("lifecycle", {})):
            if spec["lifecycle"].get("shutdownPolicy", "Retain") != "Retain":
                self._delete("sandboxclaims", claim)
            else:
                for each in self.store.all("sandboxes", space):
                    if _is_owned(each, claim):
                        self._delete("sandboxes", each)
                self._status(
                    "sandboxclaims", claim, {"conditions": [_condition(False, "ClaimExpired", "Claim expired")]}
                )
            return
        found = next((each for each in self.store.all("sandboxes", space) if _is_owned(each, claim)), None)
        if found is None:
            pool = self.store.find("sandboxwarmpools", space, spec["warmPoolRef"]["name"])
            if pool is None:
                told = f'SandboxWarmPool "{spec["warmPoolRef"]["name"]}" not found'
                self._status("sandboxclaims", claim, {"conditions": [_condition(False, "WarmPoolNotFound", told)]})
                return
            found = self._bind(claim, pool)
        ready = next((each for each in found.get("status", {}).get("conditions", []) if each["type"] == "Ready"), None)
        status: Object = {"sandbox": {"name": found["metadata"]["name"]}}
        status["sandbox"]["podIPs"] = found.get("status", {}).get("podIPs", [])
        status["conditions"] = [ready or _condition(False, "SandboxNotReady", "Sandbox is not ready")]
        self._status("sandboxclaims", claim, status)

    def _bind(self, claim: Object, pool: Object) -> Object:
        space = claim["metadata"]["namespace"]
        stock = [each for each in self.store.all("sandboxes", space) if _is_owned(each, pool)]
        warm = next((each for each in stock if _is_ready(each)), None)
        if warm is None or claim["spec"].get("env"):
            template = self.store.get("sandboxtemplates", space, pool["spec"]["sandboxTemplateRef"]["name"])
            template["spec"]["podTemplate"]["spec"]["containers"][0].setdefault("env", []).extend(
                claim["spec"].get("env", [])
            )
            return self._make(claim["metadata"]["name"], template, claim, {})

        def adopt(each: Object) -> None:
            each["metadata"]["ownerReferences"] = [_owner(claim)]
            each["metadata"]["labels"].pop(POOL_LABEL, None)

        return self.store.change("sandboxes", space, warm["metadata"]["name"], adopt)

    def _make(self, name: str, template: Object, owner: Object, labels: dict[str, str]) -> Object:
        spec = copy.deepcopy(template["spec"])
        blueprint = {key: spec[key] for key in ("podTemplate", "volumeClaimTemplates", "service") if key in spec}
        # Whoever says nothing gets no credentials of the cluster.
        blueprint["podTemplate"]["spec"].setdefault("automountServiceAccountToken", False)
        return self.store.create(
            "sandboxes",
            owner["metadata"]["namespace"],
            {
                "apiVersion": "agents.x-k8s.io/v1beta1",
                "kind": "Sandbox",
                "metadata": {"name": name, "labels": labels, "ownerReferences": [_owner(owner)]},
                "spec": {**blueprint, "operatingMode": "Running"},
            },
        )

    def _sandbox(self, sandbox: Object) -> None:
        space, name, spec = sandbox["metadata"]["namespace"], sandbox["metadata"]["name"], sandbox["spec"]
        pod = self.store.find("pods", space, name)
        if _is_over(spec):
            if spec.get("shutdownPolicy", "Retain") == "Delete":
                self._delete("sandboxes", sandbox)
                return
            if pod is not None:
                self._delete("pods", pod)
            expired = _condition(False, "SandboxExpired", "Sandbox has expired")
            self._status("sandboxes", sandbox, {"conditions": [expired]})
            return
        if spec.get("operatingMode") == "Suspended":
            if pod is not None and "deletionTimestamp" not in pod["metadata"]:
                self._delete("pods", pod)
            told = [_condition(False, "SandboxSuspended", "Sandbox is suspended")]
            told.append(_condition(pod is None, "PodTerminated" if pod is None else "PodTerminating", "", "Suspended"))
            self._status("sandboxes", sandbox, {"conditions": told, "podIPs": []})
            return
        volumes = list(spec["podTemplate"]["spec"].get("volumes", []))
        for each in spec.get("volumeClaimTemplates", []):
            claim = f"{each['metadata']['name']}-{name}"
            volumes.append({"name": each["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}})
            if self.store.find("persistentvolumeclaims", space, claim) is None:
                self._own("persistentvolumeclaims", "v1", "PersistentVolumeClaim", claim, sandbox, {})
        status: Object = {}
        if spec.get("service"):
            status |= {"service": name, "serviceFQDN": f"{name}.{space}.svc.cluster.local"}
            if self.store.find("services", space, name) is None:
                service = {"clusterIP": "None", "selector": {HASH_LABEL: _hash(name)}}
                self._own("services", "v1", "Service", name, sandbox, service)
        if pod is None:
            # Labels that are the system's are not for users to give.
            given = spec["podTemplate"].get("metadata", {}).get("labels", {})
            labels = {key: value for key, value in given.items() if "agents.x-k8s.io/" not in key}
            labels[HASH_LABEL] = _hash(name)
            try:
                pod = {**spec["podTemplate"]["spec"], "volumes": volumes}
                self._own("pods", "v1", "Pod", name, sandbox, pod, labels)
            except Refusal as refusal:
                error = _condition(False, "ReconcilerError", f"Error seen: failed to create pod: {refusal}")
                self._status("sandboxes", sandbox, {**status, "conditions": [error]})
            return
        if pod["status"].get("phase") in ("Failed", "Succeeded"):
            ready = _condition(False, f"Pod{pod['status']['phase']}", "Pod failed")
        elif _is_ready(pod):
            ready = _condition(True, "DependenciesReady", "Pod is Ready")
            status["podIPs"] = [pod["status"]["podIP"]]
        else:
            ready = _condition(False, "DependenciesNotReady", "Pod is Running but not Ready")
        self._status("sandboxes", sandbox, {**status, "conditions": [ready]})

    def _own(
        self,
        plural: str,
        version: str,
        kind: str,
        name: str,
        owner: Object,
        spec: Object,
        labels: dict[str, str] | None = None,
    ) -> None:
        metadata = {"name": name, "labels": labels or {}, "ownerReferences": [_owner(owner)]}
        body = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": {}}
        self.store.create(plural, owner["metadata"]["namespace"], body)

    def _status(self, plural: str, of: Object, status: Object) -> None:
        def write(each: Object) -> None:
            before = {old["type"]: old for old in each.get("status", {}).get("conditions", [])}
            for condition in status.get("conditions", []):
                old = before.get(condition["type"])
                if old is not None and old["status"] == condition["status"]:
                    condition["lastTransitionTime"] = old["lastTransitionTime"]
            each["status"] = status

        self.store.change(plural, of["metadata"]["namespace"], of["metadata"]["name"], write)


def _condition(status: bool, reason: str, message: str, type: str = "Ready") -> Object:
    told = {"type": type, "status": str(status), "reason": reason, "message": message}
    return {**told, "lastTransitionTime": now()}


def _owner(owner: Object) -> Object:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _is_owned(each: Object, owner: Object) -> bool:
    references = each["metadata"].get("ownerReferences", [])
    return any(one["uid"] == owner["metadata"]["uid"] for one in references)


def _is_ready(each: Object) -> bool:
    conditions = each.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _is_over(lifecycle: Object) -> bool:
    time = lifecycle.get("shutdownTime")
    return time is not None and datetime.fromisoformat(time) <= datetime.now(UTC)


def _hash(name: str) -> str:
    value = 0x811C9DC5
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 % (1 << 32)
    return f"{value:08x}"
