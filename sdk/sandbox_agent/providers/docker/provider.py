"""Sandboxes that are containers of a Docker engine, whose first process is the server.

The image has the server in it, see docs/images.md. It is never pulled here: a name without a registry would be looked
for in a public one, where anybody may have taken it.

A container has no restart policy: who looks after a sandbox calls `ensure_server`, and what nobody looks after had
better end. Started again, it has its files, and with them its token and its sessions; it may have another port.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
import anyio.to_thread
import httpx

from ...errors import ProviderError, SandboxDestroyed
from ...trust import trusted
from ..boot import environment_file
from ..provider import Endpoint, Provider
from ..undo import finished, undone_by
from .engine import LABEL, Container, Engine
from .private_files import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["DockerProvider"]

T = TypeVar("T")

PORT = 2468
"""That servers listen on; each container has all ports to itself."""

OURS = re.compile(r"sandbox-agent-[0-9a-f]{16}")
"""Names of our containers. They are known before there is a container, so that one can be removed in any case."""

COMMAND = (
    # What the image sets goes for the server, but for a token: there is one already.
    f"unset SANDBOX_AGENT_TOKEN; set -a; . {DIRECTORY}/env; set +a; "
    f"exec sandbox-agent server --host 0.0.0.0 --port {PORT}"
)

START_WITHIN = 60.0
"""Seconds until a started server must answer: it takes one, and far more on a machine that is overloaded."""

ANSWER_WITHIN = 5.0
"""Seconds to answer; a server that does not hangs."""

LOOK_EVERY = 0.1
"""Seconds between two looks at a server that starts."""

STOP_SECONDS = 10
"""From SIGTERM to SIGKILL for a server that is well: two more than it gives itself."""

END_SECONDS = 2
"""From SIGTERM to SIGKILL for one that hangs."""


class DockerProvider(Provider):
    """See the module.

    Args:
      image: with `sandbox-agent` on its PATH. The engine has it.
      host: the engine's address, say `unix:///run/docker.sock`; by default as the environment says (`DOCKER_HOST`).
      env: variables of the server: keys for agents, and its own options. They are in a file, where `docker inspect`
        does not show them.
      volumes: as `docker run --volume` takes them: `name:/path`, `/on/this/machine:/path:ro`.
      memory: bytes, or a number with a unit (`2g`). By default no limit, as for all three.
      cpus: how many, say 1.5.
      pids: how many processes and threads.
      network: its name; by default the engine's own.
      reach: where the server is reached: `published` on a port of this machine's loopback, or at the `container`'s
        address, from inside of a network that the application is in, or from the engine's machine.
      user: that runs in the container, as `docker run --user` takes it; by default the image's.
      labels: of the container, beside ours.
      extra: further keywords of the Docker client's `containers.create`, say `{"runtime": "runsc"}`.
    """

    name = "docker"

    def __init__(
        self,
        image: str = "sandbox-agent",
        *,
        host: str | None = None,
        env: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
        memory: int | str | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        network: str | None = None,
        reach: Literal["published", "container"] = "published",
        user: str | None = None,
        labels: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.image = image
        self.env = dict(env or {})
        self.network = network
        self.published = reach == "published"
        self.labels = dict(labels or {})
        self.options: dict[str, object] = {
            "volumes": list(volumes),
            "mem_limit": memory,
            "nano_cpus": None if cpus is None else round(cpus * 1e9),
            "pids_limit": pids,
            "network": network,
            "user": user,
            **(extra or {}),
        }
        self._engine = Engine(host)

    async def create(self, token: str) -> str:
        name = f"sandbox-agent-{secrets.token_hex(8)}"
        files = {"token": token.encode(), "env": environment_file(self.env)}
        options = {
            **self.options,
            "labels": {**self.labels, LABEL: name},
            "entrypoint": ["/bin/sh", "-c", COMMAND],
            "command": [],
            # By the environment, so that the image's health check knows it as well.
            "environment": {"SANDBOX_AGENT_TOKEN_FILE": f"{DIRECTORY}/token"},
            "ports": {f"{PORT}/tcp": ("127.0.0.1", None)} if self.published else {},
        }
        async with undone_by(lambda: self.kill(name)):
            # The engine's deadlines bound this.
            await finished(lambda: _do(self._engine.create, name, self.image, options, files))
            if await self._hung(name) is not None:
                raise await self._complaint(name)
        return name

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        url = self._url(sandbox_id, await self._look(sandbox_id))
        token = await _do(self._engine.read, sandbox_id, f"{DIRECTORY}/token")
        return Endpoint(url, None if token is None else token.decode(errors="replace"))

    async def ensure_server(self, sandbox_id: str) -> None:
        seen = await self._look(sandbox_id)
        if seen.status == "paused":
            await _do(self._engine.unpause, sandbox_id)
        elif seen.status != "running":
            await _do(self._engine.start, sandbox_id)
        if (run := await self._hung(sandbox_id)) is not None:
            await _do(self._engine.restart, sandbox_id, run, END_SECONDS)
            if await self._hung(sandbox_id) is not None:
                raise await self._complaint(sandbox_id)

    async def pause(self, sandbox_id: str) -> None:
        """Freeze the container: no process of it runs, all stay in memory, and go on where they were."""
        await self._look(sandbox_id)
        await _do(self._engine.pause, sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        if OURS.fullmatch(sandbox_id):
            with suppress(SandboxDestroyed):
                # In good order: what is on volumes stays, and agents may be writing there.
                await _do(self._engine.stop, sandbox_id, STOP_SECONDS)
            await self.kill(sandbox_id)

    async def kill(self, sandbox_id: str) -> None:
        if OURS.fullmatch(sandbox_id):
            await _do(self._engine.remove, sandbox_id)

    async def _look(self, sandbox_id: str) -> Container:
        if not OURS.fullmatch(sandbox_id):
            raise SandboxDestroyed(f"there is no sandbox {sandbox_id}: ours are called sandbox-agent-...")
        return await _do(self._engine.look, sandbox_id)

    def _url(self, sandbox_id: str, seen: Container) -> str:
        if seen.status not in ("running", "paused"):
            raise ProviderError(f"the container {sandbox_id} does not run: it is {seen.status}")
        if self.published:
            if (port := seen.ports.get(f"{PORT}/tcp")) is None:
                raise ProviderError(
                    f"the container {sandbox_id} publishes no port: is it to be reached by its address?"
                )
            return f"http://127.0.0.1:{port}"
        address = seen.addresses.get(self.network) if self.network else next(iter(seen.addresses.values()), None)
        if address is None:
            raise ProviderError(f"the container {sandbox_id} has no address in the network {self.network or 'of it'}")
        return f"http://{address}:{PORT}"

    async def _hung(self, sandbox_id: str) -> str | None:
        """Wait for the server to answer, while it starts.

        Returns:
          None: it answers; else the run of the container in which it does not.
        """
        run = ""
        # It may be on this machine: no proxy of the environment is asked.
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_WITHIN, verify=trusted("http://")) as client:
            with anyio.move_on_after(START_WITHIN):
                while True:
                    seen = await self._look(sandbox_id)
                    run = seen.run
                    if seen.status != "running":
                        return run
                    try:
                        # Whatever it says: who answers is well, or says so by itself.
                        await client.get(f"{self._url(sandbox_id, seen)}/v1/health")
                        return None
                    except httpx.TimeoutException:
                        return run
                    except httpx.TransportError:  # nobody listens yet, or what publishes the port has found nobody
                        await anyio.sleep(LOOK_EVERY)
        return run

    async def _complaint(self, sandbox_id: str) -> ProviderError:
        said = await _do(self._engine.last_words, sandbox_id)
        return ProviderError(f"the server does not start: {said or 'it said nothing'}")


async def _do(call: Callable[..., T], *arguments: object) -> T:
    return await anyio.to_thread.run_sync(partial(call, *arguments))
