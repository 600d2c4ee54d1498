"""A container of the image, with its server as the first process, as its users run it."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from .docker_image import IMAGE

if TYPE_CHECKING:
    from collections.abc import Generator

    from .docker_engine import Engine

__all__ = ["Container", "container_of"]

START_WITHIN = 30.0
"""Seconds until the server answers; it takes one."""

POLL_EVERY = 0.05
"""Seconds between two looks at what announces nothing."""

LIST = """
import json, os
def look(pid):
    with open(f"/proc/{pid}/stat") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(")")
    return [int(pid), name, rest.split()[0], int(rest.split()[1])]
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        found.append(look(pid))
    except OSError:
        pass
print(json.dumps([entry for entry in found if entry[0] != os.getpid()]))
"""
"""Pid, name, state and parent of all processes but the one that looks."""


class Container:
    """See the module; calls block.

    Attributes:
      it: the client's own object.
    """

    def __init__(self, engine: Engine, token: str, options: dict[str, Any]) -> None:
        self.token = token
        self.it: Any = engine.client.containers.create(IMAGE, **options)

    @property
    def state(self) -> dict[str, Any]:
        self.it.reload()
        state: dict[str, Any] = self.it.attrs["State"]
        return state

    @property
    def said(self) -> str:
        """Its log."""
        log: bytes = self.it.logs()
        return log.decode(errors="replace")

    @property
    def url(self) -> str:
        self.it.reload()
        return f"http://127.0.0.1:{self.it.attrs['NetworkSettings']['Ports']['2468/tcp'][0]['HostPort']}"

    def ask(self, method: str, path: str, body: object = None, within: float = 30.0) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=within) as client:
            return client.request(method, path, json=body)

    def run(self, *command: str) -> Any:
        """What came of a command, by the server."""
        answer = self.ask("POST", "/v1/processes/run", {"command": command[0], "args": command[1:]})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def do(self, *command: str) -> str:
        """What a command says that the engine runs, beside the server."""
        done = self.it.exec_run(list(command))
        output: str = done.output.decode()
        assert done.exit_code == 0, output
        return output

    def processes(self) -> list[tuple[int, str, str, int]]:
        """Pid, name, state and parent of all in it."""
        found = [tuple(entry) for entry in json.loads(self.do("python3", "-c", LIST))]
        return [(pid, name, state, parent) for pid, name, state, parent in found]

    def start(self) -> None:
        """Start it, and wait until the server answers."""
        self.it.start()
        deadline = time.monotonic() + START_WITHIN
        while not self._answers():
            assert time.monotonic() < deadline, f"the server does not answer: {self.said}"
            time.sleep(POLL_EVERY)

    def _answers(self) -> bool:
        assert self.state["Status"] == "running", self.said
        try:
            return self.ask("GET", "/v1/health").is_success
        except httpx.TransportError:
            return False

    def ended(self, within: float) -> int:
        """Its exit code, once it has one."""
        code: int = self.it.wait(timeout=within)["StatusCode"]
        return code


@contextmanager
def container_of(engine: Engine, *, start: bool = True, **options: Any) -> Generator[Container]:
    """A container whose server answers, for as long as the block runs.

    Args:
      options: of the client's `containers.create`; `environment` has the token, if it is not given.
    """
    token = secrets.token_hex(16)
    options = {"environment": {"SANDBOX_AGENT_TOKEN": token}, "ports": {"2468/tcp": ("127.0.0.1", None)}, **options}
    container = Container(engine, token, options)
    try:
        if start:
            container.start()
        yield container
    finally:
        container.it.remove(force=True, v=True)
