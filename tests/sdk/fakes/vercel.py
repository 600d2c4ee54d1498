"""Vercel's Sandbox API, as far as the provider's own SDK uses it for us."""

from __future__ import annotations

import io
import json
import re
import secrets
import tarfile
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .cloud import FakeCloud, Refusal, Reply, Request
from .sandboxes import FakeSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PROJECT", "TEAM", "TOKEN", "FakeVercel"]

TOKEN, TEAM, PROJECT = "vercel-token", "team_fake", "prj_fake"

SANDBOX = re.compile(r"/api/v[23]/sandboxes/(?P<name>sandbox-agent-\w+|[\w-]+)")
SESSION = re.compile(r"/api/v2/sandboxes/sessions/(?P<session>sess_\w+)/(?P<rest>.+)")


@dataclass(slots=True)
class _Known:
    """What Vercel knows of a sandbox. A session that was stopped is not resumed: there is a next one."""

    told: Any
    machine: FakeSandbox
    session: str = field(default_factory=lambda: f"sess_{secrets.token_hex(6)}")
    status: str = "running"


class FakeVercel(FakeCloud):
    """See the module.

    Attributes:
      created: the bodies of the requests that made sandboxes.
      extended: milliseconds of each extension.
      starting: looks at a new sandbox until it is found to run.
      resting: looks at a stopped sandbox until it is found to rest.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.created: list[Any] = []
        self.extended: list[int] = []
        self.starting = 0
        self.resting = 0
        self._known: dict[str, _Known] = {}

    @property
    def api(self) -> str:
        """What the SDK takes as its base URL."""
        return f"{self.url}/api"

    def expire(self, name: str) -> None:
        """The session's time is over."""
        self._stop(self._known[name])

    def lose_snapshot(self, name: str) -> None:
        """The stopped sandbox's snapshot has expired."""
        self._known[name].status = "lost"

    def answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise _refused(403, "forbidden", "Not authorized", invalidToken=True)
        if request.query.get("teamId") != TEAM:
            raise _refused(403, "forbidden", "Not authorized: no such team")
        if (request.method, request.path) == ("POST", "/api/v3/sandboxes"):
            return self._create(request.json)
        if found := SESSION.fullmatch(request.path):
            return self._in_session(request, found["session"], found["rest"])
        if found := SANDBOX.fullmatch(request.path):
            return self._sandbox(request, found["name"])
        raise _refused(404, "not_found", f"Not found: {request.path}")

    def _create(self, told: Any) -> Reply:
        self.pass_gate()
        name = told["name"]
        with self.lock:
            self.created.append(told)
            if told["projectId"] != PROJECT:
                raise _refused(404, "not_found", "Project not found")
            if name in self._known:
                raise _refused(409, "conflict", f"there is a sandbox {name}")
            machine = self.sandboxes[name] = FakeSandbox(self.root, told.get("env"), id=name)
            self._known[name] = known = _Known(told, machine)
            if self.starting:
                known.status = "pending"
            return self._reply(known)

    def _sandbox(self, request: Request, name: str) -> Reply:
        with self.lock:
            known = self._known.get(name)
            if known is None or request.query.get("projectId") != PROJECT:
                raise _refused(404, "not_found", "Sandbox not found")
            match request.method:
                case "DELETE":
                    del self._known[name], self.sandboxes[name]
                    known.status = "stopped"
                    known.machine.destroy()
                case "GET" if request.query.get("resume") == "true" and known.status != "running":
                    if known.status == "lost":
                        raise _refused(410, "snapshot_not_found", "The snapshot of this sandbox does not exist")
                    known.status, known.session = "running", f"sess_{secrets.token_hex(6)}"
                case "GET":
                    if known.status == "pending":
                        self.starting -= 1
                        known.status = "pending" if self.starting > 0 else "running"
                    if known.status == "snapshotting":
                        self.resting -= 1
                        known.status = "snapshotting" if self.resting > 0 else "stopped"
                case method:
                    raise _refused(405, "method_not_allowed", method)
            return self._reply(known)

    def _in_session(self, request: Request, session: str, rest: str) -> Reply:
        with self.lock:
            known = next((known for known in self._known.values() if known.session == session), None)
            if known is None:
                raise _refused(404, "not_found", "Session not found")
            if known.status != "running":
                raise _refused(410, "sandbox_stopped", "The sandbox has stopped: create a new one")
        match rest:
            case "cmd":
                return Reply(body=self._run(known, request.json), headers={"Content-Type": "application/x-ndjson"})
            case "fs/write":
                return self._write(known, request)
            case "stop":
                self._stop(known)
                return Reply.of({"session": self._session(known), "sandbox": self._told(known)})
            case "extend-timeout":
                self.extended.append(request.json["duration"])
                return Reply.of({"session": self._session(known)})
            case _:
                raise _refused(404, "not_found", f"Not found: {rest}")

    def _stop(self, known: _Known) -> None:
        with self.lock:
            known.status = "snapshotting" if self.resting else "stopped"
        known.machine.stop()

    def _run(self, known: _Known, told: Any) -> Iterator[bytes]:
        argv = [told["command"], *told.get("args", [])]
        command = {
            "id": f"cmd_{secrets.token_hex(6)}",
            "name": argv[0],
            "args": argv[1:],
            "cwd": "/vercel/sandbox",
            "sessionId": known.session,
            "exitCode": None,
            "startedAt": round(time.time() * 1000),
        }
        yield _line({"command": command})
        with known.machine.spawn(argv, told.get("env")) as process:
            killing = threading.Timer(told["timeout"] / 1000, process.kill)
            killing.start()
            try:
                output, errors = process.communicate()
            finally:
                killing.cancel()
                killing.join()
        for stream, data in (("stdout", output), ("stderr", errors)):
            if data:
                yield _line({"stream": stream, "data": data.decode()})
        yield _line({"command": command | {"exitCode": process.returncode % 256}})

    def _write(self, known: _Known, request: Request) -> Reply:
        assert request.headers["x-cwd"] == "/"
        with tarfile.open(fileobj=io.BytesIO(request.body), mode="r:gz") as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                assert file is not None
                path = known.machine.path(f"/{entry.name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
                path.chmod(entry.mode)
        return Reply.of({})

    def _reply(self, known: _Known) -> Reply:
        routes = [
            {"url": f"http://127.0.0.1:{port}", "port": port, "subdomain": f"sb-{port}"} for port in known.told["ports"]
        ]
        return Reply.of({"sandbox": self._told(known), "session": self._session(known), "routes": routes})

    def _told(self, known: _Known) -> dict[str, Any]:
        return {
            "name": known.told["name"],
            "currentSessionId": known.session,
            "status": _status(known),
            "persistent": known.told["persistent"],
            "region": known.told.get("region") or "iad1",
            "timeout": known.told["timeout"],
            "projectId": PROJECT,
        }

    def _session(self, known: _Known) -> dict[str, Any]:
        return {
            "id": known.session,
            "sourceSandboxName": known.told["name"],
            "projectId": PROJECT,
            "status": _status(known),
            "cwd": "/vercel/sandbox",
            "timeout": known.told["timeout"],
        }


def _status(known: _Known) -> str:
    return "stopped" if known.status == "lost" else known.status


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _refused(status: int, code: str, message: str, **more: object) -> Refusal:
    return Refusal(Reply.of({"error": {"code": code, "message": message, **more}}, status))
