"""Daytona sandboxes: containers that are stopped when nobody uses them for long, and keep their files.

A stopped sandbox is started again by `ensure_server`, with the server's journal. Requests to the server count as use:
a sandbox stays up while an application is connected.

Daytona's own SDK blocks, in threads of ours: its other half knows asyncio alone. A thread cannot be cancelled: one that
makes a sandbox is waited for, any other one is left to itself. Its deadlines throw exceptions into threads, at times
after the call that they are of: it gets none, and has ours around it.
"""

from __future__ import annotations

import math
import os
import secrets
import shlex
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from ..errors import MissingExtra, ProviderError, SandboxDestroyed
from .boot import Server, boot, ensure, token_of
from .machine import Machine, Ran
from .provider import Endpoint, Provider
from .undo import finished, undone_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams, Daytona, Sandbox

__all__ = ["DaytonaProvider"]

T = TypeVar("T")

URL = "https://app.daytona.io/api"
"""Of Daytona's own API. Its SDK knows it too, but complains of itself where it is not told."""

IDLE = 60 * 60.0
"""Seconds without use. Daytona's own default are 15 minutes, which an agent may well work through alone."""

CREATE_WITHIN = 120.0
"""Seconds for a sandbox to be made of a snapshot."""

BUILD_WITHIN = 900.0
"""Seconds for a sandbox to be made of an image, which is fetched and made a snapshot of first."""

CHANGE_WITHIN = 60.0
"""Seconds for a sandbox to be started, stopped or deleted."""

LOOK_EVERY = 0.5
"""Seconds between two looks at a sandbox that is about to change."""

WRITE_WITHIN = 300
"""Seconds to write a file, a wheel at most."""

KILL_LATER = 5
"""Seconds after our own deadline until Daytona ends a script: it shall not go on, if we cannot say so any more."""

RUNNING = frozenset({"started"})
RESTING = frozenset({"stopped", "archived", "paused"})
GONE = frozenset({"destroying", "destroyed"})
FAILED = frozenset({"error", "build_failed"})
"""States of a sandbox; in all others it is about to change."""

NOT_FOUND, CONFLICT = 404, 409
"""Of HTTP."""

INSIDE = "DAYTONA_DAEMON"
"""Who says in an error that something is not there, and is there itself."""


class DaytonaProvider(Provider):
    """See the module.

    Args:
      snapshot: that the sandbox is made of; by default Daytona's own.
      image: of a registry, instead of a snapshot.
      cpu, memory, disk: how many, GiB and GiB; of an image alone, a snapshot has its own.
      idle_timeout: seconds after which a sandbox is stopped that nobody uses; None: never.
      env: variables of all that runs in the sandbox; keys for agents are better in the server's.
      labels: of the sandbox, for lists.
      api_key, url, target: who asks, whom, and for where; by default as Daytona's own SDK finds out (`DAYTONA_API_KEY`,
        `DAYTONA_API_URL`, `DAYTONA_TARGET`).
      server: how the server gets there, and what it has.
    """

    name = "daytona"

    def __init__(
        self,
        snapshot: str | None = None,
        *,
        image: str | None = None,
        cpu: int | None = None,
        memory: int | None = None,
        disk: int | None = None,
        idle_timeout: float | None = IDLE,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        api_key: str | None = None,
        url: str | None = None,
        target: str | None = None,
        server: Server | None = None,
    ) -> None:
        if snapshot is not None and image is not None:
            raise ProviderError("a Daytona sandbox is made of a snapshot or of an image, not of both")
        if image is None and any((cpu, memory, disk)):
            raise ProviderError("a Daytona snapshot has its own cpu, memory and disk: they are chosen with an image")
        self.snapshot = snapshot
        self.image = image
        self.cpu = cpu
        self.memory = memory
        self.disk = disk
        self.idle_timeout = idle_timeout
        self.env = dict(env or {})
        self.labels = dict(labels or {})
        self.url = url
        self.target = target
        self.server = server or Server()
        self._api_key = api_key
        self._opening = threading.Lock()
        self._client: Daytona | None = None

    async def create(self, token: str) -> str:
        name = f"sandbox-agent-{secrets.token_hex(8)}"
        within = CREATE_WITHIN if self.image is None else BUILD_WITHIN
        async with undone_by(lambda: self.destroy(name)):
            try:
                sandbox = await finished(lambda: _call(lambda: self._create(name)), within)
            except TimeoutError:
                raise ProviderError(f"Daytona: the sandbox does not run within {within:g} seconds") from None
            await boot(_DaytonaMachine(sandbox), self.server, token)
        return name

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        sandbox = await self._woken(sandbox_id)
        token = await token_of(_DaytonaMachine(sandbox))
        # The preview's own token is another one after each start of the sandbox.
        link = await _call(lambda: sandbox.get_preview_link(self.server.port), sandbox_id)
        return Endpoint(
            link.url.rstrip("/"),
            token,
            {"X-Daytona-Preview-Token": link.token},
            token_header="X-Sandbox-Agent-Token",  # Daytona takes the other one for a key of its own, and looks it up
        )

    async def ensure_server(self, sandbox_id: str) -> None:
        await ensure(_DaytonaMachine(await self._woken(sandbox_id)), self.server)

    async def destroy(self, sandbox_id: str) -> None:
        try:
            await self._change(sandbox_id, lambda sandbox: sandbox.delete(timeout=0))
        except SandboxDestroyed:
            return

    async def pause(self, sandbox_id: str) -> None:
        await self._change(sandbox_id, lambda sandbox: sandbox.stop(timeout=0), RUNNING, RESTING)

    async def _woken(self, sandbox_id: str) -> Sandbox:
        return await self._change(sandbox_id, lambda sandbox: sandbox.start(timeout=0), RESTING, RUNNING)

    async def _change(
        self,
        sandbox_id: str,
        change: Callable[[Sandbox], object],
        before: frozenset[str] | None = None,
        after: frozenset[str] = frozenset(),
    ) -> Sandbox:
        """Change a sandbox that is in one of the states `before`, until it is in one `after`; gives it then.

        One that is about to change already is waited for.
        """
        try:
            with anyio.fail_after(CHANGE_WITHIN):
                while True:
                    sandbox = await _call(partial(self._find, sandbox_id), sandbox_id)
                    if sandbox.state in after:
                        return sandbox
                    if before is None or sandbox.state in before:
                        if await _call(partial(_tried, change, sandbox), sandbox_id):
                            continue
                    elif sandbox.state in FAILED:
                        raise ProviderError(f"Daytona: {sandbox_id} has failed: {sandbox.error_reason}")
                    await anyio.sleep(LOOK_EVERY)
        except TimeoutError:
            raise ProviderError(f"Daytona: {sandbox_id} does not change within {CHANGE_WITHIN:g} seconds") from None

    def _create(self, name: str) -> Sandbox:
        return self._open().create(self._wanted(name), timeout=0)

    def _wanted(self, name: str) -> CreateSandboxFromImageParams | CreateSandboxFromSnapshotParams:
        from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams, Resources

        idle_minutes = 0 if self.idle_timeout is None else math.ceil(self.idle_timeout / 60)
        env, labels = dict(self.env), dict(self.labels)
        if self.image is None:
            return CreateSandboxFromSnapshotParams(
                name=name, snapshot=self.snapshot, env_vars=env, labels=labels, auto_stop_interval=idle_minutes
            )
        resources = Resources(cpu=self.cpu, memory=self.memory, disk=self.disk)
        return CreateSandboxFromImageParams(
            name=name,
            image=self.image,
            resources=resources,
            env_vars=env,
            labels=labels,
            auto_stop_interval=idle_minutes,
        )

    def _find(self, sandbox_id: str) -> Sandbox:
        sandbox = self._open().get(sandbox_id)
        if sandbox.state in GONE:
            raise SandboxDestroyed(f"Daytona has no sandbox {sandbox_id} any more: it is destroyed")
        return sandbox

    def _open(self) -> Daytona:
        """The client. It is one for all: it keeps a connection, by which it hears of changes."""
        from daytona import Daytona, DaytonaConfig

        with self._opening:
            if self._client is None:
                url = self.url or os.environ.get("DAYTONA_API_URL") or URL
                config = DaytonaConfig(api_key=self._api_key, api_url=url, target=self.target)
                self._client = Daytona(config)
            return self._client


class _DaytonaMachine(Machine):
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def run(self, script: str, *, within: float) -> Ran:
        # Its own shell may be zsh. It tells stdout and stderr not apart.
        command, timeout = f"sh -c {shlex.quote(script)}", math.ceil(within) + KILL_LATER
        try:
            with anyio.fail_after(within):
                done = await _call(lambda: self._sandbox.process.exec(command, timeout=timeout), self._sandbox.name)
        except TimeoutError:
            raise ProviderError(f"Daytona: a script took longer than {within:g} seconds") from None
        return Ran(int(done.exit_code), done.result)

    async def write(self, path: str, data: bytes) -> None:
        await _call(lambda: self._sandbox.fs.upload_file(data, path, WRITE_WITHIN), self._sandbox.name)


def _tried(change: Callable[[Sandbox], object], sandbox: Sandbox) -> bool:
    """Whether the change was made; False: another one is under way."""
    from daytona import DaytonaError

    try:
        change(sandbox)
    except DaytonaError as error:
        if error.status_code == CONFLICT or "in progress" in str(error):
            return False
        raise
    return True


async def _call(work: Callable[[], T], sandbox_id: str | None = None) -> T:
    """Do something that blocks, in a thread that is left to itself when we are cancelled."""
    return await anyio.to_thread.run_sync(_translated, work, sandbox_id, abandon_on_cancel=True)


def _translated(work: Callable[[], T], sandbox_id: str | None = None) -> T:
    """Do it; what goes wrong with it is a `ProviderError`.

    Args:
      sandbox_id: the sandbox that has to be there, or it is `SandboxDestroyed`.
    """
    try:
        from daytona import DaytonaError
    except ImportError:
        raise MissingExtra('for Daytona: pip install "trio-sandbox-agent[daytona]"') from None
    try:
        return work()
    except DaytonaError as error:
        if error.status_code == NOT_FOUND and error.source != INSIDE and sandbox_id is not None:
            raise SandboxDestroyed(f"Daytona has no sandbox {sandbox_id} any more: {error}") from None
        raise ProviderError(f"Daytona: {error}") from None
    except (OSError, ValueError) as error:  # its parameters are checked by pydantic
        raise ProviderError(f"Daytona: {error or type(error).__name__}") from None
