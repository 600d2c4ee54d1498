"""A provider's API on loopback, whose sandboxes are directories of this machine: what the HTTP ones have in common."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import kill
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from support.processes import alive, command_of

from .sandboxes import ENDED_WITHIN, POLL_EVERY, FakeSandbox

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["FakeCloud", "Refusal", "Reply", "Request", "crash_server"]

HELD_WITHIN = 20.0
"""Seconds that a held request waits for its release."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its path is decoded, and its query and headers have one value a name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, with which the connection ends; a body in pieces is sent as it comes."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, value: object, status: int = 200, **headers: str) -> Self:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


class Refusal(Exception):
    """Raised by a handler: the answer is this one."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class FakeCloud:
    """See the module. A cloud defines `answer`.

    Attributes:
      root: of its sandboxes.
      sandboxes: those that there are, by their ids.
      asked: the requests so far, as `POST /path`.
      refusals: what the next requests get instead of an answer.
      broken: methods of HTTP that fail.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.asked: list[str] = []
        self.refusals: list[Reply] = []
        self.broken: set[str] = set()
        self.lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._open = threading.Event()
        self._open.set()
        self.held = threading.Event()
        """Set while a request is held."""

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def hold(self) -> None:
        """What passes `pass_gate` waits from now on."""
        self.held.clear()
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def pass_gate(self) -> None:
        """For a handler: something slow."""
        if not self._open.is_set():
            self.held.set()
            assert self._open.wait(HELD_WITHIN), "nobody has released the request"

    @contextmanager
    def running(self) -> Generator[Self]:
        """It answers for as long as the block runs; then no process and no directory of its sandboxes is left."""
        self._server = server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        server.daemon_threads = False  # so that their end is waited for
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.release()
            for sandbox in list(self.sandboxes.values()):
                sandbox.destroy()
            server.shutdown()
            thread.join()
            server.server_close()

    def reply_to(self, request: Request) -> Reply:
        with self.lock:
            self.asked.append(f"{request.method} {request.path}")
            if self.refusals:
                return self.refusals.pop(0)
            if request.method in self.broken:
                return Reply(500, b"it burns")
        try:
            return self.answer(request)
        except Refusal as refusal:
            return refusal.reply


def crash_server(sandbox: FakeSandbox) -> None:
    """SIGKILL to the server of a sandbox; returns when it is dead."""
    servers = [
        pid for pid in sandbox.processes() if "sandbox-agent" in (words := command_of(pid)) and " server " in words
    ]
    assert servers, "there is no server"
    for pid in servers:
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    _wait_until_dead(servers)


def _wait_until_dead(pids: list[int]) -> None:
    waiting = threading.Event()
    for _ in range(round(ENDED_WITHIN / POLL_EVERY)):
        if not any(alive(pid) for pid in pids):
            return
        waiting.wait(POLL_EVERY)
    raise AssertionError(f"these do not end: {pids}")


def _handler_of(cloud: FakeCloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # a client that says nothing does not keep us

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):  # the client has left, as cancelled ones do
                self.close_connection = True

        def _answer(self) -> None:
            address = urlsplit(self.path)
            request = Request(
                self.command,
                unquote(address.path),
                dict(parse_qsl(address.query)),
                {name.lower(): value for name, value in self.headers.items()},
                self._body(),
            )
            reply = cloud.reply_to(request)
            self.send_response(reply.status)
            # Some SDKs keep their connections for as long as the program runs: none shall keep us.
            self.send_header("Connection", "close")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if isinstance(reply.body, bytes):
                if reply.status != 204:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                return
            self.end_headers()
            for piece in reply.body:
                self.wfile.write(piece)
                self.wfile.flush()

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

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    return Handler
