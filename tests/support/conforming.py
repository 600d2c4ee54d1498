"""The checks of `sandbox_agent.providers.conformance` as tests of a provider, under the two event loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from sandbox_agent.providers.conformance import (
    CHECKS,
    Check,
    Subject,
    check_a_cancelled_create_leaves_nothing,
    check_a_crashed_server_comes_back_with_its_token_and_its_sessions,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cloud_subject", "each_check", "run_check"]

WITHIN = 120.0
"""Seconds for a check."""

TELLING = (check_a_crashed_server_comes_back_with_its_token_and_its_sessions, check_a_cancelled_create_leaves_nothing)
"""Those in which an event loop has most to do."""


def cloud_subject(provide: Callable[..., Any], count: Callable[[], int], crash: Callable[[str], object]) -> Subject:
    """A provider whose cloud is a fake.

    Args:
      provide: makes one, with the command of its server, where that is another, and options by their names.
      count: how many sandboxes the cloud has.
      crash: kills the server of a sandbox; called in a thread.
    """
    provider = provide()

    async def killed(sandbox_id: str) -> None:
        await anyio.to_thread.run_sync(crash, sandbox_id)

    async def counted() -> int:
        await anyio.lowlevel.checkpoint()
        return count()

    return Subject(
        provider=provider,
        again=lambda: provide(server=provider.server),
        crash=killed,
        count=counted,
        beside=provide(),
        broken=provide("no-such-command"),
    )


def each_check(*, telling_ones_twice: bool = False) -> pytest.MarkDecorator:
    """Parametrizes a test by `check` and `backend`: each check under Trio, but for the telling ones under asyncio.

    Args:
      telling_ones_twice: under Trio as well.
    """
    cases = [(check, "trio") for check in CHECKS if telling_ones_twice or check not in TELLING]
    cases += [(check, "asyncio") for check in TELLING]
    return pytest.mark.parametrize(
        ("check", "backend"), cases, ids=lambda value: value if isinstance(value, str) else name_of(value)
    )


def run_check(check: Check, backend: str, subject: Subject) -> None:
    async def bounded() -> None:
        with anyio.fail_after(WITHIN):
            await check(subject)

    anyio.run(bounded, backend=backend)
