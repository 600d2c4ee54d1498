"""A daemon inside the test's own run: its tasks and descriptors can be counted, and it starts in no time."""

from __future__ import annotations

import inspect
import os
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from sandbox_http.app import create_app
from sandbox_http.config import Config
from sandbox_http.daemon import open_daemon

from .daemon import Daemon
from .processes import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

__all__ = ["TOKEN", "Local", "Resources", "Route", "agents_file", "quart_app", "routes", "script", "serving"]

TOKEN = "t0ken-of-the-tests"


class Local(Daemon):
    """A daemon of this process: what clients need of one. There is no process to stop or kill."""

    def __init__(self, home: Path, url: str, token: str | None) -> None:
        super().__init__(home, ())
        self.port = int(url.rpartition(":")[2])
        self.token = token or ""

    @property
    def headers(self) -> dict[str, str]:
        return super().headers if self.token else {}


@asynccontextmanager
async def serving(
    home: Path, *, token: str | None = None, agents: Mapping[str, Sequence[str]] | None = None, **config: Any
) -> AsyncGenerator[Local]:
    """A daemon for as long as the block runs.

    Args:
      agents: commands by id, beside the mock agent.
      config: of `Config`.
    """
    told = Config(
        data_dir=home / "data",
        port=0,
        token=token,
        agents_file=agents_file(home, agents or {}),
        synchronous="NORMAL",
        **config,
    )
    async with open_daemon(told) as daemon:
        yield Local(home, daemon.url, token)


def agents_file(home: Path, agents: Mapping[str, Sequence[str]]) -> Path:
    """A file that defines the mock agent, and more."""
    home.mkdir(parents=True, exist_ok=True)
    commands = {"mock": [sys.executable, "-m", "sandbox_actors.mock"], **agents}
    environment = {"MOCK_AGENT_HOME": str(home / "agent")}
    told = {id: {"command": command, "env": environment} for id, command in commands.items()}
    file = home / "agents.json"
    file.write_bytes(msgspec.json.encode({"agents": told}))
    return file


def script(path: Path, text: str) -> list[str]:
    """The command of an agent that is a Python program. `say(line)` writes a line, `heard()` reads one."""
    path.write_text(
        "import json, os, signal, sys, time\n"
        "def say(line):\n"
        "    sys.stdout.buffer.write((line if isinstance(line, bytes) else line.encode()) + b'\\n')\n"
        "    sys.stdout.buffer.flush()\n"
        "def heard():\n"
        "    return sys.stdin.buffer.readline()\n" + text
    )
    return [sys.executable, "-I", "-S", str(path)]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the application.

    Attributes:
      template: the path, each parameter in angle brackets.
      methods: empty for a WebSocket.
    """

    template: str
    methods: tuple[str, ...]

    @property
    def websocket(self) -> bool:
        return not self.methods

    def path(self, parameter: str = "x") -> str:
        """The path with something in the place of every parameter."""
        return re.sub("<[^>]*>", lambda _: parameter, self.template)


def quart_app(data_dir: Path, **config: Any) -> Any:
    """The application below its layers, of a daemon that does not run."""
    nothing = cast("Any", None)  # none of it is touched before a request comes
    others = len(inspect.signature(create_app).parameters) - 1
    app = cast("Any", create_app(Config(data_dir=data_dir, **config), *[nothing] * others))
    while not hasattr(app, "url_map"):
        app = app._app
    return app


def routes(data_dir: Path, **config: Any) -> list[Route]:
    """Every route there is, read off the application: one that is added later is tested without being named.

    Args:
      config: of `Config`.
    """
    app = quart_app(data_dir, **config)
    methods: dict[tuple[str, bool], set[str]] = {}
    for rule in app.url_map.iter_rules():
        methods.setdefault((rule.rule, rule.websocket), set()).update(rule.methods)
    return [
        Route(template, () if websocket else tuple(sorted(taken - {"OPTIONS"})))
        for (template, websocket), taken in sorted(methods.items())
    ]


@dataclass(slots=True)
class Resources:
    """What this process holds at present."""

    tasks: int
    descriptors: int

    @classmethod
    def now(cls) -> Resources:
        return cls(trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd")))

    async def back(self, *, seconds: float = 5) -> None:
        """Wait until no more is held than before; descriptors and tasks of closed connections take a moment."""
        with trio.move_on_after(seconds):
            await eventually(self._reached)
        now = Resources.now()
        assert now.tasks <= self.tasks, _tasks()
        assert now.descriptors <= self.descriptors, _open()

    def _reached(self) -> bool:
        now = Resources.now()
        return now.tasks <= self.tasks and now.descriptors <= self.descriptors


def _tasks() -> list[str]:
    """Every task that is alive, by name."""
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [root]
    found: list[str] = []
    for task in waiting:
        found.append(task.name)
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def _open() -> list[str]:
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return sorted(found)
