"""A sandbox of a provider, from its making, or its finding, to what becomes of it at the end."""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from .errors import ProviderError
from .providers.undo import finished

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .providers.provider import Endpoint, Provider

__all__ = ["Lifetime", "OnExit", "open_sandbox"]

OnExit: TypeAlias = Literal["destroy", "pause", "leave"]

EXIT_WITHIN = 60.0
"""Seconds for the provider to do what is to become of the sandbox."""

_log = logging.getLogger("sandbox_agent")


@dataclass(slots=True, eq=False)
class Lifetime:
    """A sandbox that we have made, or found.

    Attributes:
      raw_id: the provider's own.
      token: of its server, where we know it better than the provider.
      on_exit: what becomes of it, now.
      over: it is destroyed, or paused, already.
    """

    provider: Provider
    raw_id: str
    token: str | None
    on_exit: OnExit
    over: bool = False

    @property
    def id(self) -> str:
        """As `sandbox_id` is given."""
        return f"{self.provider.name}/{self.raw_id}"

    @asynccontextmanager
    async def reach(self) -> AsyncGenerator[Endpoint]:
        """Where the server is, for as long as the block runs."""
        async with self.provider.reach(self.raw_id) as endpoint:
            yield replace(endpoint, token=self.token or endpoint.token, url=endpoint.url.rstrip("/"))

    async def end(self, how: Literal["destroy", "pause", "kill"]) -> None:
        """Have the provider do it. Raises what it raises."""
        await getattr(self.provider, how)(self.raw_id)
        self.over = True

    async def leave(self) -> None:
        """Do what is to be done in the end, within its time, also while we are being cancelled."""
        if self.over or self.on_exit == "leave":
            return
        how = self.on_exit
        try:
            await finished(lambda: self.end(how), EXIT_WITHIN)
        except TimeoutError:
            raise ProviderError(f"{self.id} may be left: {how} took longer than {EXIT_WITHIN:g} s") from None


@asynccontextmanager
async def open_sandbox(provider: Provider, sandbox_id: str | None, token: str | None) -> AsyncGenerator[Lifetime]:
    """A new sandbox, or one that is there, for as long as the block runs.

    At its end a new one is destroyed, and one that was there left, unless the block sets `on_exit` otherwise.

    Raises:
      ProviderError: as the provider has it; or the id is another provider's.
    """
    if sandbox_id is None:
        token = token or secrets.token_urlsafe(32)
        life = Lifetime(provider, await provider.create(token), token, "destroy")
    else:
        life = Lifetime(provider, _raw_id(provider, sandbox_id), token, "leave")
        await provider.reconnect(life.raw_id)
    try:
        yield life
    except BaseException:
        try:
            await life.leave()
        except ProviderError as error:
            _log.error("%s", error)  # what the block has raised is the news
        raise
    await life.leave()


def _raw_id(provider: Provider, sandbox_id: str) -> str:
    name, slash, raw = sandbox_id.partition("/")
    if not slash or not raw or name != provider.name:
        raise ProviderError(f"{sandbox_id!r} is no sandbox of {provider.name}: expected {provider.name}/…")
    return raw
