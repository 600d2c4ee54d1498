"""The API server of a cluster: objects are made, read, changed, deleted and waited for, over plain HTTP.

A wait is a list and a watch: what changes between the two is told by the watch, since it begins where the list ends.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
import httpx
import httpx_ws
from wsproto.utilities import ProtocolError

from ...errors import ProviderError
from ...incoming import Incoming
from ...websocket import open_websocket
from ..undo import finished

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping

    from .access import Access, Credentials

__all__ = ["CLAIMS", "PODS", "SANDBOXES", "SECRETS", "SERVICES", "Cluster", "Missing", "Object", "Refused", "Resource"]

T = TypeVar("T")

Object: TypeAlias = "dict[str, Any]"
"""Of the cluster, as its JSON is."""

ANSWER_WITHIN = 30.0
"""Seconds for the API server to answer, also while we are being cancelled: then it is known what there is to delete."""

WATCH_SECONDS = 60
"""After which the server ends a watch, and another one is begun: one that was cut looks as if there were no news."""

PAUSE = 0.3
"""Seconds between two watches: some proxies end them at once."""

BUSY_TRIES = 5
"""How often what the server was too busy for (429) is asked again, after as many seconds as it wants."""

LONGEST_PAUSE = 5.0
"""Seconds, whatever it wants."""

MERGE = "application/merge-patch+json"

TUNNEL = "v4.channel.k8s.io"
"""The protocol of forwarded ports. A message begins with the number of its channel: 0 has data, 1 errors."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of objects, as the API server has them.

    Attributes:
      prefix: of its paths.
      plural: its name there.
    """

    prefix: str
    plural: str


PODS = Resource("/api/v1", "pods")
SECRETS = Resource("/api/v1", "secrets")
SERVICES = Resource("/api/v1", "services")
SANDBOXES = Resource("/apis/agents.x-k8s.io/v1beta1", "sandboxes")
CLAIMS = Resource("/apis/extensions.agents.x-k8s.io/v1beta1", "sandboxclaims")


class Refused(ProviderError):
    """The API server said no, in its own words.

    Attributes:
      status: of HTTP.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Missing(Refused):
    """There is no object of that name."""


class Cluster:
    """See the module. Made by `open`, for one piece of work."""

    def __init__(self, credentials: Credentials, access: Access, namespace: str | None) -> None:
        self._credentials = credentials
        self._access = access
        self._client = _client(access)
        self.namespace = namespace or access.namespace

    @classmethod
    @asynccontextmanager
    async def open(cls, credentials: Credentials, namespace: str | None) -> AsyncGenerator[Cluster]:
        """The cluster, while the block runs; then its connections are closed.

        Args:
          namespace: of all objects; None: the one of our credentials.
        """
        cluster = cls(credentials, await credentials.access(), namespace)
        try:
            yield cluster
        finally:
            with anyio.CancelScope(shield=True):
                await cluster._client.aclose()

    async def offers(self, resource: Resource) -> bool:
        """Whether the cluster knows such objects."""
        try:
            found = await self._ask("GET", resource.prefix)
        except Refused as error:
            if error.status == httpx.codes.NOT_FOUND.value:
                return False
            raise
        return any(each.get("name") == resource.plural for each in found.get("resources", ()))

    async def get(self, resource: Resource, name: str) -> Object:
        """Raises `Missing`."""
        return await self._ask("GET", self._path(resource, name))

    async def create(self, resource: Resource, body: Object, hidden: Collection[str] = ()) -> Object:
        """Make an object. Also when we are cancelled we wait for the answer: it must be known what there is to delete.

        Args:
          hidden: values that no error shows, whatever the server says.
        """
        return await finished(lambda: self._ask("POST", self._path(resource), json=body, hidden=hidden))

    async def patch(self, resource: Resource, name: str, change: Object) -> Object:
        """Change an object, by a merge (RFC 7386). Raises `Missing`."""
        path = self._path(resource, name)
        return await self._ask("PATCH", path, content=json.dumps(change).encode(), headers={"Content-Type": MERGE})

    async def delete(
        self, resource: Resource, name: str, *, foreground: bool = False, grace: int | None = None
    ) -> bool:
        """Have an object deleted; it may take its time.

        Args:
          foreground: it stays until what belongs to it is gone.
          grace: seconds that a pod's processes have to end; None: as the pod says.

        Returns:
          Whether there was one.
        """
        options: Object = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._ask("DELETE", self._path(resource, name), json=options)
        except Missing:
            return False
        return True

    async def until(self, resource: Resource, name: str, check: Callable[[Object | None], T | None]) -> T:
        """Wait for an object to be as it should; the caller brings the deadline.

        Args:
          check: gives something once it is; what it raises is raised. Its argument is None while there is no object.
        """
        path = self._path(resource)
        selected = {"fieldSelector": f"metadata.name={name}"}
        while True:
            listed = await self._ask("GET", path, params=selected)
            found = check(next(iter(listed.get("items", ())), None))
            if found is None:
                version = listed.get("metadata", {}).get("resourceVersion", "")
                found = await self._watch(path, selected | {"resourceVersion": version}, check)
            if found is not None:
                return found
            await anyio.sleep(PAUSE)

    async def _watch(
        self, path: str, selected: Mapping[str, str], check: Callable[[Object | None], T | None]
    ) -> T | None:
        """Returns None where the watch ended; what happened meanwhile is in the next list."""
        params = {**selected, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        request = self._client.build_request(
            "GET", self._url(path), params=params, headers=self._headers(), timeout=WATCH_SECONDS + ANSWER_WITHIN
        )
        try:
            incoming = Incoming(await self._client.send(request, stream=True))
            try:
                if incoming.status_code != httpx.codes.OK.value:
                    return None  # the list says why
                rest = b""
                async for piece in incoming:
                    *lines, rest = (rest + piece).split(b"\n")
                    for event in map(json.loads, lines):
                        if event["type"] == "ERROR":  # what we know is too old (410)
                            return None
                        if event["type"] == "BOOKMARK":
                            continue
                        found = check(None if event["type"] == "DELETED" else event["object"])
                        if found is not None:
                            return found
            finally:
                await incoming.close()
        except (httpx.TransportError, ValueError, KeyError):  # cut, or something in between has answered
            return None
        return None

    @asynccontextmanager
    async def tunnel(self, pod: str, port: int) -> AsyncGenerator[httpx_ws.AsyncWebSocketSession]:
        """A connection to a port of a pod, in messages of `TUNNEL`. Ask for something else first: this renews nothing.

        Raises:
          Refused: we may not.
          ProviderError: the API server cannot be reached.
        """
        try:
            async with open_websocket(
                self._client,
                self._url(f"{self._path(PODS, pod)}/portforward"),
                httpx.QueryParams({"ports": str(port)}),
                {**self._headers(), "Sec-WebSocket-Protocol": TUNNEL},
                httpx.Timeout(ANSWER_WITHIN),
                _check,
            ) as socket:
                yield socket
        except (httpx.TransportError, httpx_ws.HTTPXWSException, ProtocolError) as error:
            raise self._failure(error) from None

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Object | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
    ) -> Object:
        renewed, busy = False, 0
        while True:
            told = {**self._headers(), **(headers or {})}
            request = self._client.build_request(
                method, self._url(path), params=params, json=json, content=content, headers=told
            )
            try:
                with anyio.fail_after(ANSWER_WITHIN):
                    response = await self._client.send(request)
            except (httpx.TransportError, TimeoutError) as error:
                raise self._failure(error) from None
            if response.status_code == httpx.codes.UNAUTHORIZED.value and not renewed:
                await self._renew()
                renewed = True
                continue
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS.value and busy < BUSY_TRIES:
                await anyio.sleep(_asked_pause(response))
                busy += 1
                continue
            _check(response, hidden)
            return _object(response)

    async def _renew(self) -> None:
        """Tokens and certificates end: find out anew who we are."""
        self._access = await self._credentials.access(instead_of=self._access)
        with anyio.CancelScope(shield=True):
            await self._client.aclose()
        self._client = _client(self._access)

    def _failure(self, error: Exception) -> ProviderError:
        told: BaseException | None = error
        while told is not None and not str(told):  # what is wrong with a certificate is said far below
            told = told.__cause__ or told.__context__
        return ProviderError(f"the API server {self._access.server} cannot be asked: {told or type(error).__name__}")

    def _headers(self) -> dict[str, str]:
        return {} if self._access.token is None else {"Authorization": f"Bearer {self._access.token}"}

    def _url(self, path: str) -> str:
        return self._access.server + path

    def _path(self, resource: Resource, name: str | None = None) -> str:
        path = f"{resource.prefix}/namespaces/{self.namespace}/{resource.plural}"
        return path if name is None else f"{path}/{name}"


def _client(access: Access) -> httpx.AsyncClient:
    host = httpx.URL(access.server).host

    async def name_server(request: httpx.Request) -> None:
        if access.server_name is not None:
            request.extensions["sni_hostname"] = access.server_name

    return httpx.AsyncClient(
        verify=access.tls,
        proxy=access.proxy,
        # A proxy of the environment is for the network outside.
        trust_env=not (host == "localhost" or host.startswith("127.") or host == "::1"),
        timeout=ANSWER_WITHIN,
        headers={"Accept": "application/json", "User-Agent": "trio-sandbox-agent"},
        event_hooks={"request": [name_server]},
    )


def _asked_pause(response: httpx.Response) -> float:
    wanted = response.headers.get("Retry-After", "")
    return min(float(wanted), LONGEST_PAUSE) if wanted.isdecimal() else 1.0


def _check(response: httpx.Response, hidden: Collection[str] = ()) -> None:
    if response.is_success:
        return
    try:
        status: Object = response.json()
        said = str(status["message"])
        missing = status.get("reason") == "NotFound" and bool(status.get("details", {}).get("name"))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not the API server's own. It says whether an object is there, and what stands in between does not.
        said, missing = response.text[:200].strip() or response.reason_phrase, False
    for value in hidden:
        said = said.replace(value, "***") if value else said
    message = f"{response.request.method} {response.request.url.path}: {response.status_code} {said}"
    raise (Missing if missing else Refused)(message, response.status_code)


def _object(response: httpx.Response) -> Object:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderError(f"{response.request.url.path} did not answer with an object: is this an API server?")
    return found  # pyright: ignore[reportUnknownVariableType]
