"""E2B: its REST API, and the proxy before the sandboxes with envd in each, at one address.

Requests for a sandbox name it, and the port, by headers, as they do on E2B's own shared host. A sandbox that is paused
has its processes stopped.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import struct
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from .cloud import FakeCloud, Refusal, Reply, Request
from .multipart import parts_of
from .sandboxes import FakeSandbox
from .traffic import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["KEY", "FakeE2B"]

KEY = "e2b_0123456789"

ENVD_PORT = 49983
ENVD_VERSION = "0.6.2"

SANDBOX = re.compile(r"(?:/v2)?/sandboxes/(?P<id>[^/]+)(?:/(?P<verb>[a-z]+))?")
ID = re.compile(r"[a-z0-9]+")

STAMP = "2026-01-01T00:00:00Z"

END_OF_STREAM = 0b10
"""The flag of an envelope of Connect's."""


@dataclass(slots=True)
class _Known:
    machine: FakeSandbox
    told: dict[str, Any]
    paused: bool = False
    envd_token: str = field(default_factory=lambda: secrets.token_hex(16))
    traffic_token: str = field(default_factory=lambda: secrets.token_hex(16))


class FakeE2B(FakeCloud):
    """See the module.

    Attributes:
      created: the bodies of the requests for a new sandbox.
      extended: the new timeouts that were asked for, in seconds.
      answers_lost: whether a new sandbox is made, and nobody told.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.created: list[dict[str, Any]] = []
        self.extended: list[int] = []
        self.answers_lost = False
        self._known: dict[str, _Known] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What E2B's own SDK is told by."""
        return {"E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url, "E2B_API_KEY": KEY}

    def expire(self, sandbox_id: str) -> None:
        """The sandbox's time is over."""
        known = self._known[sandbox_id]
        if known.told.get("autoPause"):
            self._pause(known)
        else:
            self._end(known)

    def answer(self, request: Request) -> Reply:
        return self._traffic(request) if "e2b-sandbox-id" in request.headers else self._control(request)

    def _control(self, request: Request) -> Reply:
        if request.headers.get("x-api-key") != KEY:
            raise _refused(401, "Invalid API key format")
        if request.path == "/v2/sandboxes":
            return self._create(request) if request.method == "POST" else self._list(request)
        found = SANDBOX.fullmatch(request.path)
        assert found is not None, f"no such route: {request.path}"
        if not ID.fullmatch(found["id"].partition("-")[0]):
            raise _refused(400, "Invalid sandbox ID")
        known = self._known.get(found["id"].partition("-")[0])
        if known is None:
            raise _refused(404, f"Sandbox \"{found['id']}\" doesn't exist or you don't have access to it")
        match request.method, found["verb"]:
            case "DELETE", None:
                self._end(known)
                return Reply(204)
            case "POST", "connect":
                with self.lock:
                    was_paused, known.paused = known.paused, False
                known.machine.thaw()
                return Reply.of(_told(known), 201 if was_paused else 200)
            case "POST", "pause":
                if known.paused:
                    raise _refused(409, f"Sandbox {found['id']} is already paused")
                self._pause(known)
                return Reply(204)
            case "POST", "timeout":
                if known.paused:
                    raise _refused(404, f"Sandbox {found['id']} is not running")
                self.extended.append(request.json["timeout"])
                return Reply(204)
            case asked:
                raise AssertionError(f"no such route: {asked}")

    def _create(self, request: Request) -> Reply:
        self.pass_gate()
        told = request.json
        machine = FakeSandbox(self.root, told.get("envVars"), secrets.token_hex(10))
        known = _Known(machine, told)
        with self.lock:
            self.created.append(told)
            self.sandboxes[machine.id] = machine
            self._known[machine.id] = known
        if self.answers_lost:
            raise ConnectionResetError
        return Reply.of(_told(known), 201)

    def _list(self, request: Request) -> Reply:
        wanted = {unquote(name): unquote(value) for name, value in parse_qsl(request.query.get("metadata", ""))}
        found = [known for known in self._known.values() if wanted.items() <= known.told["metadata"].items()]
        return Reply.of([{**_told(known), **_seen(known)} for known in found])

    def _pause(self, known: _Known) -> None:
        known.machine.freeze()
        known.paused = True

    def _end(self, known: _Known) -> None:
        with self.lock:
            self.sandboxes.pop(known.machine.id, None)
            self._known.pop(known.machine.id, None)
        known.machine.destroy()

    def _traffic(self, request: Request) -> Reply:
        sandbox_id, port = request.headers["e2b-sandbox-id"], int(request.headers["e2b-sandbox-port"])
        known = self._known.get(sandbox_id)
        if known is None or known.paused:
            raise _refused(502, "The sandbox was not found", sandboxId=sandbox_id)
        if port == ENVD_PORT:
            return _envd(known, request)
        if request.headers.get("e2b-traffic-access-token") != known.traffic_token:
            raise _refused(403, "Sandbox is secured with traffic access token")
        try:
            return pass_on(request, port)
        except ConnectionRefusedError:
            text = "The sandbox is running but port is not open"
            raise _refused(502, text, sandboxId=sandbox_id, port=port) from None


def _envd(known: _Known, request: Request) -> Reply:
    if request.path == "/health":
        return Reply(204)
    if request.headers.get("x-access-token") != known.envd_token:
        raise _refused(401, "unauthorized access, please provide a valid access token")
    if request.path == "/files":
        path = known.machine.path(request.query["path"])
        path.write_bytes(parts_of(request)["file"])
        return Reply.of([{"name": path.name, "path": str(path), "type": "file"}])
    assert request.path == "/process.Process/Start", request.path
    (length,) = struct.unpack(">xI", request.body[:5])
    process = json.loads(request.body[5 : 5 + length])["process"]
    seconds = int(request.headers.get("connect-timeout-ms", 0)) / 1000 or None
    stream = _started(known, [process["cmd"], *process["args"]], process.get("envs"), seconds)
    return Reply(200, stream, {"Content-Type": "application/connect+json"})


def _started(known: _Known, argv: list[str], env: dict[str, str] | None, within: float | None) -> Iterator[bytes]:
    """The stream of a process. It goes on without its reader, to its end or its deadline."""
    process = known.machine.spawn(argv, env)
    late = threading.Timer(within or 0.0, process.kill)
    if within is not None:
        late.start()
    try:
        with process:
            yield _envelope({"event": {"start": {"pid": process.pid}}})
            for name, data in zip(("stdout", "stderr"), process.communicate(), strict=True):
                if data:
                    yield _envelope({"event": {"data": {name: base64.b64encode(data).decode()}}})
    finally:
        late.cancel()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0)
    if not known.machine.home.exists():
        return  # the sandbox was destroyed: the stream breaks off
    yield _envelope({"event": {"end": {"exitCode": process.returncode, "exited": process.returncode >= 0}}})
    yield _envelope({}, END_OF_STREAM)


def _envelope(value: object, flags: int = 0) -> bytes:
    data = json.dumps(value).encode()
    return struct.pack(">BI", flags, len(data)) + data


def _told(known: _Known) -> dict[str, Any]:
    return {
        "templateID": known.told["templateID"],
        "sandboxID": known.machine.id,
        "clientID": "6532622b",
        "envdVersion": ENVD_VERSION,
        "envdAccessToken": known.envd_token,
        "trafficAccessToken": known.traffic_token,
        "domain": None,
    }


def _seen(known: _Known) -> dict[str, Any]:
    return {
        "startedAt": STAMP,
        "endAt": STAMP,
        "cpuCount": 2,
        "memoryMB": 512,
        "diskSizeMB": 1024,
        "state": "paused" if known.paused else "running",
        "metadata": known.told["metadata"],
    }


def _refused(status: int, message: str, **more: object) -> Refusal:
    return Refusal(Reply.of({"code": status, "message": message, **more}, status))
