"""A node: pods are directories of this machine, and their containers real processes.

Each pod has an address of loopback to itself, so that all of them may listen on the same port. A path that a pod mounts
something at is, for its processes, the directory where that is.
"""

from __future__ import annotations

import base64
import random
import shutil
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sdk.fakes.sandboxes import FakeSandbox

from . import stand_in
from .store import Refusal, now

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from .store import Object, Store

__all__ = ["BROKEN", "IMAGE", "STAND_IN", "Kubelet", "Running"]

IMAGE = "registry.example/sandbox-agent:1"
"""What the node can pull: it has the server."""

BROKEN = "registry.example/broken:1"
"""Another one, whose every command fails."""

STAND_IN = "registry.example/stand-in:1"
"""A third one, for tests of pods and not of what is in them: see `stand_in`."""

LOOK_EVERY = 0.02
"""Seconds: what a process does tells us nothing by itself."""

PROBE_WITHIN = 0.2

PROBE_EVERY = 0.2
"""Seconds between two probes of a pod that is ready."""

BACKOFF = 0.2
"""Seconds before the second restart, doubled with each more. A real node takes 10."""


class Running:
    """A pod on the node."""

    def __init__(self, root: Path, pod: Object, ip: str) -> None:
        self.uid = pod["metadata"]["uid"]
        self.ip = ip
        self.sandbox = FakeSandbox(root, id=self.uid)
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = -1
        self.wait_until = 0.0
        self.ended: Object | None = None
        self.waiting: Object | None = {"reason": "ContainerCreating"}
        self.ready = False
        self.probe_at = 0.0
        self.told: object = None
        self.kill_at: float | None = None


class Kubelet:
    """It works in a thread of its own from `start` to `stop`; then no process of its pods is left.

    Attributes:
      pods: those on the node, by their uid.
      mute: names of pods whose probes fail, whatever they do.
    """

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.root = root
        self.pods: dict[str, Running] = {}
        self.mute: set[str] = set()
        self._net = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
        self._last = 0
        self._over = threading.Event()
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        for running in self.pods.values():
            self._end(running)

    def evict(self, namespace: str, name: str) -> None:
        """The node runs short of something: the pod ends, and its files are deleted."""
        with self._lock:
            running = self.pods[self.store.get("pods", namespace, name)["metadata"]["uid"]]
            self._end(running)
            del self.pods[running.uid]
            told = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
            self.store.change("pods", namespace, name, lambda pod: pod.update(status=told))

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            with self._lock:
                pods = {pod["metadata"]["uid"]: pod for pod in self.store.all("pods")}
                for uid in set(self.pods) - set(pods):
                    self._end(self.pods.pop(uid))
                for uid, pod in pods.items():
                    if pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
                        if "deletionTimestamp" in pod["metadata"]:
                            self._strike(pod)
                        continue
                    running = self.pods.get(uid)
                    if running is None:
                        running = self.pods[uid] = Running(self.root, pod, self._address())
                    if "deletionTimestamp" in pod["metadata"]:
                        self._stop(pod, running)
                    else:
                        self._look_after(pod, running)

    def _look_after(self, pod: Object, running: Running) -> None:
        if running.process is not None and (code := running.process.poll()) is not None:
            running.process, running.ready, running.probe_at = None, False, 0.0
            running.sandbox.stop()  # a container ends with its first process
            running.ended = {"exitCode": code if code >= 0 else 128 - code, "reason": "Error" if code else "Completed"}
            if running.restarts > 0:
                running.wait_until = time.monotonic() + BACKOFF * 2 ** min(running.restarts, 6)
                running.waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
        if running.process is None and time.monotonic() >= running.wait_until:
            self._start(pod, running)
        if running.process is not None and time.monotonic() >= running.probe_at:
            heard = pod["metadata"]["name"] not in self.mute and _listens(running.ip, _port(pod))
            running.ready = heard
            running.probe_at = time.monotonic() + (PROBE_EVERY if heard else 0)
        told = (running.ready, running.restarts, str(running.waiting), str(running.ended))
        if told != running.told:
            running.told = told
            self._report(pod, running)

    def _start(self, pod: Object, running: Running) -> None:
        container = pod["spec"]["containers"][0]
        if container["image"] not in (IMAGE, BROKEN, STAND_IN):
            running.waiting = {"reason": "ImagePullBackOff", "message": f"Back-off pulling image {container['image']}"}
            return
        try:
            mounts = self._mount(pod, running)
            env = self._environment(pod, container, mounts, running)
        except Refusal as error:
            running.waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
            return
        command = [*container.get("command", ["sandbox-agent"]), *container.get("args", [])]
        if container["image"] == BROKEN:
            command = ["sh", "-c", "echo it burns >&2; exit 3"]
        if container["image"] == STAND_IN:
            command = [sys.executable, "-I", "-S", stand_in.__file__, "0.0.0.0", str(_port(pod))]
        inside = [running.ip if word == "0.0.0.0" else _inside(word, mounts) for word in command]
        with (self.root / f"{running.uid}.log").open("ab") as log:
            running.process = running.sandbox.spawn(inside, env, stdout=log, stderr=log)
        running.waiting = None
        running.restarts += 1

    def _mount(self, pod: Object, running: Running) -> dict[str, Path]:
        """The directories behind the paths of mounts; longer paths first."""
        space = pod["metadata"]["namespace"]
        places: dict[str, Path] = {}
        for volume in pod["spec"].get("volumes", []):
            place = running.sandbox.home / "volumes" / volume["name"]
            if "persistentVolumeClaim" in volume:
                claim = self.store.get("persistentvolumeclaims", space, volume["persistentVolumeClaim"]["claimName"])
                place = self.root / f"volume-{claim['metadata']['uid']}"
            place.mkdir(parents=True, exist_ok=True)
            if "secret" in volume:
                data = self.store.get("secrets", space, volume["secret"]["secretName"])["data"]
                for item in volume["secret"]["items"]:
                    (place / item["path"]).unlink(missing_ok=True)
                    (place / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))
                    (place / item["path"]).chmod(volume["secret"].get("defaultMode", 0o644))
            places[volume["name"]] = place
        mounts = {
            each["mountPath"]: places[each["name"]] for each in pod["spec"]["containers"][0].get("volumeMounts", [])
        }
        return dict(sorted(mounts.items(), reverse=True))

    def _environment(self, pod: Object, container: Object, mounts: dict[str, Path], running: Running) -> dict[str, str]:
        env: dict[str, str] = {}
        for each in container.get("env", []):
            if "valueFrom" in each:
                wanted = each["valueFrom"]["secretKeyRef"]
                data = self.store.get("secrets", pod["metadata"]["namespace"], wanted["name"])["data"]
                env[each["name"]] = base64.b64decode(data[wanted["key"]]).decode()
            else:
                env[each["name"]] = running.ip if each["value"] == "0.0.0.0" else _inside(each["value"], mounts)
        return env

    def _report(self, pod: Object, running: Running) -> None:
        state: Object = {"waiting": running.waiting} if running.waiting else {"running": {}}
        container: Object = {"name": "server", "ready": running.ready, "restartCount": max(0, running.restarts)}
        container |= {"state": state, "lastState": {"terminated": running.ended} if running.ended else {}}

        def write(each: Object) -> None:
            before = {one["type"]: one for one in each.get("status", {}).get("conditions", [])}
            ready: Object = {"type": "Ready", "status": str(running.ready)}
            if not running.ready:
                ready |= {"reason": "ContainersNotReady", "message": "containers with unready status: [server]"}
            old = before.get("Ready", {})
            same = old.get("status") == ready["status"]
            ready["lastTransitionTime"] = old["lastTransitionTime"] if same else now()
            each["status"] = {
                "phase": "Pending" if running.restarts < 0 else "Running",
                "podIP": running.ip,
                "podIPs": [{"ip": running.ip}],
                "conditions": [ready],
                "containerStatuses": [container],
            }

        with suppress(Refusal):
            self.store.change("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], write)

    def _stop(self, pod: Object, running: Running) -> None:
        if pod["metadata"]["name"] in self.mute and running.process is not None:
            self.mute.discard(pod["metadata"]["name"])
        deadline = time.monotonic() + pod["metadata"]["deletionGracePeriodSeconds"]
        if running.kill_at is None and running.process is not None:
            running.process.terminate()
        running.kill_at = kill_at = deadline if running.kill_at is None else min(running.kill_at, deadline)
        alive = running.process is not None and running.process.poll() is None
        if alive and time.monotonic() < kill_at:
            return
        self._end(running)
        self._strike(pod)

    def _strike(self, pod: Object) -> None:
        if not pod["metadata"].get("finalizers"):
            self.store.strike("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _end(self, running: Running) -> None:
        running.sandbox.destroy()
        shutil.rmtree(running.sandbox.home, ignore_errors=True)

    def _address(self) -> str:
        while True:
            self._last += 1
            address = f"{self._net}.{self._last % 254 + 1}"
            with socket.socket() as probe, suppress(OSError):
                probe.bind((address, 2468))
                return address


def _inside(value: str, mounts: dict[str, Path]) -> str:
    for path, place in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return f"{place}{value.removeprefix(path)}"
    return value


def _port(pod: Object) -> int:
    return int(pod["spec"]["containers"][0]["ports"][0]["containerPort"])


def _listens(ip: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(PROBE_WITHIN)
        return probe.connect_ex((ip, port)) == 0
