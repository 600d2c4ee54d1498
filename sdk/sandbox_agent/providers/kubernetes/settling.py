"""A server that was started is asked until it answers; one of a warm pool is told what it lacks.

It waits again after each start of its container, so whoever brings a server back tells it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from ...backoff import Backoff
from ...errors import ProviderError, api_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..provider import Endpoint

__all__ = ["Binding", "settle"]

ANSWER_WITHIN = 5.0
"""Seconds to answer; a server that does not hangs."""

INIT_SECRET = "X-Sandbox-Agent-Init-Secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a server of a pool is told, see docs/warm-pools.md.

    Attributes:
      init_secret: what it wants for that.
    """

    token: str = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    workspace: str | None
    init_secret: str | None = field(repr=False)


async def settle(endpoint: Endpoint, binding: Binding | None, *, within: float, first: bool = False) -> None:
    """Wait until the server answers to its token.

    Args:
      binding: for a server of a pool.
      within: seconds.
      first: nobody but us may have told it anything yet.

    Raises:
      ProviderError: it does not answer; it takes another token; it refuses what it is told.
    """
    said = "nobody answers"
    # It may be on this machine: no proxy of the environment is asked. A router's certificate is checked as usual.
    async with httpx.AsyncClient(
        base_url=endpoint.url,
        headers=_headers(endpoint),
        verify=endpoint.tls or endpoint.url.startswith("https:"),
        trust_env=False,
        timeout=ANSWER_WITHIN,
    ) as client:
        backoff = Backoff(first=0.05, limit=1.0)
        with anyio.move_on_after(within):
            while True:
                try:
                    if await _settled(client, binding, first):
                        return
                except (httpx.TransportError, _NotYet) as error:
                    said = str(error) or type(error).__name__
                await anyio.sleep(backoff.next())
    raise ProviderError(f"the server has not answered within {within:g} s: {said}")


class _NotYet(Exception):
    """Something stands in between, or the server is about to start."""


async def _settled(client: httpx.AsyncClient, binding: Binding | None, first: bool) -> bool:
    answer = await client.get("/v1/health")
    if answer.status_code in (httpx.codes.UNAUTHORIZED.value, httpx.codes.FORBIDDEN.value):
        raise ProviderError(f"the server, or a router before it, does not take our token: {_words(answer)}")
    if not answer.is_success:
        raise _NotYet(_words(answer))
    if _object(answer).get("status") != "awaiting_init":
        return True
    if binding is None:
        raise ProviderError("the server waits to be initialized, though it is of no warm pool")
    await _tell(client, binding, first)
    return False


async def _tell(client: httpx.AsyncClient, binding: Binding, first: bool) -> None:
    body: dict[str, Any] = {"token": binding.token, "env": dict(binding.env), "secrets": dict(binding.secrets)}
    if binding.workspace is not None:
        body["workspace"] = binding.workspace
    headers = {} if binding.init_secret is None else {INIT_SECRET: binding.init_secret}
    answer = await client.post(
        "/v1/init", content=json.dumps(body), headers={**headers, "Content-Type": "application/json"}
    )
    if answer.is_success or (answer.status_code == httpx.codes.CONFLICT.value and not first):
        return
    if answer.is_server_error:
        raise _NotYet(_words(answer))
    raise ProviderError(f"the server of the pool cannot be initialized: {_words(answer)}")


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Accept": "application/json", **endpoint.headers}
    if endpoint.token is not None:
        name = endpoint.token_header
        headers[name] = f"Bearer {endpoint.token}" if name.lower() == "authorization" else endpoint.token
    return headers


def _words(answer: httpx.Response) -> str:
    told = _object(answer) or {"detail": answer.text[:200].strip() or answer.reason_phrase}
    return f"{answer.status_code} {api_error(answer.status_code, told)}"


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return dict(found) if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
