"""Sandboxes that are pods of a Kubernetes cluster.

Where the cluster has the CRDs of kubernetes-sigs/agent-sandbox (v1beta1), a sandbox is one of those: it can be paused,
ended by time, or taken from a warm pool, where it is up already and is told at last for whom it is. Elsewhere it is a
plain pod.

The kubelet restarts a server that ends, and a volume of the pod has its files. So there is little to do here but to
wait, and to tell a server of a pool again what it has forgotten.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio

from ...errors import ProviderError, SandboxDestroyed
from ...scope import open_tasks
from ..provider import Endpoint, Provider
from ..undo import undone_by
from .access import Credentials
from .cluster import CLAIMS, PODS, SANDBOXES, SECRETS, SERVICES, Cluster, Missing
from .forward import open_forward
from .manifests import NAME, PORT, Shape, claim, owned_by, pod, sandbox, secret, service
from .place import GONE_WITHIN, Kind, Place, remove
from .settling import Binding, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractAsyncContextManager

    import httpx_ws

__all__ = ["KubernetesProvider", "Mode", "Reach"]

Mode: TypeAlias = Literal["auto", "sandbox", "pod"]

Reach: TypeAlias = Literal["port-forward", "cluster", "router"]

EXTENDED_EVERY = 1 / 3
"""Of the time to live: one request may fail, and the next one is still in time."""

_log = logging.getLogger("sandbox_agent")


class KubernetesProvider(Provider):
    """See the module.

    Args:
      image: with `sandbox-agent` on its PATH, see docs/images.md; None with a pool, whose template has one.
      pool: name of a SandboxWarmPool that sandboxes are taken from.
      mode: `sandbox` or `pod`: what is made without a pool; `auto`: Sandboxes where the cluster has them.
      env: variables of the server: keys for agents, and without a pool its own options (`SANDBOX_AGENT_…`).
      secrets: variables as well; of a pool's server, whatever they are called, it hides the values in what it logs.
      workspace: of a pool's server: the directory that becomes its HOME.
      init_secret: that the servers of the pool want before they are told anything.
      storage: size of a volume that outlives the pod, `10Gi`, so that the sandbox can be paused. Not for plain pods.
      resources: `requests` and `limits` of the container.
      pod: changes to the pod's spec (RFC 7386): `{"runtimeClassName": "gvisor"}`.
      ttl: seconds after which a sandbox is deleted, unless somebody reaches it, or calls `extend`. Not for plain pods.
      reach: how the server is reached: by a forwarded port, which goes through the API server; at the pod's address,
        from within the `cluster`; or through a `router`. By default the router if there is one, else the cluster if we
        are in it, else by a forwarded port.
      router: URL of the agent-sandbox router.
      router_headers: that it wants of every request.
      namespace: of all that is made; by default our own.
      kubeconfig, context: how the cluster is found; by default as kubectl does it, or by the pod we run in.
      start_within: seconds for a new sandbox to be ready: nodes may have to be started, and images pulled.
      recover_within: seconds for a pod to be ready again, and for its server to answer then.
    """

    name = "kubernetes"

    def __init__(
        self,
        image: str | None = None,
        *,
        pool: str | None = None,
        mode: Mode = "auto",
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        workspace: str | None = None,
        init_secret: str | None = None,
        storage: str | None = None,
        resources: Mapping[str, Any] | None = None,
        pod: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        reach: Reach | None = None,
        router: str | None = None,
        router_headers: Mapping[str, str] | None = None,
        namespace: str | None = None,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        start_within: float = 180.0,
        recover_within: float = 45.0,
    ) -> None:
        self.env, self.secrets = dict(env or {}), dict(secrets or {})
        variables = {**self.env, **self.secrets}
        _check_options(image, pool, mode, storage, ttl, reach, router, variables)
        self.pool = pool
        self.mode: Mode = mode
        self.workspace = workspace
        self.shape = Shape(image=image or "", variables=tuple(variables), resources=resources, storage=storage, pod=pod)
        self.ttl = ttl
        self.router = None if router is None else router.rstrip("/")
        self.reached: Reach = reach or _usual_reach(router)
        self.start_within = start_within
        self.recover_within = recover_within
        self._router_headers = dict(router_headers or {})
        try:
            Endpoint(self.router or "", headers=self._router_headers)
        except ValueError as error:
            raise ProviderError(f"the router: {error}") from None
        self._init_secret = init_secret
        self._namespace = namespace
        self._credentials = Credentials(None if kubeconfig is None else os.fspath(kubeconfig), context)

    async def create(self, token: str) -> str:
        name = f"sandbox-agent-{secrets.token_hex(8)}"
        async with self._open() as cluster:
            kind = await self._kind(cluster)
            sandbox_id = f"{kind}:{name}"
            async with undone_by(partial(remove, cluster, sandbox_id, at_once=True)):
                make = self._claim if kind == "claim" else self._make
                place = await make(cluster, kind, name, token)
                await place.started(self.start_within)
                if self.ttl is not None:
                    await place.shut_down_at(_in(self.ttl))
                if kind == "claim":
                    # Whoever is first has the server: it must be us, before anybody hears of it.
                    await self._settle(place, token, self.recover_within, first=True)
        return sandbox_id

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        """Where the server is: behind the router, or the pod's address, which a forwarded port leads to as well."""
        async with self._open() as cluster:
            place = await Place.find(cluster, sandbox_id)
            return await self._address(place, await place.token())

    async def ensure_server(self, sandbox_id: str) -> None:
        async with self._open() as cluster:
            await self._ensure(await Place.find(cluster, sandbox_id))

    async def reconnect(self, sandbox_id: str) -> None:
        async with self._open() as cluster:
            place = await Place.find(cluster, sandbox_id)
            if self.ttl is not None:
                # First, and with time to get up: what is woken when its time is over is deleted.
                await place.shut_down_at(_in(self.ttl + 2 * self.recover_within))
            if place.suspended:
                await place.resume()
            await self._ensure(place)
            if self.ttl is not None:
                await place.shut_down_at(_in(self.ttl))

    async def pause(self, sandbox_id: str) -> None:
        """Have the pod deleted; its volume stays, and is there for the next one. Meanwhile no time to live ends."""
        async with self._open() as cluster:
            place = await Place.find(cluster, sandbox_id)
            if self.ttl is not None and place.keeps_files:
                await place.shut_down_at(_in(self.ttl + GONE_WITHIN))
            await place.suspend()
            if self.ttl is not None:
                await place.shut_down_at(None)

    async def extend(self, sandbox_id: str, seconds: float | None = None) -> None:
        """Give a sandbox more time, from now on; `ttl`, if nothing is said.

        Raises:
          SandboxDestroyed: there is no such sandbox any more.
        """
        if (left := seconds or self.ttl) is None:
            raise ProviderError("there is no time to live: say how many seconds")
        async with self._open() as cluster:
            await (await Place.find(cluster, sandbox_id)).shut_down_at(_in(left))

    async def destroy(self, sandbox_id: str) -> None:
        async with self._open() as cluster:
            await remove(cluster, sandbox_id)

    async def kill(self, sandbox_id: str) -> None:
        async with self._open() as cluster:
            await remove(cluster, sandbox_id, at_once=True)

    @asynccontextmanager
    async def reach(self, sandbox_id: str) -> AsyncGenerator[Endpoint]:
        """The endpoint, while the block runs: a port is forwarded, and the time to live begins anew again and again."""
        async with open_tasks() as tasks:
            if self.ttl is not None:
                tasks.start_soon(self._keep_alive, sandbox_id, self.ttl)
            async with self._open() as cluster:
                place = await Place.find(cluster, sandbox_id)
                token = await place.token()
                address = None if self.reached == "port-forward" else await self._address(place, token)
            if address is not None:
                yield address
                return
            async with open_forward(partial(self._tunnel, sandbox_id)) as url:
                yield Endpoint(url, token)

    async def _kind(self, cluster: Cluster) -> Kind:
        if self.pool is not None:
            if not await cluster.offers(CLAIMS):
                raise ProviderError("the cluster has no SandboxClaims (v1beta1), so it has no warm pool either")
            return "claim"
        if self.mode == "pod":
            return "pod"
        if await cluster.offers(SANDBOXES):
            return "sandbox"
        if self.mode == "sandbox" or self.shape.storage is not None or self.ttl is not None:
            raise ProviderError("the cluster has no Sandboxes (agents.x-k8s.io/v1beta1), which this provider asks for")
        return "pod"

    async def _make(self, cluster: Cluster, kind: Kind, name: str, token: str) -> Place:
        variables = {**self.env, **self.secrets}
        hidden = (token, *variables.values())
        # First, so that no pod waits for it. It belongs to nobody for a moment.
        await cluster.create(SECRETS, secret(name, token, variables), hidden)
        if kind == "pod":
            first = await cluster.create(PODS, pod(name, self.shape))
            await cluster.create(SERVICES, service(name, first))
        else:
            first = await cluster.create(SANDBOXES, sandbox(name, self.shape, self._shutdown()))
        await cluster.patch(SECRETS, name, {"metadata": {"ownerReferences": owned_by(first)}})
        return Place(cluster, kind, name, first, first if kind == "sandbox" else None)

    async def _claim(self, cluster: Cluster, kind: Kind, name: str, token: str) -> Place:
        assert self.pool is not None, "that is what makes it a claim"
        first = await cluster.create(CLAIMS, claim(name, self.pool, self._shutdown()))
        await cluster.create(SECRETS, secret(name, token, {}, first), (token,))
        place = Place(cluster, kind, name, first, None)
        await place.bound(self.start_within)
        return place

    async def _ensure(self, place: Place) -> None:
        if place.suspended:
            raise ProviderError(f"{place.id} is paused: `reconnect` wakes it")
        token = await place.token()
        await place.ready(self.recover_within)
        try:
            await self._settle(place, token, self.recover_within)
        except ProviderError:
            if not place.keeps_files:
                raise
            # It listens, or did, and does not answer. No probe sees that.
            await place.replace_pod()
            await place.ready(self.recover_within)
            await self._settle(place, token, self.recover_within)

    async def _settle(self, place: Place, token: str, within: float, *, first: bool = False) -> None:
        binding = None
        if place.kind == "claim":
            binding = Binding(
                token=token,
                env=self.env,
                secrets=self.secrets,
                workspace=self.workspace,
                init_secret=self._init_secret,
            )
        if self.reached == "port-forward":
            async with open_forward(partial(self._tunnel, place.id)) as url:
                await settle(Endpoint(url, token), binding, within=within, first=first)
        else:
            await settle(await self._address(place, token), binding, within=within, first=first)

    async def _address(self, place: Place, token: str) -> Endpoint:
        if self.reached == "router" and self.router is not None:
            target = {
                "X-Sandbox-ID": place.pod_name,
                "X-Sandbox-Namespace": place.cluster.namespace,
                "X-Sandbox-Port": str(PORT),
            }
            # It keeps Authorization for itself.
            return Endpoint(self.router, token, {**self._router_headers, **target}, "X-Sandbox-Agent-Token")
        try:
            ip = (await place.cluster.get(PODS, place.pod_name)).get("status", {}).get("podIP")
        except Missing:
            ip = None
        if not ip:
            raise ProviderError(f"the pod {place.pod_name} has no address{': it is paused' if place.suspended else ''}")
        return Endpoint(f"http://[{ip}]:{PORT}" if ":" in ip else f"http://{ip}:{PORT}", token)

    @asynccontextmanager
    async def _tunnel(self, sandbox_id: str) -> AsyncGenerator[httpx_ws.AsyncWebSocketSession]:
        async with self._open() as cluster:
            place = await Place.find(cluster, sandbox_id)
            async with cluster.tunnel(place.pod_name, PORT) as tunnel:
                yield tunnel

    async def _keep_alive(self, sandbox_id: str, ttl: float) -> None:
        while True:
            try:
                await self.extend(sandbox_id, ttl)
            except SandboxDestroyed:
                return
            except ProviderError as error:
                _log.warning("the time of %s could not be extended: %s", sandbox_id, error)
            await anyio.sleep(ttl * EXTENDED_EVERY)

    def _open(self) -> AbstractAsyncContextManager[Cluster]:
        return Cluster.open(self._credentials, self._namespace)

    def _shutdown(self) -> str | None:
        """When a sandbox is deleted that nobody has seen to after its start."""
        return None if self.ttl is None else _in(self.ttl + 2 * self.start_within)


def _usual_reach(router: str | None) -> Reach:
    if router is not None:
        return "router"
    return "cluster" if "KUBERNETES_SERVICE_HOST" in os.environ else "port-forward"


def _check_options(
    image: str | None,
    pool: str | None,
    mode: Mode,
    storage: str | None,
    ttl: float | None,
    reach: Reach | None,
    router: str | None,
    variables: Mapping[str, str],
) -> None:
    if (image is None) == (pool is None):
        raise ProviderError("give an image, or a pool, whose template has one")
    if mode == "pod" and (storage is not None or ttl is not None or pool is not None):
        raise ProviderError("a plain pod has no storage that outlives it, no time to live, and no pool")
    if pool is not None and storage is not None:
        raise ProviderError("the pool's template says what storage there is")
    if (reach == "router" and router is None) or (router is not None and reach not in (None, "router")):
        raise ProviderError("for reach='router' give the router's URL, and for no other")
    wrong = [name for name in variables if not NAME.fullmatch(name)]
    if wrong:
        raise ProviderError(f"these are no names of environment variables: {', '.join(sorted(wrong))}")
    own = [name for name in variables if name.startswith("SANDBOX_AGENT_")]
    if pool is not None and own:
        raise ProviderError(f"options of a pool's server belong into its template: {', '.join(sorted(own))}")


def _in(seconds: float) -> str:
    """The time then, as the API server has times."""
    # It has no fractions of seconds: the next one.
    return (datetime.now(UTC) + timedelta(seconds=math.ceil(seconds + 1))).strftime("%Y-%m-%dT%H:%M:%SZ")
