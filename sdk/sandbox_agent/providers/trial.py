"""A sandbox on trial: what the checks of `conformance` do with one, over the plain HTTP API."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ..errors import ConnectionFailed, NotFound, ProviderError, SandboxDestroyed, ServerError, Unavailable
from ..health import Health
from ..transport import Timeouts, Transport, open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .provider import Provider

__all__ = [
    "LOOK_EVERY",
    "Sandbox",
    "events_of",
    "expect",
    "expect_gone",
    "new_token",
    "open_session",
    "sandbox_of",
    "say",
    "session_of",
    "visit",
]

ANSWER_WITHIN = 120.0
"""Seconds until a new sandbox's server must answer, where it is far away and has just been installed."""

DESTROY_WITHIN = 60.0
"""Seconds to destroy what a check has made, whatever became of it."""

LOOK_EVERY = 0.1
"""Seconds between two looks at what tells us nothing by itself."""

SESSION = "conformance"
"""The id of the session in every sandbox."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    id: str
    token: str | None


def new_token() -> str:
    return secrets.token_urlsafe(24)


@asynccontextmanager
async def sandbox_of(provider: Provider) -> AsyncGenerator[Sandbox]:
    """A new sandbox, which is destroyed at the end."""
    token = new_token()
    sandbox_id = await _created(provider, token)
    try:
        yield Sandbox(sandbox_id, token)
    finally:
        with anyio.move_on_after(DESTROY_WITHIN, shield=True):
            await provider.destroy(sandbox_id)


async def _created(provider: Provider, token: str) -> str:
    """A new sandbox, while whose making no command line of this machine may have the token."""

    async def look() -> None:
        while True:
            expect(not await anyio.to_thread.run_sync(_in_a_command_line, token), "the token is in a command line")
            await anyio.sleep(LOOK_EVERY)

    made = ""
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            made = await provider.create(token)
            group.cancel_scope.cancel()
    except ExceptionGroup as errors:  # one of the two failed, and the other was cancelled
        raise errors.exceptions[0] from None
    expect(not await anyio.to_thread.run_sync(_in_a_command_line, token), "the token is in a command line")
    return made


def _in_a_command_line(token: str) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if token.encode() in (process / "cmdline").read_bytes():
                return True
    return False


@asynccontextmanager
async def visit(provider: Provider, sandbox: Sandbox, *, wait: bool = True) -> AsyncGenerator[Transport]:
    """The sandbox's server, which answers unless we are not to wait for that."""
    async with provider.reach(sandbox.id) as endpoint:
        endpoint = replace(endpoint, token=sandbox.token)
        async with open_transport(endpoint, Health(watched=False), Timeouts()) as server:
            if wait:
                await _answers(server)
            yield server


async def _answers(server: Transport) -> None:
    """Wait until it is well. What stands in between may say anything until then."""
    with anyio.move_on_after(ANSWER_WITHIN):
        while True:
            with suppress(ConnectionFailed, Unavailable, ServerError, NotFound):
                await server.request("GET", "/v1/health", retry=False)
                return
            await anyio.sleep(LOOK_EVERY)
    raise AssertionError(f"the server does not answer within {ANSWER_WITHIN:g} seconds")


async def open_session(server: Transport) -> Any:
    opened = await server.request("POST", "/v1/sessions", json={"agent": "mock", "id": SESSION})
    return opened.json()


async def session_of(server: Transport) -> Any:
    return (await server.request("GET", f"/v1/sessions/{SESSION}")).json()


async def events_of(server: Transport) -> list[Any]:
    page = (await server.request("GET", f"/v1/sessions/{SESSION}/events", params={"limit": 1000})).json()
    return list(page["events"])


async def say(server: Transport, text: str) -> None:
    answer = await server.request(
        "POST", f"/v1/sessions/{SESSION}/prompt", params={"wait": True}, json={"content": text}
    )
    turn = answer.json()
    expect(turn["outcome"] == "completed", f"the mock agent's turn did not end well: {turn}")
    expect(text in turn["text"], f"the mock agent did not say {text!r}: {turn}")


async def expect_gone(provider: Provider, sandbox_id: str) -> None:
    for method in (provider.endpoint, provider.ensure_server, provider.reconnect):
        try:
            await method(sandbox_id)
        except SandboxDestroyed:
            continue
        except ProviderError as error:
            raise AssertionError(f"{method.__name__} of a sandbox that is gone says {error!r}") from error
        raise AssertionError(f"{method.__name__} of a sandbox that is gone raises nothing")


def expect(condition: bool, message: str) -> None:
    # No assert: those are left out under -O.
    if not condition:
        raise AssertionError(message)
