"""A client of the SDK and a daemon that outlasts it, under either event loop."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.from_thread import start_blocking_portal

from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport

from .daemon import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from pathlib import Path

    from sandbox_agent.transport import Transport

    from .daemon import Daemon

__all__ = ["connected", "lasting", "under"]

WITHIN = 30.0
"""Seconds for one test's doings."""


@contextmanager
def lasting(home: Path, *options: str, **environment: str) -> Generator[Daemon]:
    """A daemon for tests of either event loop: it is looked after in a thread."""
    with (
        start_blocking_portal("trio") as portal,
        portal.wrap_async_context_manager(running(home, *options, **environment)) as daemon,
    ):
        yield daemon


@asynccontextmanager
async def connected(daemon: Daemon, timeouts: Timeouts | None = None) -> AsyncGenerator[Transport]:
    """A transport to a daemon, with nobody who watches its health."""
    endpoint = Endpoint(daemon.url, daemon.token or None)
    async with open_transport(endpoint, Health(watched=False), timeouts or Timeouts(retry_within=5)) as transport:
        yield transport


def under(backend: str, daemon: Daemon, body: Callable[[Transport], Awaitable[None]]) -> None:
    """Have a client of the daemon do this, under this event loop."""

    async def run() -> None:
        with anyio.fail_after(WITHIN):
            async with connected(daemon) as transport:
                await body(transport)

    anyio.run(run, backend=backend)
