"""One sandbox in the cluster: a pod, a Sandbox whose controller makes the pod, or a claim to a Sandbox in stock.

    pod:NAME        Pod                             Secret, Service
    sandbox:NAME    Sandbox → Pod                   Secret
    claim:NAME      SandboxClaim → Sandbox → Pod    Secret

These are ids: the kind, and the name of the first object and of the Secret, which belongs to it. A Sandbox's pod has
the Sandbox's name, and that of a claim is another one than the claim's.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import anyio

from ...errors import ProviderError, SandboxDestroyed, UnsupportedByProvider
from .cluster import CLAIMS, PODS, SANDBOXES, SECRETS, SERVICES, Missing, Resource
from .manifests import TOKEN
from .objects import complaint, condition, has_ended, hopeless, is_going, is_ready, keeper, keeps_files

if TYPE_CHECKING:
    from .cluster import Cluster, Object

__all__ = ["GONE_WITHIN", "Kind", "Place", "remove"]

Kind: TypeAlias = Literal["pod", "sandbox", "claim"]

RESOURCES: dict[Kind, Resource] = {"pod": PODS, "sandbox": SANDBOXES, "claim": CLAIMS}

ID = re.compile(r"(pod|sandbox|claim):(sandbox-agent-[0-9a-f]{16})")

KEEPER = "sandbox-agent/keeper"
"""The annotation with the uid of what has the files."""

EXPIRED = ("ClaimExpired", "SandboxExpired")

GONE_WITHIN = 60.0
"""Seconds until what is deleted is gone, with its processes."""

SOON = 1
"""Seconds from SIGTERM to SIGKILL for what is killed. With 0 the pod would be struck off while it may still run."""


@dataclass(slots=True)
class Place:
    """See the module.

    Attributes:
      first: the object that has the name.
      sandbox: the Sandbox, where there is one.
    """

    cluster: Cluster
    kind: Kind
    name: str
    first: Object
    sandbox: Object | None

    @classmethod
    async def find(cls, cluster: Cluster, sandbox_id: str) -> Place:
        """Raises `SandboxDestroyed`."""
        if (match := ID.fullmatch(sandbox_id)) is None:
            raise SandboxDestroyed(f"there is no sandbox {sandbox_id!r}: ours are called sandbox:sandbox-agent-...")
        kind, name = cast("tuple[Kind, str]", match.groups())
        try:
            first = await cluster.get(RESOURCES[kind], name)
            if is_going(first) or condition(first, "Ready").get("reason") in EXPIRED:
                raise SandboxDestroyed(f"the sandbox {sandbox_id} is being deleted, or its time is over")
            sandbox = await _sandbox_of(cluster, kind, first)
            if sandbox is not None and is_going(sandbox):
                raise SandboxDestroyed(f"the sandbox of {sandbox_id} is being deleted")
            return cls(cluster, kind, name, first, sandbox)
        except Missing as error:
            raise SandboxDestroyed(f"there is no sandbox {sandbox_id} any more: {error}") from None

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def pod_name(self) -> str:
        """Also the name that a router knows."""
        if self.kind == "pod":
            return self.name
        if self.sandbox is None:
            raise ProviderError(f"the claim {self.name} has no sandbox yet: {complaint(self.first)}")
        return str(self.sandbox["metadata"]["name"])

    @property
    def suspended(self) -> bool:
        return self.sandbox is not None and self.sandbox["spec"].get("operatingMode") == "Suspended"

    @property
    def keeps_files(self) -> bool:
        """Whether its files outlive its pod."""
        return self.sandbox is not None and keeps_files(self.sandbox)

    async def token(self) -> str:
        """Of the server. Raises `ProviderError` where somebody has taken it away, or has written something else."""
        try:
            found = await self.cluster.get(SECRETS, self.name)
            # From a file that was made by hand there may be a line break, which the server leaves out as well.
            token = base64.b64decode(found["data"][TOKEN], validate=True).decode("ascii").strip()
        except (Missing, KeyError, binascii.Error, UnicodeDecodeError):
            token = ""
        if not token.isprintable() or not token:
            raise ProviderError(f"the Secret {self.name} with the sandbox's token is gone")
        return token

    async def bound(self, within: float) -> None:
        """Wait until a new claim has its sandbox."""
        last: Object | None = None

        def check(found: Object | None) -> Object | None:
            nonlocal last
            last = found
            if found is None or hopeless(found):
                raise ProviderError(f"the claim gets no sandbox: {complaint(found)}")
            return found if found.get("status", {}).get("sandbox", {}).get("name") else None

        with anyio.move_on_after(within):
            self.first = await self.cluster.until(CLAIMS, self.name, check)
            self.sandbox = await _sandbox_of(self.cluster, self.kind, self.first)
            return
        raise ProviderError(f"the claim has no sandbox within {within:g} s: {complaint(last)}")

    async def started(self, within: float) -> None:
        """Wait until a new pod is ready, and note down what has its files."""
        last: Object | None = None

        def check(pod: Object | None) -> Object | None:
            nonlocal last
            last = pod or last
            if pod is not None and hopeless(pod):
                raise ProviderError(f"the pod does not start: {complaint(pod)}")
            return pod if pod is not None and is_ready(pod) else None

        with anyio.move_on_after(within):
            pod = await self.cluster.until(PODS, self.pod_name, check)
            note = {"metadata": {"annotations": {KEEPER: keeper(self.sandbox, pod)}}}
            self.first = await self._change(RESOURCES[self.kind], self.name, note)
            return
        raise ProviderError(f"the pod is not ready within {within:g} s: {await self._complaint(last)}")

    async def ready(self, within: float) -> None:
        """Wait until the pod is ready. One that does not get there is replaced, where its files outlive it.

        Args:
          within: seconds for each pod.

        Raises:
          SandboxDestroyed: the pod is gone, and its files with it.
        """
        last = await self._unready(within)
        if last is not None and self.keeps_files:
            await self.replace_pod()
            last = await self._unready(within)
        if last is not None:
            raise ProviderError(f"the pod {self.pod_name} is not ready within {within:g} s: {last}")

    async def _unready(self, within: float) -> str | None:
        """What keeps the pod from being ready in time; None: it is."""
        last: Object | None = None

        def check(pod: Object | None) -> Object | None:
            nonlocal last
            last = pod or last
            self._check_files(pod)
            return pod if pod is not None and (is_ready(pod) or has_ended(pod)) else None

        with anyio.move_on_after(within):
            pod = await self.cluster.until(PODS, self.pod_name, check)
            return None if is_ready(pod) else complaint(pod)
        return await self._complaint(last)

    async def _complaint(self, pod: Object | None) -> str:
        """Why there is no pod that is ready; where there is none at all, its controller knows, say of a quota."""
        if pod is not None or self.sandbox is None:
            return complaint(pod)
        try:
            return complaint(await self.cluster.get(SANDBOXES, self.pod_name))
        except Missing:
            return complaint(None)

    async def replace_pod(self) -> None:
        """Delete the pod: the Sandbox's controller makes another one of that name."""
        try:
            uid = (await self.cluster.get(PODS, self.pod_name))["metadata"]["uid"]
        except Missing:
            return
        await self.cluster.delete(PODS, self.pod_name)
        await _until_gone(self.cluster, PODS, self.pod_name, uid)

    async def suspend(self) -> None:
        """Returns when the pod is gone. Raises `UnsupportedByProvider` where its files would go with it."""
        if not self.keeps_files:
            raise UnsupportedByProvider(f"{self.id} has no volume that outlives its pod: pausing would lose its files")
        await self._operate("Suspended")
        await _until_gone(self.cluster, PODS, self.pod_name)

    async def resume(self) -> None:
        await self._operate("Running")

    async def shut_down_at(self, time: str | None) -> None:
        """When the sandbox is deleted, in RFC 3339; None: never. Raises `UnsupportedByProvider` for a plain pod."""
        if self.kind == "pod":
            raise UnsupportedByProvider("a plain pod cannot be given more time: its cluster has no Sandboxes")
        change = {"shutdownTime": time}
        spec = {"lifecycle": change} if self.kind == "claim" else change
        await self._change(RESOURCES[self.kind], self.name, {"spec": spec})

    async def _operate(self, mode: Literal["Suspended", "Running"]) -> None:
        self.sandbox = await self._change(SANDBOXES, self.pod_name, {"spec": {"operatingMode": mode}})

    async def _change(self, resource: Resource, name: str, change: Object) -> Object:
        try:
            return await self.cluster.patch(resource, name, change)
        except Missing as error:
            raise SandboxDestroyed(f"there is no sandbox {self.id} any more: {error}") from None

    def _check_files(self, pod: Object | None) -> None:
        if pod is None:
            if self.kind == "pod":
                raise SandboxDestroyed(f"the pod {self.name} is gone, with all that was in it")
            return
        noted = self.first["metadata"].get("annotations", {}).get(KEEPER)
        if noted is not None and noted != keeper(self.sandbox, pod):
            raise SandboxDestroyed(f"the pod of {self.id} was replaced, and its files went with the old one")
        if not self.keeps_files and (has_ended(pod) or (self.kind == "pod" and is_going(pod))):
            raise SandboxDestroyed(
                f"the pod of {self.id} has ended for good, with all that was in it: {complaint(pod)}"
            )


async def remove(cluster: Cluster, sandbox_id: str, *, at_once: bool = False) -> None:
    """Delete what there is of a sandbox; returns when it is gone."""
    if (match := ID.fullmatch(sandbox_id)) is None:
        return
    kind, name = cast("tuple[Kind, str]", match.groups())
    resource = RESOURCES[kind]
    pod = None
    if at_once and kind != "pod":
        # Whatever hinders us, as a role that lacks something: without its name the pod has more time, and ends as well.
        with suppress(ProviderError):
            place = await Place.find(cluster, sandbox_id)
            pod = None if place.sandbox is None else place.pod_name
    await cluster.delete(resource, name, foreground=True, grace=SOON if at_once and kind == "pod" else None)
    if pod is not None:
        await cluster.delete(PODS, pod, grace=SOON)
    # They belong to what was just deleted; but where a create was broken off in between, they do not yet.
    await cluster.delete(SECRETS, name)
    if kind == "pod":
        await cluster.delete(SERVICES, name)
    await _until_gone(cluster, resource, name)


async def _until_gone(cluster: Cluster, resource: Resource, name: str, uid: str | None = None) -> None:
    """Wait until there is no such object; with a `uid`, until the one that had it is gone."""

    def check(found: Object | None) -> bool | None:
        return found is None or (uid is not None and found["metadata"]["uid"] != uid) or None

    with anyio.move_on_after(GONE_WITHIN):
        await cluster.until(resource, name, check)
        return
    raise ProviderError(f"{resource.plural}/{name} is not gone within {GONE_WITHIN:g} s")


async def _sandbox_of(cluster: Cluster, kind: Kind, first: Object) -> Object | None:
    if kind == "sandbox":
        return first
    name = first.get("status", {}).get("sandbox", {}).get("name") if kind == "claim" else None
    return None if name is None else await cluster.get(SANDBOXES, str(name))
