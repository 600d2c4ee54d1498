"""Cloudflare containers, behind a Worker of the user's own: the sandbox bridge of Cloudflare's Sandbox SDK.

An id is all that the bridge makes; its container starts with the first command. A container that sleeps or is destroyed
loses all that is in it, and the next command for its id starts an empty one: so a container in which there is no server
of ours is a sandbox that is gone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from base64 import b64decode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import httpx_sse

from ..errors import ProviderError, SandboxDestroyed
from ..trust import trusted
from .boot import Server, boot, ensure, token_of
from .machine import Machine, Ran
from .provider import Endpoint, Provider
from .undo import finished, undone_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

__all__ = ["CloudflareProvider"]

ANSWER_WITHIN = 60.0
"""Seconds until the bridge answers, where a container runs or none is needed."""

START_WITHIN = 120.0
"""Seconds for a container to start: the first one of an image takes long."""

TUNNEL_WITHIN = 120.0
"""Seconds for a tunnel with its name, when there was none."""

WORKSPACE = "/workspace"
"""The only directory that the bridge writes to."""

ID = re.compile(r"[a-z2-7]{1,128}")
"""What the bridge takes for an id: base32."""

LARGEST_COMPLAINT = 500
"""Characters of an answer that is told in an error."""


class CloudflareProvider(Provider):
    """See the module.

    Args:
      url: of the Worker; by default `SANDBOX_API_URL` of the environment.
      key: the Worker's `SANDBOX_API_KEY`; by default from the environment, too. A bridge of `wrangler dev` needs none.
      url_of: gives the address at which the Worker hands on to a port of a sandbox, from the sandbox's id and the port.
        By default the bridge is asked for a tunnel that has the sandbox's id as its name.
      headers: that every request to the server needs, where the Worker wants some.
      server: how the server gets there, and what it has.
    """

    name = "cloudflare"

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        url_of: Callable[[str, int], str] | None = None,
        headers: Mapping[str, str] | None = None,
        server: Server | None = None,
    ) -> None:
        address = url or os.environ.get("SANDBOX_API_URL")
        if not address:
            raise ProviderError("Cloudflare: give the URL of your bridge, or set SANDBOX_API_URL")
        self.url = address.rstrip("/")
        self.url_of = url_of
        self.headers = dict(headers or {})
        self.server = server or Server()
        self._key = key or os.environ.get("SANDBOX_API_KEY")

    async def create(self, token: str) -> str:
        # An id costs nothing, and what has none cannot be destroyed.
        async with self._bridge() as bridge:
            sandbox_id = str(_field(await bridge.ask("POST", "/v1/sandbox"), "id"))
            async with undone_by(lambda: self.destroy(sandbox_id)):
                # A container that is still to start is not seen by who wants to destroy it.
                await finished(lambda: bridge.run(sandbox_id, ["true"], within=START_WITHIN))
                await boot(_CloudflareMachine(bridge, sandbox_id), self.server, token)
        return sandbox_id

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        async with self._bridge() as bridge:
            token = await self._found(bridge, sandbox_id)
            if self.url_of is not None:
                url = self.url_of(sandbox_id, self.server.port)
            else:
                # A tunnel without a name has an address at once, but holds event streams back.
                path = f"/v1/sandbox/{sandbox_id}/tunnel/{self.server.port}"
                url = str(_field(await bridge.ask("POST", path, {"name": sandbox_id}, within=TUNNEL_WITHIN), "url"))
        return Endpoint(url.rstrip("/"), token, headers=self.headers)

    async def ensure_server(self, sandbox_id: str) -> None:
        async with self._bridge() as bridge:
            await self._found(bridge, sandbox_id)
            await ensure(_CloudflareMachine(bridge, sandbox_id), self.server)

    async def destroy(self, sandbox_id: str) -> None:
        async with self._bridge() as bridge:
            await bridge.destroy(sandbox_id)

    async def _found(self, bridge: _Bridge, sandbox_id: str) -> str:
        """The token of the server in it. An empty container, which our question has just started, is removed again."""
        if not _is_one(sandbox_id):
            raise SandboxDestroyed(f"{sandbox_id} is no sandbox of Cloudflare's bridge")
        token = await token_of(_CloudflareMachine(bridge, sandbox_id))
        if token is None:
            with anyio.move_on_after(ANSWER_WITHIN, shield=True):
                await bridge.destroy(sandbox_id)
            raise SandboxDestroyed(f"the container of {sandbox_id} is gone, with all that was in it")
        return token

    @asynccontextmanager
    async def _bridge(self) -> AsyncGenerator[_Bridge]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=ANSWER_WITHIN, verify=trusted(self.url)
            ) as client:
                yield _Bridge(client)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderError(f"Cloudflare: {error or type(error).__name__}") from None


class _Bridge:
    """The bridge's HTTP API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, method: str, path: str, told: object = None, *, within: float = ANSWER_WITHIN) -> Any:
        """Gives the answer's JSON, None where it has none."""
        answer = await self._client.request(method, path, json=told, timeout=within)
        _accept(answer)
        return _json(answer.content) if answer.content else None

    async def destroy(self, sandbox_id: str) -> None:
        if _is_one(sandbox_id):  # of a strange one the bridge would say that it cannot be one
            await self.ask("DELETE", f"/v1/sandbox/{sandbox_id}")

    async def run(self, sandbox_id: str, argv: list[str], *, within: float, cwd: str | None = None) -> Ran:
        """Run a command to its end. Its output comes as an event stream, in base64."""
        told = {"argv": argv, "timeout_ms": round(within * 1000), **({"cwd": cwd} if cwd else {})}
        try:
            with anyio.fail_after(within):
                answer = await self._client.post(f"/v1/sandbox/{sandbox_id}/exec", json=told, timeout=within)
        except (TimeoutError, httpx.ReadTimeout):
            raise ProviderError(f"Cloudflare: a script took longer than {within:g} seconds") from None
        _accept(answer)
        output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        for event in httpx_sse.EventSource(answer).iter_sse():
            if event.event in output:
                output[event.event] += _bytes(event.data)
            elif event.event == "exit":
                texts = (output[name].decode(errors="replace") for name in ("stdout", "stderr"))
                return Ran(int(_field(_json(event.data), "exit_code")), *texts)
            elif event.event == "error":
                raise ProviderError(f"Cloudflare: {_field(_json(event.data), 'error')}")
        raise ProviderError("Cloudflare: the bridge's answer ends before the script does")

    async def write(self, sandbox_id: str, name: str, data: bytes) -> None:
        """Write a file of the workspace."""
        path = f"/v1/sandbox/{sandbox_id}/file{WORKSPACE}/{name}"
        _accept(await self._client.put(path, content=data, headers={"Content-Type": "application/octet-stream"}))


class _CloudflareMachine(Machine):
    def __init__(self, bridge: _Bridge, sandbox_id: str) -> None:
        self._bridge = bridge
        self._id = sandbox_id

    async def run(self, script: str, *, within: float) -> Ran:
        return await self._bridge.run(self._id, ["sh", "-c", script], within=within)

    async def write(self, path: str, data: bytes) -> None:
        # The bridge writes into the workspace alone.
        name = f".sandbox-agent-{secrets.token_hex(8)}"
        await self._bridge.write(self._id, name, data)
        moved = await self._bridge.run(self._id, ["mv", "-f", name, path], within=ANSWER_WITHIN, cwd=WORKSPACE)
        if moved.code:
            raise ProviderError(f"Cloudflare: cannot write {path}: {moved.errors.strip() or moved.output.strip()}")


def _is_one(sandbox_id: str) -> bool:
    return ID.fullmatch(sandbox_id) is not None


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ProviderError(f"Cloudflare: the bridge's answer is no JSON: {text[:LARGEST_COMPLAINT]!r}") from None


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ProviderError(f"Cloudflare: the bridge's output is no base64: {text[:LARGEST_COMPLAINT]!r}") from None


def _field(value: Any, name: str) -> Any:
    try:
        return value[name]
    except (TypeError, LookupError):
        raise ProviderError(
            f"Cloudflare: the bridge's answer has no {name}: {str(value)[:LARGEST_COMPLAINT]}"
        ) from None


def _accept(answer: httpx.Response) -> None:
    """Raise what the bridge says, unless that is yes. In front of it, Cloudflare's edge may answer with a page."""
    if answer.is_success:
        return
    said = answer.text[:LARGEST_COMPLAINT]
    if answer.headers.get("content-type", "").startswith("application/json"):
        said = str(_field(_json(answer.content), "error"))
    wait = answer.headers.get("retry-after")
    after = f"; try again after {wait} seconds" if wait else ""
    raise ProviderError(f"Cloudflare: HTTP status {answer.status_code}: {said}{after}")
