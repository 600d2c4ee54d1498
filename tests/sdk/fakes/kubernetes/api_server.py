"""The API server, over real HTTP: discovery, objects, watches and forwarded ports."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlsplit

from .schemas import KINDS, check
from .store import Refusal
from .tunnel import SUBPROTOCOL, accept, carry

if TYPE_CHECKING:
    from pathlib import Path

    from .store import Object, Store

__all__ = ["ApiServer"]

PATH = re.compile(r"(/api/v1|/apis/[^/]+/[^/]+)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?(?:/([^/]+))?")

BOOKMARK_EVERY = 0.3
"""Seconds; a real server takes a minute."""

HELD_WITHIN = 20.0
"""Seconds that a held request waits for its release."""

VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


class ApiServer:
    """See the module. It answers from `start` to `stop`.

    Attributes:
      tokens: with which one is somebody; without a token a certificate that is trusted will do.
      forbidden: verbs with resources, `("create", "pods")`, that nobody may.
      refusals: what the next requests get instead of an answer.
      retry_after: seconds after which one that is too busy wants to be asked again.
      held: set while a request is held.
      asked: requests so far, as `GET /path`.
      bodies: what was sent, as text.
      uses: groups, resources and verbs so far: what a role has to allow.
    """

    def __init__(self, store: Store, *, with_sandboxes: bool, certificate: Path | None = None) -> None:
        self.store = store
        self.tokens = {"k8s-t0ken"}
        self.forbidden: set[tuple[str, str]] = set()
        self.refusals: list[Refusal] = []
        self.retry_after = "1"
        self.asked: list[str] = []
        self.bodies: list[str] = []
        self.uses: set[tuple[str, str, str]] = set()
        self.watches = 0
        self.over = threading.Event()
        self.held = threading.Event()
        self._released = threading.Event()
        self._until_held: int | None = None
        self._groups = {version for version, _ in KINDS.values() if with_sandboxes or version == "v1"}
        self._certificate = certificate
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = False  # so that their end is waited for
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            context.load_verify_locations(certificate)
            context.verify_mode = ssl.CERT_OPTIONAL
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"{'http' if self._certificate is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        self.release()
        self.cut_watches()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hold(self, number: int) -> None:
        """The request of this number, the next one being 1, waits for `release` before anything is done."""
        self.release()
        self.held.clear()
        self._released = threading.Event()
        self._until_held = number

    def release(self) -> None:
        self._until_held = None
        self._released.set()

    def pass_gate(self) -> None:
        """For a request that has come."""
        with self.store.changed:
            if self._until_held is None:
                return
            self._until_held -= 1
            if self._until_held:
                return
            released = self._released
        self.held.set()
        assert released.wait(HELD_WITHIN), "nobody has released the request"

    def cut_watches(self) -> None:
        """End all watches, in the middle of a line."""
        with self.store.changed:
            self.watches += 1
            self.store.changed.notify_all()

    def resources_of(self, version: str) -> list[Object] | None:
        if version not in self._groups:
            return None
        return [
            {"name": plural, "kind": kind, "namespaced": True, "singularName": kind.lower(), "verbs": ["get"]}
            for plural, (of, kind) in KINDS.items()
            if of == version
        ]


def _handler_of(api: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 60

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError, ssl.SSLError):  # the client has left
                self.close_connection = True

        def do(self) -> None:
            address = urlsplit(self.path)
            query = dict(parse_qsl(address.query))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            api.asked.append(f"{self.command} {address.path}")
            api.bodies.append(body.decode())
            api.pass_gate()
            try:
                self._answer(address.path, query, body)
            except Refusal as refusal:
                self._say(refusal.status, refusal.code)

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def _answer(self, path: str, query: dict[str, str], body: bytes) -> None:
            if not self._is_known():
                raise Refusal(401, "Unauthorized", "Unauthorized")
            if api.refusals:
                raise api.refusals.pop(0)
            if (match := PATH.fullmatch(path)) is None:
                self._discover(path)
                return
            prefix, namespace, plural, name, below = match.groups()
            version = prefix.removeprefix("/apis/").removeprefix("/api/")
            resources = api.resources_of(version)
            if resources is None or not any(each["name"] == plural for each in resources):
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            verb = (
                "watch"
                if "watch" in query
                else "list"
                if name is None and self.command == "GET"
                else VERBS[self.command]
            )
            resource = f"{plural}/{below}" if below else plural
            group = version.partition("/")[0] if "/" in version else ""
            api.uses.add((group, resource, verb))
            if below == "portforward":
                api.uses.add((group, resource, "create"))  # as since Kubernetes 1.35
            if (verb, resource) in api.forbidden:
                told = f'{plural} is forbidden: User "app" cannot {verb} resource "{resource}" in API group ""'
                raise Refusal(403, "Forbidden", f'{told} in the namespace "{namespace}"', plural, name or "")
            if below == "portforward" and name is not None:
                self._forward(namespace, name, int(query["ports"]))
            elif verb == "watch":
                self._watch(namespace, plural, query)
            else:
                self._say(_done(api.store, verb, version, namespace, plural, name, query, body))

        def _is_known(self) -> bool:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            return token in api.tokens or (
                isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
            )

        def _discover(self, path: str) -> None:
            resources = api.resources_of(path.removeprefix("/apis/").removeprefix("/api/"))
            if resources is None:
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            self._say({"kind": "APIResourceList", "groupVersion": path.split("/", 2)[2], "resources": resources})

        def _say(self, body: Object, code: int = 200) -> None:
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if code == 429:
                self.send_header("Retry-After", api.retry_after)
            self.end_headers()
            self.wfile.write(content)

        def _watch(self, namespace: str, plural: str, query: dict[str, str]) -> None:
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            version = int(query["resourceVersion"])
            if version < api.store.forgotten:
                gone = Refusal(410, "Expired", f"too old resource version: {version} ({api.store.version})")
                self._event("ERROR", gone.status)
                return
            end = time.monotonic() + int(query.get("timeoutSeconds", "300"))
            with api.store.changed:
                watches = api.watches
            while time.monotonic() < end:
                with api.store.changed:
                    changes = api.store.since(version, plural)
                    if not changes and api.watches == watches:
                        api.store.changed.wait(BOOKMARK_EVERY)
                        changes = api.store.since(version, plural)
                    version, cut = api.store.version, api.watches != watches
                if cut:
                    self.wfile.write(b'{"type":"MODIFIED","obj')
                    return
                for change in changes:
                    if _is_selected(change.object, namespace, query):
                        self._event(change.type, change.object)
                if not changes and query.get("allowWatchBookmarks") == "true":
                    _, kind = KINDS[plural]
                    self._event("BOOKMARK", {"kind": kind, "metadata": {"resourceVersion": str(version)}})

        def _event(self, type: str, body: Object) -> None:
            self.wfile.write(json.dumps({"type": type, "object": body}).encode() + b"\n")

        def _forward(self, namespace: str, name: str, port: int) -> None:
            pod = api.store.get("pods", namespace, name)
            if self.headers.get("Upgrade", "").lower() != "websocket":
                raise Refusal(400, "BadRequest", "Upgrade request required")
            if SUBPROTOCOL not in self.headers.get("Sec-WebSocket-Protocol", ""):
                raise Refusal(400, "BadRequest", "unable to upgrade: unsupported protocol")
            if pod.get("status", {}).get("phase") != "Running":
                raise Refusal(500, "InternalError", f"error forwarding port: pod {name} is not running", "pods", name)
            self.close_connection = True
            self.wfile.write(accept(self.headers["Sec-WebSocket-Key"]))
            carry(self.connection, pod["status"]["podIP"], port, api.over)

    return Handler


def _done(
    store: Store,
    verb: str,
    version: str,
    namespace: str,
    plural: str,
    name: str | None,
    query: dict[str, str],
    content: bytes,
) -> Object:
    body: Any = json.loads(content) if content else {}
    match verb:
        case "list":
            with store.changed:
                items = [each for each in store.all(plural, namespace) if _is_selected(each, namespace, query)]
                metadata = {"resourceVersion": str(store.version)}
            return {"kind": f"{KINDS[plural][1]}List", "apiVersion": version, "metadata": metadata, "items": items}
        case "create":
            if (body.get("apiVersion"), body.get("kind")) != KINDS[plural]:
                raise Refusal(400, "BadRequest", f"the object is no {KINDS[plural][1]} of {version}")
            check(body)
            if plural == "secrets":
                _encode(body)
            return store.create(plural, namespace, body | ({"status": {}} if plural == "pods" else {}))
        case _:
            assert name is not None, "of one object"
    if verb == "get":
        return store.get(plural, namespace, name)
    if verb == "delete":
        foreground = body.get("propagationPolicy") == "Foreground"
        return store.delete(plural, namespace, name, foreground=foreground, grace=body.get("gracePeriodSeconds"))

    def change(each: Object) -> None:
        _merge(each, body)
        check({key: value for key, value in _written(each).items() if key not in ("status", "data", "type")})

    return store.change(plural, namespace, name, change)


def _written(each: Object) -> Object:
    """What users write of an object."""
    own = (
        "uid",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    )
    return {**each, "metadata": {key: value for key, value in each["metadata"].items() if key not in own}}


def _merge(target: Object, change: Object) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), cast("Object", value))
        else:
            target[key] = value


def _encode(secret: Object) -> None:
    for key, value in secret.pop("stringData", {}).items():
        if not re.fullmatch(r"[-._a-zA-Z0-9]+", key):
            raise Refusal(422, "Invalid", f'Secret is invalid: data[{key}]: Invalid value: "{key}"')
        secret.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def _is_selected(each: Object, namespace: str, query: dict[str, str]) -> bool:
    metadata = each["metadata"]
    wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return metadata["namespace"] == namespace and wanted in ("", metadata["name"])
