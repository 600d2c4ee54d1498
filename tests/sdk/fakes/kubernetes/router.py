"""The sandbox router: it passes requests on to the sandbox that a header names, and keeps credentials for itself.

What is no WebSocket is cut after a while, event streams included: 180 seconds in reality.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Router"]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

PIECE = 1 << 16

HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})

KEPT = frozenset({"authorization", "host", "x-forwarded-for"})
"""What does not go on to the sandbox."""


class Router:
    """See the module. It answers from `start` to `stop`.

    Attributes:
      cut_after: seconds.
      cuts: how often it has.
      seen: headers of requests, as they went on to sandboxes.
      key: that it wants as a bearer token; None: it lets anybody in.
    """

    def __init__(self, store: Store, cut_after: float = 180.0) -> None:
        self.store = store
        self.cut_after = cut_after
        self.cuts = 0
        self.seen: list[dict[str, str]] = []
        self.key: str | None = None
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def resolve(self, namespace: str, name: str) -> str | None:
        """The address of a pod: by the name of its Sandbox, else by that of a Service."""
        found: Any = None
        pods = self.store.all("pods", namespace)
        for pod in pods:
            owners = pod["metadata"].get("ownerReferences", [])
            if any(owner["kind"] == "Sandbox" and owner["name"] == name for owner in owners):
                found = pod
        if found is None and (service := self.store.find("services", namespace, name)) is not None:
            selector = service["spec"]["selector"].items()
            found = next((pod for pod in pods if selector <= pod["metadata"].get("labels", {}).items()), None)
        ip = None if found is None else found.get("status", {}).get("podIP")
        return None if ip is None else str(ip)


class _Detail(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _handler_of(router: Router) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 60

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def do(self) -> None:
            try:
                if router.key is not None and self.headers.get("Authorization") != f"Bearer {router.key}":
                    raise _Detail(401, "missing bearer token")
                target = self._target()
                if self.headers.get("Upgrade"):
                    self._splice(*target)
                else:
                    self._pass_on(*target)
            except _Detail as detail:
                content = json.dumps({"detail": str(detail)}).encode()
                self.send_response(detail.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do

        def _target(self) -> tuple[str, int, str]:
            name = self.headers.get("X-Sandbox-ID", "")
            namespace = self.headers.get("X-Sandbox-Namespace", "default")
            port = self.headers.get("X-Sandbox-Port", "8888")
            if not name:
                raise _Detail(400, "X-Sandbox-ID header is required.")
            if not LABEL.fullmatch(name) or not LABEL.fullmatch(namespace):
                raise _Detail(400, "Invalid sandbox ID format.")
            if not port.isdecimal():
                raise _Detail(400, "Invalid port format.")
            if (ip := router.resolve(namespace, name)) is None:
                raise _Detail(502, f"Could not connect to the backend sandbox: {name}")
            return ip, int(port), name

        def _kept(self, *also: str) -> dict[str, str]:
            kept = {key: value for key, value in self.headers.items() if key.lower() not in KEPT | set(also)}
            router.seen.append(kept)
            return kept

        def _pass_on(self, ip: str, port: int, name: str) -> None:
            deadline = time.monotonic() + router.cut_after
            upstream = http.client.HTTPConnection(ip, port, timeout=router.cut_after)
            try:
                headers = self._kept(*HOP_BY_HOP)
                upstream.request(self.command, self.path, self._body() or None, headers)
                response = upstream.getresponse()
            except (OSError, http.client.HTTPException):
                upstream.close()
                raise _Detail(502, f"Could not connect to the backend sandbox: {name}") from None
            self.close_connection = True
            try:
                self.send_response(response.status)
                for key, value in response.getheaders():
                    if key.lower() not in HOP_BY_HOP:
                        self.send_header(key, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self._chunks(upstream, response, deadline)
            finally:
                response.close()
                upstream.close()

        def _chunks(
            self, upstream: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float
        ) -> None:
            try:
                while True:
                    left = deadline - time.monotonic()
                    if left <= 0 or router.over.is_set():
                        raise TimeoutError
                    if upstream.sock is not None:
                        upstream.sock.settimeout(left)
                    if not (piece := response.read1(PIECE)):
                        break
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            except TimeoutError:
                router.cuts += 1
                return  # in the middle: the last chunk is missing
            except (OSError, http.client.HTTPException):
                return
            self.wfile.write(b"0\r\n\r\n")

        def _splice(self, ip: str, port: int, name: str) -> None:
            self.close_connection = True
            try:
                upstream = socket.create_connection((ip, port), timeout=5)
            except OSError:
                raise _Detail(502, f"Could not connect to the backend sandbox: {name}") from None
            lines = [f"{self.command} {self.path} HTTP/1.1", f"Host: {ip}:{port}"]
            lines += [f"{key}: {value}" for key, value in self._kept("origin").items()]
            with upstream:
                upstream.settimeout(None)
                upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upstream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
                back = threading.Thread(target=_copy, args=(upstream, self.connection, router.over))
                back.start()
                _copy(self.connection, upstream, router.over)
                back.join()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return b"".join(pieces)

    return Handler


def _copy(source: socket.socket, target: socket.socket, over: threading.Event) -> None:
    with suppress(OSError):
        source.settimeout(0.2)
        while not over.is_set():
            try:
                data = source.recv(PIECE)
            except TimeoutError:
                continue
            if not data:
                break
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
