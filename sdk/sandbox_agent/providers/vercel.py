"""Vercel Sandbox: micro virtual machines with a name, whose files outlive the session that runs in them.

A session ends when it is stopped, or when its time is over; its files are kept as a snapshot, and the next session
begins with them. So a sandbox that has run out of time comes back by `ensure_server`, with its journal.
"""

from __future__ import annotations

import os
import secrets
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

import anyio

from ..errors import MissingExtra, ProviderError, SandboxDestroyed
from .boot import Server, boot, ensure, token_of
from .machine import Machine, Ran
from .provider import Endpoint, Provider
from .undo import finished, undone_by

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

    import httpx2
    from vercel.sandbox import Sandbox, SandboxApiError, SandboxClient, SandboxCredentials, SandboxCredentialsFactory

__all__ = ["VercelProvider"]

LIFETIME = 45 * 60.0
"""Seconds of a session: the most that every plan allows. Vercel's own default are five minutes."""

CREATE_WITHIN = 120.0
"""Seconds for a new sandbox to run."""

REST_WITHIN = 180.0
"""Seconds until a stopped sandbox rests: its files are written away."""

LOOK_EVERY = 0.5
"""Seconds between two looks at a sandbox that stops."""

ANSWER_WITHIN = 60.0
"""Seconds of silence after which Vercel is taken for dead, as its own SDK has it."""

KILL_LATER = 5.0
"""Seconds after our own deadline until Vercel ends a script: it shall not go on, if we cannot say so any more."""

NOT_FOUND = 404
"""Of HTTP."""


class VercelProvider(Provider):
    """See the module.

    Args:
      image: a reference of Vercel's container registry; by default Vercel's own image.
      timeout: seconds that a session may last.
      cpus: how many.
      memory: MiB.
      region: say `iad1`.
      env: variables of all that runs in the sandbox; keys for agents are better in the server's.
      tags: of the sandbox, for lists.
      token, team, project: who asks; by default as the environment says (`VERCEL_OIDC_TOKEN`, or `VERCEL_TOKEN`,
        `VERCEL_TEAM_ID` and `VERCEL_PROJECT_ID`).
      url: of the API, where it is not Vercel's own.
      server: how the server gets there, and what it has.
    """

    name = "vercel"

    def __init__(
        self,
        image: str | None = None,
        *,
        timeout: float = LIFETIME,
        cpus: int | None = None,
        memory: int | None = None,
        region: str | None = None,
        env: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        token: str | None = None,
        team: str | None = None,
        project: str | None = None,
        url: str | None = None,
        server: Server | None = None,
    ) -> None:
        if any((token, team, project)) and not all((token, team, project)):
            raise ProviderError("of Vercel's token, team and project all are needed, or none")
        self.image = image
        self.timeout = timeout
        self.cpus = cpus
        self.memory = memory
        self.region = region
        self.env = dict(env or {})
        self.tags = dict(tags or {})
        self.url = url
        self.server = server or Server()
        self._credentials = (token, team, project) if token and team and project else None

    async def create(self, token: str) -> str:
        name = f"sandbox-agent-{secrets.token_hex(8)}"
        async with undone_by(lambda: self.destroy(name)), self._client() as client:
            sandbox = await self._create(client, name)
            await boot(_VercelMachine(sandbox), self.server, token)
        return name

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        async with self._sandbox(sandbox_id) as sandbox:
            token = await token_of(_VercelMachine(sandbox))  # first: it wakes the sandbox, whose routes may be new then
            routes = {route.port: route.url for route in sandbox.routes}
        if self.server.port not in routes:
            raise ProviderError(f"Vercel: {sandbox_id} does not expose port {self.server.port}, but {sorted(routes)}")
        return Endpoint(routes[self.server.port].rstrip("/"), token)

    async def ensure_server(self, sandbox_id: str) -> None:
        async with self._sandbox(sandbox_id) as sandbox:
            await ensure(_VercelMachine(sandbox), self.server)

    async def destroy(self, sandbox_id: str) -> None:
        try:
            async with self._sandbox(sandbox_id) as sandbox:
                await sandbox.destroy(delete_orphan_snapshots=True)
        except SandboxDestroyed:
            return

    async def pause(self, sandbox_id: str) -> None:
        async with self._client(sandbox_id) as client:
            sandbox = await client.get_sandbox(name=sandbox_id)
            if _status(sandbox) in ("pending", "running"):
                await sandbox.stop()
            with anyio.move_on_after(REST_WITHIN):
                while _status(sandbox) not in ("stopped", "failed", "aborted"):
                    await anyio.sleep(LOOK_EVERY)
                    sandbox = await client.get_sandbox(name=sandbox_id)
                return
        raise ProviderError(f"Vercel: the sandbox {sandbox_id} does not stop within {REST_WITHIN:g} seconds")

    async def extend(self, sandbox_id: str, seconds: float) -> None:
        """Give the session so much more time, as far as the plan allows.

        Raises:
          SandboxDestroyed: there is no such sandbox any more.
        """
        async with self._sandbox(sandbox_id) as sandbox:
            await sandbox.extend_execution_time_limit(seconds)

    async def _create(self, client: SandboxClient, name: str) -> Sandbox:
        from vercel.sandbox import SandboxResources

        resources = SandboxResources(vcpus=self.cpus, memory=self.memory) if self.cpus or self.memory else None
        making = partial(
            client.create_sandbox,
            name=name,
            image=self.image,
            ports=[self.server.port],
            execution_time_limit=self.timeout,
            resources=resources,
            persistent=True,
            env=self.env,
            tags=self.tags,
            region=self.region,
        )
        try:
            return await finished(making, CREATE_WITHIN)
        except TimeoutError:
            raise ProviderError(f"Vercel: the sandbox does not run within {CREATE_WITHIN:g} seconds") from None

    @asynccontextmanager
    async def _sandbox(self, sandbox_id: str) -> AsyncGenerator[Sandbox]:
        async with self._client(sandbox_id) as client:
            yield await client.get_sandbox(name=sandbox_id)

    @asynccontextmanager
    async def _client(self, sandbox_id: str | None = None) -> AsyncGenerator[SandboxClient]:
        """A client, for one task: it belongs to the event loop. What goes wrong with it is a `ProviderError`.

        Args:
          sandbox_id: the sandbox that has to be there, or it is `SandboxDestroyed`.
        """
        try:
            import httpx2
            from vercel import sandbox as sdk
        except ImportError:
            raise MissingExtra('for Vercel: pip install "trio-sandbox-agent[vercel]"') from None
        # It tells the API which coding agent drives it, by the variables of the environment.
        os.environ.setdefault("VERCEL_SANDBOX_TELEMETRY_DISABLED", "1")
        credentials = None if self._credentials is None else sdk.SandboxCredentials(*self._credentials)
        options = sdk.SandboxServiceOptions(base_url=self.url, credentials_factory=_giving(credentials))
        client = sdk.SandboxClient.create(options=options, httpx_client_factory=_http)
        try:
            try:
                yield client
            finally:
                with anyio.CancelScope(shield=True):
                    await client.aclose()
        except sdk.SandboxApiError as error:
            raise _refusal(error, sandbox_id) from None
        except sdk.SandboxFilesystemWriteError as error:
            if isinstance(error.cause, sdk.SandboxApiError):
                raise _refusal(error.cause, sandbox_id) from None
            raise ProviderError(f"Vercel: {error}") from None
        except (sdk.SandboxError, httpx2.HTTPError, httpx2.InvalidURL, anyio.BrokenResourceError) as error:
            raise ProviderError(f"Vercel: {error or type(error).__name__}") from None


class _VercelMachine(Machine):
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def run(self, script: str, *, within: float) -> Ran:
        try:
            with anyio.fail_after(within):
                done = await self._sandbox.run_process(
                    "sh", ["-c", script], capture_output=True, kill_after=within + KILL_LATER
                )
        except TimeoutError:
            raise ProviderError(f"Vercel: a script took longer than {within:g} seconds") from None
        return Ran(done.returncode, done.stdout or "", done.stderr or "")

    async def write(self, path: str, data: bytes) -> None:
        await self._sandbox.fs.write_bytes(path, data)


def _http() -> httpx2.AsyncClient:
    """As the SDK makes its own ones, but for what is trusted: that is loaded once, and not for each client."""
    import httpx2

    return httpx2.AsyncClient(timeout=ANSWER_WITHIN, verify=_trusted())


@cache
def _trusted() -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context()


def _giving(credentials: SandboxCredentials | None) -> SandboxCredentialsFactory | None:
    if credentials is None:
        return None

    async def give() -> SandboxCredentials:
        return credentials

    return give


def _refusal(error: SandboxApiError, sandbox_id: str | None) -> ProviderError:
    # Without its snapshot nothing of it is left but its name.
    if sandbox_id is not None and (error.status_code == NOT_FOUND or error.code == "snapshot_not_found"):
        return SandboxDestroyed(f"Vercel has no sandbox {sandbox_id} any more: {error}")
    wait = error.response.headers.get("retry-after")
    return ProviderError(f"Vercel: {error}" + (f"; try again after {wait} seconds" if wait else ""))


def _status(sandbox: Sandbox) -> str | None:
    session = sandbox.current_session
    return sandbox.status if session is None or session.status is None else session.status
