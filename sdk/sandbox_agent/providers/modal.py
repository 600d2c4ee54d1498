"""Modal sandboxes: containers with an end, which is told when they are made. What is in them ends with them.

Modal's own SDK blocks, in threads of ours. A thread cannot be cancelled: one that makes a sandbox is waited for, any
other one is left to itself.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, contextmanager
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
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping

    import modal

__all__ = ["ModalProvider"]

T = TypeVar("T")

LIFETIME = 60 * 60.0
"""Seconds of a sandbox. Modal's own default are five minutes, the most is a day."""

MEMORY = 2048
"""MiB: enough for the server and one agent."""

CREATE_WITHIN = 120.0
"""Seconds for a new sandbox; its image is there already."""

TUNNEL_WITHIN = 60
"""Seconds until there is a public address."""

WRITE_WITHIN = 300
"""Seconds to write a file, a wheel at most."""

WRITE = 'cat > "$1"'
"""A script that writes what it reads to the file of its first argument."""

PYTHON = "3.13"
"""Of the image, where none is asked for."""

TIMED_OUT = -1
"""What Modal's SDK gives for the exit code of a command that it has not waited for."""

CHUNK = 1 << 20
"""Bytes of a file that are sent at once; Modal's SDK takes two MiB."""


class ModalProvider(Provider):
    """See the module.

    Args:
      image: a `modal.Image`, or the name of one in a registry; by default Debian with Python 3.13.
      app: the name of the Modal app that the sandboxes belong to; it is made if there is none.
      environment: of Modal; by default the account's own.
      timeout: seconds until the sandbox ends, whatever it does.
      idle_timeout: seconds after which a sandbox ends that nobody uses; by default never.
      cpu: how many cores, say 0.5; by default Modal's own.
      memory: MiB.
      region: say `us-east`; by default wherever there is room.
      env: variables of all that runs in the sandbox; keys for agents are better in the server's.
      tags: of the sandbox, for lists.
      token_id, token_secret: who asks; by default as Modal's own SDK finds out (`MODAL_TOKEN_ID`, `MODAL_TOKEN_SECRET`,
        or `~/.modal.toml`).
      server: how the server gets there, and what it has.
    """

    name = "modal"

    def __init__(
        self,
        image: modal.Image | str | None = None,
        *,
        app: str = "sandbox-agent",
        environment: str | None = None,
        timeout: float = LIFETIME,
        idle_timeout: float | None = None,
        cpu: float | None = None,
        memory: int = MEMORY,
        region: str | None = None,
        env: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        token_id: str | None = None,
        token_secret: str | None = None,
        server: Server | None = None,
    ) -> None:
        if (token_id is None) != (token_secret is None):
            raise ProviderError("of Modal's token_id and token_secret both are needed, or none")
        self.image = image
        self.app = app
        self.environment = environment
        self.timeout = timeout
        self.idle_timeout = idle_timeout
        self.cpu = cpu
        self.memory = memory
        self.region = region
        self.env = dict(env or {})
        self.tags = dict(tags or {})
        self.server = server or Server()
        self._credentials = (token_id, token_secret) if token_id and token_secret else None

    async def create(self, token: str) -> str:
        async with self._client() as client:
            # Apart: a build may take minutes, and what is built stays, whoever waits for it.
            app, image = await _call(lambda: self._build(client))
            made: list[modal.Sandbox] = []
            async with undone_by(lambda: self._unmake(made)):
                try:
                    await finished(lambda: _call(lambda: made.append(self._make(client, app, image))), CREATE_WITHIN)
                except TimeoutError:
                    raise ProviderError(f"Modal: no sandbox within {CREATE_WITHIN:g} seconds") from None
                async with _attached(made[0]):
                    await boot(_ModalMachine(made[0]), self.server, token)
        return made[0].object_id

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        async with self._sandbox(sandbox_id) as sandbox:
            token = await token_of(_ModalMachine(sandbox))
            tunnels = await _call(lambda: sandbox.tunnels(timeout=TUNNEL_WITHIN), sandbox_id)
        if self.server.port not in tunnels:
            raise ProviderError(f"Modal: {sandbox_id} does not expose port {self.server.port}, but {sorted(tunnels)}")
        return Endpoint(tunnels[self.server.port].url, token)

    async def ensure_server(self, sandbox_id: str) -> None:
        async with self._sandbox(sandbox_id) as sandbox:
            await ensure(_ModalMachine(sandbox), self.server)

    async def destroy(self, sandbox_id: str) -> None:
        try:
            async with self._sandbox(sandbox_id) as sandbox:
                await _call(sandbox.terminate, sandbox_id)
        except SandboxDestroyed:
            return

    def _build(self, client: modal.Client) -> tuple[modal.App, modal.Image]:
        import modal

        app = modal.App.lookup(self.app, client=client, environment_name=self.environment, create_if_missing=True)
        match self.image:
            case None:
                image = modal.Image.debian_slim(python_version=PYTHON)
            case str(name):
                image = modal.Image.from_registry(name)  # pyright: ignore[reportUnknownMemberType]
            case image:
                pass
        return app, image.build(app)

    def _make(self, client: modal.Client, app: modal.App, image: modal.Image) -> modal.Sandbox:
        import modal

        return modal.Sandbox.create(
            "sleep",
            "infinity",
            app=app,
            image=image,
            client=client,
            timeout=math.ceil(self.timeout),
            idle_timeout=None if self.idle_timeout is None else math.ceil(self.idle_timeout),
            cpu=self.cpu,
            memory=self.memory,
            region=self.region,
            env=dict(self.env),
            tags=self.tags,
            encrypted_ports=[self.server.port],
        )

    async def _unmake(self, made: Iterable[modal.Sandbox]) -> None:
        for sandbox in made:
            await self.destroy(sandbox.object_id)

    @asynccontextmanager
    async def _sandbox(self, sandbox_id: str) -> AsyncGenerator[modal.Sandbox]:
        async with self._client() as client:
            sandbox = await _call(lambda: _find(client, sandbox_id), sandbox_id)
            async with _attached(sandbox):
                yield sandbox

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[modal.Client]:
        client = await _call(self._open)
        try:
            yield client
        finally:
            if self._credentials is not None:  # else it is Modal's own, for the whole program
                with anyio.CancelScope(shield=True):
                    await _call(client.close)

    def _open(self) -> modal.Client:
        import modal

        if self._credentials is None:
            return modal.Client.from_env()
        return modal.Client.from_credentials(*self._credentials)


class _ModalMachine(Machine):
    def __init__(self, sandbox: modal.Sandbox) -> None:
        self._sandbox = sandbox

    async def run(self, script: str, *, within: float) -> Ran:
        return await _call(partial(self._run, script, within), self._sandbox.object_id)

    async def write(self, path: str, data: bytes) -> None:
        ran = await _call(partial(self._run, WRITE, WRITE_WITHIN, path, data=data), self._sandbox.object_id)
        if ran.code:
            raise ProviderError(f"Modal: cannot write {path}: {ran.errors.strip() or ran.output.strip()}")

    def _run(self, script: str, within: float, *arguments: str, data: bytes = b"") -> Ran:
        from modal.exception import ConflictError, ExecTimeoutError

        late = ProviderError(f"Modal: a script took longer than {within:g} seconds")
        try:
            process = self._sandbox.exec("sh", "-c", script, "sh", *arguments, timeout=math.ceil(within), text=False)
            try:
                for start in range(0, len(data), CHUNK):
                    process.stdin.write(data[start : start + CHUNK])
                    process.stdin.drain()
                process.stdin.write_eof()
                process.stdin.drain()
            except ConflictError:  # it reads no more: its exit code says why
                pass
            ran = (process.stdout.read(), process.stderr.read(), process.wait())
        except ExecTimeoutError:
            raise late from None
        output, errors, code = ran
        if code == TIMED_OUT:
            raise late
        return Ran(code, output.decode(errors="replace"), errors.decode(errors="replace"))


def _find(client: modal.Client, sandbox_id: str) -> modal.Sandbox:
    import modal

    sandbox = modal.Sandbox.from_id(sandbox_id, client=client)
    if sandbox.returncode is not None:
        raise SandboxDestroyed(f"Modal: the sandbox {sandbox_id} has ended")
    return sandbox


@asynccontextmanager
async def _attached(sandbox: modal.Sandbox) -> AsyncGenerator[None]:
    """Let go of the connection to the sandbox at the end."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await _call(sandbox.detach)


async def _call(work: Callable[[], T], sandbox_id: str | None = None) -> T:
    """Do something that blocks, in a thread that is left to itself when we are cancelled.

    What goes wrong with it is a `ProviderError`.

    Args:
      sandbox_id: the sandbox that has to be there, or it is `SandboxDestroyed`.
    """

    def translated() -> T:
        with _translating(sandbox_id):
            return work()

    return await anyio.to_thread.run_sync(translated, abandon_on_cancel=True)


@contextmanager
def _translating(sandbox_id: str | None) -> Generator[None]:
    try:
        import grpclib.exceptions
        from modal import exception as errors
    except ImportError:
        raise MissingExtra('for Modal: pip install "trio-sandbox-agent[modal]"') from None
    try:
        yield
    except errors.NotFoundError as error:
        kind = ProviderError if sandbox_id is None else SandboxDestroyed
        raise kind(f"Modal: {error}") from None
    except (errors.Error, grpclib.exceptions.GRPCError, grpclib.exceptions.StreamTerminatedError, OSError) as error:
        raise ProviderError(f"Modal: {error or type(error).__name__}") from None
