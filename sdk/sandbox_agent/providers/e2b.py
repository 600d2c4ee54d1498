"""E2B sandboxes: micro virtual machines that are paused, memory included, when their time is over.

Whoever is connected gives them more time. One that was paused meanwhile is woken by `ensure_server`, and its server
goes on where it was.

E2B's own SDK blocks, in threads of ours: its other half knows asyncio alone. A thread cannot be cancelled: one that
makes a sandbox is waited for, any other one is left to itself.
"""

from __future__ import annotations

import logging
import math
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
import anyio.to_thread
import httpx

from ..errors import MissingExtra, ProviderError, SandboxDestroyed
from ..scope import open_tasks
from .boot import Server, boot, ensure, token_of
from .machine import Machine, Ran
from .provider import Endpoint, Provider
from .undo import finished, undone_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from e2b import Sandbox

__all__ = ["E2BProvider"]

T = TypeVar("T")

LIFETIME = 60 * 60.0
"""Seconds: the most that every plan allows. E2B's own default are five minutes."""

KEPT_EVERY = 1 / 3
"""Of the lifetime: one request may fail, and the next one is still in time."""

CREATE_WITHIN = 120.0
"""Seconds for a new sandbox, and to look for one that we were not told of."""

WRITE_WITHIN = 300.0
"""Seconds to write a file, a wheel at most."""

MARK = "sandbox-agent"
"""The key of our metadata: what is made can be found by it, if the answer that has its id is lost."""

KILL_LATER = 5.0
"""Seconds after our own deadline until E2B ends a script: it shall not go on, if we cannot say so any more."""

INVALID = 400
"""Of HTTP: E2B's answer to what cannot be an id."""

_log = logging.getLogger("sandbox_agent")


class E2BProvider(Provider):
    """See the module.

    Args:
      template: its name or id.
      timeout: seconds until the sandbox is paused, or ended. While an application is connected they begin anew, as far
        as the plan allows.
      on_timeout: what becomes of it then.
      env: variables of all that runs in the sandbox; keys for agents are better in the server's.
      metadata: of the sandbox, for lists.
      api_key, domain: who asks, and whom; by default as E2B's own SDK finds out (`E2B_API_KEY`, `E2B_DOMAIN`).
      server: how the server gets there, and what it has.
    """

    name = "e2b"

    def __init__(
        self,
        template: str = "base",
        *,
        timeout: float = LIFETIME,
        on_timeout: Literal["pause", "kill"] = "pause",
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        api_key: str | None = None,
        domain: str | None = None,
        server: Server | None = None,
    ) -> None:
        self.template = template
        self.timeout = timeout
        self.on_timeout: Literal["pause", "kill"] = on_timeout
        self.env = dict(env or {})
        self.metadata = dict(metadata or {})
        self.domain = domain
        self.server = server or Server()
        self._api_key = api_key

    async def create(self, token: str) -> str:
        made: list[Sandbox] = []
        async with undone_by(lambda: self._unmake(made)):
            try:
                await finished(lambda: _call(lambda: made.append(self._create())), CREATE_WITHIN)
            except TimeoutError:
                raise ProviderError(f"E2B: no sandbox within {CREATE_WITHIN:g} seconds") from None
            await boot(_E2BMachine(made[0]), self.server, token)
        return made[0].sandbox_id

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        sandbox = await self._connect(sandbox_id)
        port = self.server.port
        # A proxy that serves all sandboxes at one address goes by these headers; others go by the host, and mind none.
        headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
        if sandbox.traffic_access_token is not None:
            headers["E2b-Traffic-Access-Token"] = sandbox.traffic_access_token
        url = sandbox.connection_config.get_sandbox_direct_url(sandbox.sandbox_id, sandbox.sandbox_domain, port)
        return Endpoint(url.rstrip("/"), await token_of(_E2BMachine(sandbox)), headers)

    async def ensure_server(self, sandbox_id: str) -> None:
        await ensure(_E2BMachine(await self._connect(sandbox_id)), self.server)

    async def destroy(self, sandbox_id: str) -> None:
        try:
            await _call(lambda: self._sdk.kill(sandbox_id, api_key=self._api_key, domain=self.domain), sandbox_id)
        except SandboxDestroyed:
            return

    async def pause(self, sandbox_id: str) -> None:
        await _call(lambda: self._sdk.pause(sandbox_id, api_key=self._api_key, domain=self.domain), sandbox_id)

    @asynccontextmanager
    async def reach(self, sandbox_id: str) -> AsyncGenerator[Endpoint]:
        endpoint = await self.endpoint(sandbox_id)
        async with open_tasks() as tasks:
            tasks.start_soon(self._keep, sandbox_id)
            yield endpoint

    async def _keep(self, sandbox_id: str) -> None:
        """Give the sandbox more time, again and again."""
        while True:
            await anyio.sleep(self.timeout * KEPT_EVERY)
            try:
                await _call(partial(self._extend, sandbox_id), sandbox_id)
            except ProviderError as error:
                # It rests, or is gone, or has had all that the plan allows: who uses it will find out.
                _log.info("%s", error)

    def _extend(self, sandbox_id: str) -> None:
        self._sdk.set_timeout(sandbox_id, math.ceil(self.timeout), api_key=self._api_key, domain=self.domain)

    async def _connect(self, sandbox_id: str) -> Sandbox:
        """The sandbox, woken if it was paused, and with its whole time before it."""
        return await _call(
            lambda: self._sdk.connect(sandbox_id, math.ceil(self.timeout), api_key=self._api_key, domain=self.domain),
            sandbox_id,
        )

    def _create(self) -> Sandbox:
        mark = secrets.token_hex(16)
        try:
            return self._sdk.create(
                self.template,
                timeout=math.ceil(self.timeout),
                metadata={**self.metadata, MARK: mark},
                envs=self.env,
                lifecycle={"on_timeout": self.on_timeout},
                idempotency_key=mark,
                api_key=self._api_key,
                domain=self.domain,
            )
        except httpx.HTTPError:
            # Nobody knows whether there is a sandbox now, and one that nobody knows would stay.
            self._sweep(mark)
            raise

    def _sweep(self, mark: str) -> None:
        from e2b import SandboxQuery

        query = SandboxQuery(metadata={MARK: mark})
        for sandbox in self._sdk.list(query, api_key=self._api_key, domain=self.domain).next_items():
            self._sdk.kill(sandbox.sandbox_id, api_key=self._api_key, domain=self.domain)

    async def _unmake(self, made: Iterable[Sandbox]) -> None:
        for sandbox in made:
            await self.destroy(sandbox.sandbox_id)

    @property
    def _sdk(self) -> type[Sandbox]:
        from e2b import Sandbox

        return Sandbox


class _E2BMachine(Machine):
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def run(self, script: str, *, within: float) -> Ran:
        try:
            with anyio.fail_after(within):
                return await _call(partial(self._run, script, within + KILL_LATER), self._sandbox.sandbox_id)
        except TimeoutError:
            raise ProviderError(f"E2B: a script took longer than {within:g} seconds") from None

    async def write(self, path: str, data: bytes) -> None:
        files = self._sandbox.files
        await _call(
            lambda: files.write(path, data, request_timeout=WRITE_WITHIN),  # pyright: ignore[reportUnknownMemberType]
            self._sandbox.sandbox_id,
        )

    def _run(self, script: str, timeout: float) -> Ran:
        from e2b import CommandExitException

        try:
            done = self._sandbox.commands.run(script, timeout=timeout)
        except CommandExitException as error:
            return Ran(error.exit_code, error.stdout, error.stderr)
        return Ran(done.exit_code, done.stdout, done.stderr)


async def _call(work: Callable[[], T], sandbox_id: str | None = None) -> T:
    """Do something that blocks, in a thread that is left to itself when we are cancelled."""
    return await anyio.to_thread.run_sync(_translated, work, sandbox_id, abandon_on_cancel=True)


def _translated(work: Callable[[], T], sandbox_id: str | None = None) -> T:
    """Do it; what goes wrong with it is a `ProviderError`.

    Args:
      sandbox_id: the sandbox that has to be there, or it is `SandboxDestroyed`.
    """
    try:
        import e2b
    except ImportError:
        raise MissingExtra('for E2B: pip install "trio-sandbox-agent[e2b]"') from None
    try:
        return work()
    except e2b.SandboxException as error:
        gone = isinstance(error, e2b.SandboxNotFoundException) or (
            error.status_code == INVALID and "sandbox id" in str(error).lower()
        )
        if gone and sandbox_id is not None:
            raise SandboxDestroyed(f"E2B has no sandbox {sandbox_id} any more") from None
        raise ProviderError(f"E2B: {error}") from None
    except Exception as error:  # its SDK raises bare ones as well, and those of what is below it
        raise ProviderError(f"E2B: {error or type(error).__name__}") from None
