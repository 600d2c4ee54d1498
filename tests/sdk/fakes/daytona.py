"""Daytona: its REST API, the toolbox in each sandbox, and the proxy of previews.

A stopped sandbox has no processes. Previews are below a path, not at a host of their own: the API says where they are.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .cloud import FakeCloud, Refusal, Reply, Request
from .multipart import parts_of
from .sandboxes import FakeSandbox
from .traffic import pass_on

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEY", "FakeDaytona"]

KEY = "dtn_0123456789"

ROUTE = re.compile(r"/api/sandbox/(?P<id>[^/]+)(/(?P<rest>.+))?")
PREVIEW_URL = re.compile(r"ports/(?P<port>\d+)/preview-url")
TOOLBOX = re.compile(r"/toolbox/(?P<id>[^/]+)(?P<rest>/.+)")
PREVIEW = re.compile(r"/preview/(?P<id>[^/]+)/(?P<port>\d+)(?P<rest>/.*)")

PREVIEW_TOKEN = "x-daytona-preview-token"


@dataclass(slots=True)
class _Known:
    machine: FakeSandbox
    told: dict[str, Any]
    state: str
    becoming: str
    looks: int
    """How often it is seen in its state until it has the next one."""
    preview_token: str = field(default_factory=lambda: secrets.token_hex(16))

    def becomes(self, state: str, becoming: str, looks: int) -> None:
        self.state, self.becoming, self.looks = state, becoming, looks


class FakeDaytona(FakeCloud):
    """See the module.

    Attributes:
      created: the bodies of the requests for a new sandbox.
      looks: how often a sandbox is seen to change before it has.
      fails: whether a new sandbox ends in an error.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.created: list[dict[str, Any]] = []
        self.looks = 0
        self.fails = False
        self._known: dict[str, _Known] = {}

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    def machine(self, name: str) -> FakeSandbox:
        return self._find(name).machine

    def idle(self, name: str) -> None:
        """Nobody has used the sandbox for long."""
        known = self._find(name)
        known.machine.stop()
        known.becomes("stopped", "stopped", 0)

    def answer(self, request: Request) -> Reply:
        if found := PREVIEW.fullmatch(request.path):
            return self._preview(request, found["id"], int(found["port"]), found["rest"])
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise _refused(401, "Unauthorized", "Invalid credentials")
        if found := TOOLBOX.fullmatch(request.path):
            known = self._find(found["id"])
            if known.state != "started":
                raise _refused(400, "Bad Request", "bad request: no IP address found. Is the Sandbox started?")
            return _toolbox(known, request, found["rest"])
        if request.path == "/api/sandbox" and request.method == "POST":
            return self._create(request)
        if found := ROUTE.fullmatch(request.path):
            return self._control(request, self._find(found["id"]), found["rest"])
        raise _refused(404, "Not Found", f"Cannot {request.method} {request.path}")

    def _create(self, request: Request) -> Reply:
        self.pass_gate()
        told = request.json
        machine = FakeSandbox(self.root, told.get("env"), str(uuid.uuid4()))
        known = _Known(machine, told, "creating", "error" if self.fails else "started", self.looks)
        with self.lock:
            self.created.append(told)
            self.sandboxes[machine.id] = machine
            self._known[machine.id] = known
        return Reply.of(self._told(known))

    def _control(self, request: Request, known: _Known, rest: str | None) -> Reply:
        match request.method, rest:
            case "GET", None:
                with self.lock:
                    known.looks -= 1
                    if known.looks < 0:
                        known.state = known.becoming
                return Reply.of(self._told(known))
            case "DELETE", None:
                self._settled(known)
                with self.lock:
                    self.sandboxes.pop(known.machine.id, None)
                    self._known.pop(known.machine.id, None)
                known.machine.destroy()
                return Reply.of({**self._told(known), "state": "destroying"})
            case "POST", "start":
                self._expect(known, "stopped")
                known.preview_token = secrets.token_hex(16)
                known.becomes("starting", "started", self.looks)
                return Reply.of(self._told(known))
            case "POST", "stop":
                self._expect(known, "started")
                known.machine.stop()
                known.becomes("stopping", "stopped", self.looks)
                return Reply.of(self._told(known))
            case "GET", str(path) if found := PREVIEW_URL.fullmatch(path):
                url = f"{self.url}/preview/{known.machine.id}/{found['port']}"
                return Reply.of({"sandboxId": known.machine.id, "url": url, "token": known.preview_token})
            case asked:
                raise AssertionError(f"no such route: {asked}")

    def _expect(self, known: _Known, state: str) -> None:
        self._settled(known)
        if known.state != state:
            raise _refused(400, "Bad Request", f"Sandbox is not {state}")

    def _settled(self, known: _Known) -> None:
        if known.state != known.becoming:
            raise _refused(400, "Bad Request", "Sandbox state change in progress")

    def _find(self, id_or_name: str) -> _Known:
        for known in list(self._known.values()):
            if id_or_name in (known.machine.id, known.told["name"]):
                return known
        raise _refused(404, "Not Found", f"Sandbox with ID or name {id_or_name} not found")

    def _preview(self, request: Request, sandbox_id: str, port: int, path: str) -> Reply:
        known = self._find(sandbox_id)
        if request.headers.get(PREVIEW_TOKEN) != known.preview_token:
            raise _refused(401, "Unauthorized", "unauthorized: Auth key header is invalid")
        try:
            return pass_on(replace(request, path=path), port, frozenset({PREVIEW_TOKEN}))
        except ConnectionRefusedError:
            raise _refused(502, "Bad Gateway", "bad gateway: connection refused") from None

    def _told(self, known: _Known) -> dict[str, Any]:
        told = known.told
        return {
            "id": known.machine.id,
            "organizationId": "org",
            "name": told["name"],
            "user": "daytona",
            "env": told.get("env", {}),
            "labels": told.get("labels", {}),
            "public": False,
            "networkBlockAll": False,
            "kvm": False,
            "target": told.get("target") or "us",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": known.state,
            "errorReason": "the image has no such thing" if known.state == "error" else None,
            "toolboxProxyUrl": f"{self.url}/toolbox",
        }


def _toolbox(known: _Known, request: Request, path: str) -> Reply:
    match request.method, path:
        case "POST", "/process/execute":
            return _execute(known, request.json)
        case "POST", "/files/bulk-upload":
            parts = parts_of(request)
            known.machine.path(parts["files[0].path"].decode()).write_bytes(parts["files[0].file"])
            return Reply(200)
        case asked:
            raise AssertionError(f"no such route: {asked}")


def _execute(known: _Known, asked: dict[str, Any]) -> Reply:
    process = known.machine.spawn(
        ["/bin/sh", "-c", asked["command"]], asked.get("envs"), asked.get("cwd"), stderr=subprocess.STDOUT
    )
    with process:
        try:
            output, _ = process.communicate(timeout=asked["timeout"])
        except subprocess.TimeoutExpired:
            process.kill()
            raise _refused(408, "Request Timeout", "command execution timeout") from None
    if not known.machine.home.exists():
        raise ConnectionResetError  # the sandbox was destroyed
    return Reply.of({"exitCode": process.returncode, "result": output.decode(errors="replace")})


def _refused(status: int, error: str, message: str) -> Refusal:
    return Refusal(Reply.of({"statusCode": status, "error": error, "message": message}, status))
