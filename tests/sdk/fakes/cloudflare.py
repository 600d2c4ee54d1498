"""Cloudflare's sandbox bridge, as its documentation and its source describe it.

There is no unknown sandbox: whatever is asked for an id that has no container starts one.
"""

from __future__ import annotations

import json
import posixpath
import re
import secrets
import subprocess
from base64 import b32encode, b64encode
from typing import TYPE_CHECKING, Any

from .cloud import FakeCloud, Refusal, Reply, Request
from .sandboxes import FakeSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["KEY", "FakeBridge"]

KEY = "bridge-key"

SANDBOX = re.compile(r"/v1/sandbox(/(?P<id>[^/]+)(/(?P<rest>.+))?)?")
ID = re.compile(r"[a-z2-7]{1,128}")

PIECE = 1000
"""Characters of output in an event."""

LARGEST = 32 << 20
"""Bytes of a file."""


class FakeBridge(FakeCloud):
    """See the module.

    Attributes:
      names: of the tunnels, by sandbox.
      instances: how many containers there may be.
      executed: the commands so far.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.names: dict[str, str] = {}
        self.instances = 10
        self.executed: list[Any] = []

    def sleep(self, sandbox_id: str) -> None:
        """Nobody has used the container for long: it stops, and its disk is gone."""
        with self.lock:
            self.sandboxes.pop(sandbox_id).destroy()

    def answer(self, request: Request) -> Reply:
        if request.path == "/health":
            return Reply.of({"ok": True})
        found = SANDBOX.fullmatch(request.path)
        if found is None:
            return Reply(200, b"OK")  # what the template's Worker says to anything else
        if found["id"] is not None and not ID.fullmatch(found["id"]):
            raise _refused(400, "invalid_request", "Invalid sandbox ID format")
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise _refused(401, "unauthorized", "Unauthorized")
        if found["id"] is None:
            return Reply.of({"id": b32encode(secrets.token_bytes(15)).decode().lower()})
        if found["rest"] is None:
            return self._destroy(found["id"])
        self.pass_gate()
        machine = self._container(found["id"])
        match request.method, found["rest"].split("/"):
            case "POST", ["exec"]:
                self.executed.append(request.json)
                return Reply(body=_exec(machine, request.json), headers={"Content-Type": "text/event-stream"})
            case "PUT", ["file", *path]:
                return _write(machine, "/".join(path), request.body)
            case "POST", ["tunnel", port]:
                self.names[found["id"]] = name = request.json["name"]
                hostname = f"{name}.example.com"
                told = {"id": "11111111-2222-3333-4444-555555555555", "port": int(port), "hostname": hostname}
                return Reply.of({**told, "name": name, "url": f"http://127.0.0.1:{port}"})
            case _:
                raise _refused(404, "not_found", f"Not found: {request.path}")

    def _container(self, sandbox_id: str) -> FakeSandbox:
        with self.lock:
            if sandbox_id not in self.sandboxes:
                if len(self.sandboxes) >= self.instances:
                    raise _refused(503, "capacity_exceeded", f"instance limit reached: {self.instances}")
                machine = self.sandboxes[sandbox_id] = FakeSandbox(self.root, id=sandbox_id)
                (machine.home / "workspace").mkdir()
            return self.sandboxes[sandbox_id]

    def _destroy(self, sandbox_id: str) -> Reply:
        with self.lock:
            if (machine := self.sandboxes.pop(sandbox_id, None)) is not None:
                machine.destroy()
        return Reply(204)


def _exec(machine: FakeSandbox, told: Any) -> Iterator[bytes]:
    path = posixpath.normpath(told.get("cwd", "/workspace"))
    try:
        done = machine.run(told["argv"], cwd=path.lstrip("/"), within=told["timeout_ms"] / 1000)
    except subprocess.TimeoutExpired as error:
        yield _event("error", json.dumps({"error": str(error), "code": "exec_error"}))
        return
    for name, data in (("stdout", done.stdout), ("stderr", done.stderr)):
        text = data.decode(errors="replace")
        for start in range(0, len(text), PIECE):
            yield _event(name, b64encode(text[start : start + PIECE].encode()).decode())
    yield _event("exit", json.dumps({"exit_code": done.returncode}))


def _write(machine: FakeSandbox, name: str, data: bytes) -> Reply:
    path = posixpath.normpath(f"/{name}")
    if not path.startswith("/workspace/"):
        raise _refused(403, "invalid_request", "path must resolve to a location within /workspace")
    if len(data) > LARGEST:
        raise _refused(
            413, "payload_too_large", f"payload too large: {len(data)} bytes exceeds the {LARGEST}-byte limit"
        )
    machine.path(path.lstrip("/")).write_bytes(data)
    return Reply.of({"ok": True})


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def _refused(status: int, code: str, message: str) -> Refusal:
    return Refusal(Reply.of({"error": message, "code": code}, status))
