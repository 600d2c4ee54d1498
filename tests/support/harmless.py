"""What requests that are made up by schemathesis are kept from doing, and what is seen to so that examples are true.

Each is changed just before it is sent. What it would change outside of the test's own folder, whom it would connect to,
and for how long it would wait, is put in bounds. What an example of the document names is there.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zipfile
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import schemathesis
from schemathesis.hooks import unregister

from .harmless_sessions import INITIALIZE, SESSION_RULES, SessionWorld
from .repositories import git, new_repository

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from .daemon import Daemon

__all__ = ["open_world"]

Json: TypeAlias = Any
Case: TypeAlias = Any
"""Of schemathesis; what is in it may be anything at all."""

SHORT_MS = 20
"""For what a request may wait for."""

PROCESSES_AT_ONCE = 20


class World:
    """What the examples name: files and a repository below `home`, sessions, processes, a port. See `open_world`."""

    def __init__(self, home: Path, port: int, api: httpx.Client) -> None:
        self.home = home
        self.port = port
        self.api = api
        self.repository = new_repository(home / "app", file="one\n")
        self.numbers = count(1)
        self.started = 0
        self.limited = False
        (home / "notes").mkdir()
        self.post("/v1/acp/s1?agent=mock", INITIALIZE)
        self.sessions = SessionWorld(api)

    def post(self, path: str, body: Json) -> Json:
        answer = self.api.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def process(self, *argv: str, **more: Json) -> str:
        """The id of a new one."""
        made = self.post("/v1/processes", {"command": argv[0], "args": argv[1:], **more})
        return str(made["id"])

    def ended(self, id: str) -> str:
        self.post(f"/v1/processes/{id}/kill", {})
        return id

    def make_room(self) -> None:
        """Have processes allowed, and not too many there: one more is about to be started."""
        if self.limited:
            self.post("/v1/processes/config", PLENTY)
            self.limited = False
        self.started += 1
        if self.started % PROCESSES_AT_ONCE == 0:
            for process in self.api.get("/v1/processes").json()["processes"]:
                self.api.delete(f"/v1/processes/{self.ended(process['id'])}")


def _processes(world: World, case: Case) -> None:
    world.make_room()
    world.limited = case.path.endswith("/config")
    body = case.body if isinstance(case.body, dict) else {}
    if isinstance(body.get("command"), str) and body["command"].strip():
        body |= {"command": "cat", "args": []}
    if isinstance(body.get("restart"), dict):
        body["restart"] |= {"maxRestarts": 1, "withinMs": 60_000}
    for name in ("waitMs", "killAfterMs"):
        _shorten(case, name)
    if case.path_parameters.get("id") != "proc_1":
        return
    if case.path.endswith("/logs"):
        id = world.process("echo", "hello")
    else:
        id = world.process("cat", tty="terminal" in case.path)
    case.path_parameters["id"] = world.ended(id) if case.method == "DELETE" else id


PLENTY = {
    "maxConcurrentProcesses": 64,
    "defaultRunTimeoutMs": 30_000,
    "maxRunTimeoutMs": 300_000,
    "maxOutputBytes": 1 << 20,
    "maxLogBytesPerProcess": 10 << 20,
    "maxInputBytesPerRequest": 64 << 10,
    "maxTerminals": 64,
    "maxExitedProcesses": 256,
}


def _ports(world: World, case: Case) -> None:
    port = str(case.path_parameters.get("port"))
    if port.isdecimal() and 1 <= int(port) <= 65535:
        case.path_parameters["port"] = world.port
    _shorten(case, "timeoutMs")


def _config(world: World, case: Case) -> None:
    # These directories may be anywhere.
    if isinstance(directory := case.query.get("directory"), str):
        case.query["directory"] = directory.lstrip("/") or "app"
    if case.method == "GET":
        entry: Json = {"type": "local", "command": "x"} if case.path.endswith("mcp") else {"sources": []}
        world.api.put(case.path, params={**case.query}, json=entry)


def _git(world: World, case: Case) -> None:
    body = case.body if isinstance(case.body, dict) else {}
    if isinstance(body.get("url"), str) and ":" in body["url"]:
        body["url"] = f"file://{world.repository}"
    if case.path.endswith("/clone") and case.query.get("directory") == "clone":
        case.query["directory"] = f"clone-{next(world.numbers)}"
    if case.path.endswith("/branches") and case.method != "GET":
        git(world.repository, "switch", "--quiet", "main")
        git(world.repository, "branch", "--force", "door")
        if case.method == "POST":
            git(world.repository, "branch", "--delete", "door")


def _files(world: World, case: Case) -> None:
    (world.home / "notes" / "today.txt").write_text("hello\n")


def _acp(world: World, case: Case) -> None:
    id = case.path_parameters.get("server_id")
    if isinstance(id, str) and id:  # each that is new is a process, and each that is not there is waited for
        case.path_parameters["server_id"] = "s2" if case.method == "DELETE" else "s1"


RULES: dict[str, Callable[[World, Case], None]] = {
    "/v1/processes": _processes,
    "/v1/ports": _ports,
    "/v1/config": _config,
    "/v1/git": _git,
    "/v1/fs": _files,
    "/v1/acp": _acp,
}


@contextmanager
def open_world(home: Path, daemon: Daemon, port: int) -> Generator[None]:
    """All of this holds, while the block runs, for what schemathesis sends.

    Args:
      home: of the daemon; an empty folder.
      port: where somebody listens who is there to be talked to.
    """
    with httpx.Client(base_url=daemon.url, headers=daemon.headers, trust_env=False, timeout=20) as api:
        world = World(home, port, api)

        def before_call(_context: object, case: Case, _kwargs: object) -> None:
            _vary(world, case)
            for prefix, rule in RULES.items():
                if case.path.startswith(prefix):
                    rule(world, case)
            for prefix, told in SESSION_RULES.items():
                if case.path.startswith(prefix):
                    told(world.sessions, case)

        schemathesis.hook(before_call)
        try:
            yield
        finally:
            unregister(before_call)


def _vary(world: World, case: Case) -> None:
    """Ask for every kind of answer that there is."""
    kinds = [*case.operation.definition.raw["responses"].get("200", {}).get("content", {})]
    if len(kinds) > 1:
        case.headers["Accept"] = kinds[next(world.numbers) % len(kinds)]


def _shorten(case: Case, name: str) -> None:
    if str(case.query.get(name)).isdecimal():
        case.query[name] = min(int(case.query[name]), SHORT_MS)


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty.txt"))
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("empty.txt", "")
    return file.getvalue()


ARCHIVES = {
    "application/x-tar": _tar(),
    "application/gzip": gzip.compress(_tar()),
    "application/zstd": zstd.compress(_tar()),
    "application/zip": _zip(),
}


@schemathesis.serializer(*ARCHIVES)
def _archive(context: Any, value: Json) -> bytes:
    """Schemathesis knows no archives: a whole one, or what is none at all."""
    return ARCHIVES[context.case.media_type] if not value else str(value).encode()
