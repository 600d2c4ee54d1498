"""A Kubernetes cluster of one node, with kubernetes-sigs/agent-sandbox (v1beta1) or without."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from sdk.fakes.cloud import crash_server

from .api_server import ApiServer
from .controllers import Controllers
from .kubelet import Kubelet
from .router import Router
from .store import Store

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from .kubelet import Running
    from .store import Object

__all__ = ["NAMESPACE", "FakeCluster"]

NAMESPACE = "agents"


class FakeCluster:
    """See the module.

    Attributes:
      store: all its objects.
      api: its API server.
      kubelet: its node.
      router: the sandbox router.
      kubeconfig: a file with the way there.
    """

    def __init__(
        self, root: Path, *, sandboxes: bool = True, cut_after: float = 180.0, certificate: Path | None = None
    ) -> None:
        self.store = Store()
        self.api = ApiServer(self.store, with_sandboxes=sandboxes, certificate=certificate)
        self.kubelet = Kubelet(self.store, root)
        self.router = Router(self.store, cut_after)
        self._controllers = Controllers(self.store, with_sandboxes=sandboxes)
        self.kubeconfig = root / "kubeconfig"
        self.configure({"token": "k8s-t0ken"})

    def configure(self, user: Object, **cluster: Any) -> None:
        """Write the kubeconfig anew.

        Args:
          user, cluster: as it has them.
        """
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "app", "namespace": NAMESPACE}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.api.url, **cluster}}],
            "users": [{"name": "app", "user": user}],
        }
        self.kubeconfig.write_text(json.dumps(config))  # which is YAML, too

    @contextmanager
    def running(self) -> Generator[Self]:
        """It works for as long as the block runs; then nothing of its pods is left."""
        parts = (self.api, self.router, self._controllers, self.kubelet)
        for part in parts:
            part.start()
        try:
            yield self
        finally:
            for part in reversed(parts):
                part.stop()

    def pool(self, name: str, template: Object, replicas: int = 1) -> None:
        """A warm pool, with a template of the same name."""
        extensions = "extensions.agents.x-k8s.io/v1beta1"
        body: Object = {"apiVersion": extensions, "kind": "SandboxTemplate", "metadata": {"name": name}}
        self.store.create("sandboxtemplates", NAMESPACE, {**body, "spec": template})
        spec = {"replicas": replicas, "sandboxTemplateRef": {"name": name}}
        body = {"apiVersion": extensions, "kind": "SandboxWarmPool", "metadata": {"name": name}}
        self.store.create("sandboxwarmpools", NAMESPACE, {**body, "spec": spec})

    def pod_name(self, sandbox_id: str) -> str:
        kind, _, name = sandbox_id.partition(":")
        if kind == "claim":
            name = self.store.get("sandboxclaims", NAMESPACE, name)["status"]["sandbox"]["name"]
        return name

    def running_pod(self, sandbox_id: str) -> Running:
        return self.kubelet.pods[self.store.get("pods", NAMESPACE, self.pod_name(sandbox_id))["metadata"]["uid"]]

    def crash(self, sandbox_id: str) -> None:
        """SIGKILL to the server of a sandbox; returns when it is dead."""
        crash_server(self.running_pod(sandbox_id).sandbox)

    def count(self) -> int:
        """Sandboxes of applications: claims, those that nobody in the cluster has made, and pods of their own."""
        own = [each for plural in ("sandboxes", "pods") for each in self.store.all(plural)]
        unowned = [each for each in own if not each["metadata"].get("ownerReferences")]
        return len(unowned) + len(self.store.all("sandboxclaims"))
