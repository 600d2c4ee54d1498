"""Installs that this command does itself, without a daemon; a daemon that runs finds them, and waits for them."""

from __future__ import annotations

import os
import secrets
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from sandbox_actors.catalog import BadCatalog, Catalog
from sandbox_actors.catalog.sources import read_agents, registry_cache
from sandbox_actors.installer import Outcome, open_installer
from sandbox_supervisor import ActorError, open_reaper, open_sentinel

from .install_display import showing_installs
from .options import Failure, program_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sandbox_actors.installer import Installer

    from .install_display import InstallDisplay

__all__ = ["Ended", "Wanted", "catalog_of", "install_here"]

AT_ONCE = 2
"""Installs at the same time: one waits for the network while the other unpacks."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Ended: TypeAlias = "Outcome | ActorError"
"""What came of one install."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be installed, and how. See `Installer.install`."""

    agents: Sequence[str]
    reinstall: bool = False
    agent_version: str | None = None
    process_version: str | None = None
    offline: bool = False


@dataclass(slots=True)
class _Work:
    """The installs, as far as they have come.

    Attributes:
      signal: which one has stopped us.
    """

    ended: dict[str, Ended] = field(default_factory=dict[str, "Ended"])
    signal: int | None = None


def catalog_of(data_dir: Path, agents_file: Path | None) -> Catalog:
    """The catalog as a server with this data directory has it.

    Raises:
      Failure: a definition of agents is not valid.
    """
    environment = dict(os.environ)
    try:
        agents = read_agents(agents_file, registry_cache(data_dir), environment)
    except BadCatalog as error:
        raise Failure(str(error)) from None
    return Catalog(agents, data_dir / "bin" / "agent_processes", environment, program=program_path())


def install_here(catalog: Catalog, wanted: Wanted) -> dict[str, Ended]:
    """Install agents, show how far each is, and give how each has ended, in the order in which they are wanted.

    Raises:
      SystemExit: a signal has stopped it; what was not complete by then is as it was before.
    """
    work = _Work()
    with showing_installs() as display:
        trio.run(_install, catalog, wanted, display, work)
    if work.signal is not None:
        raise SystemExit(128 + work.signal)
    return {id: work.ended[id] for id in wanted.agents}


async def _install(catalog: Catalog, wanted: Wanted, display: InstallDisplay, work: _Work) -> None:
    owner, run = f"install-{secrets.token_hex(8)}", secrets.token_hex(4)
    limit = trio.CapacityLimiter(AT_ONCE)
    with trio.open_signal_receiver(*STOPPING) as signals:
        # If even SIGKILL ends us, the sentinel ends npm and all that it has started.
        async with (
            open_reaper() as reaper,
            open_sentinel(owner, run, reaper=reaper),
            open_installer(
                catalog, catalog.launchers, owner=owner, run=run, reaper=reaper, offline=wanted.offline
            ) as installer,
            trio.open_nursery() as watching,
        ):
            watching.start_soon(_stop_at_signal, signals, work, watching.cancel_scope)
            async with trio.open_nursery() as installing:
                for id in wanted.agents:
                    installing.start_soon(_one, installer, id, wanted, limit, display, work)
            watching.cancel_scope.cancel()


async def _stop_at_signal(signals: AsyncIterator[int], work: _Work, scope: trio.CancelScope) -> None:
    async for number in signals:
        work.signal = number
        scope.cancel()


async def _one(
    installer: Installer, id: str, wanted: Wanted, limit: trio.CapacityLimiter, display: InstallDisplay, work: _Work
) -> None:
    async with limit, trio.open_nursery() as nursery:
        nursery.start_soon(_watch, installer, id, display)
        try:
            ended: Ended = await installer.install(
                id,
                reinstall=wanted.reinstall,
                agent_version=wanted.agent_version,
                process_version=wanted.process_version,
            )
        except ActorError as error:
            ended = error
        work.ended[id] = ended
        nursery.cancel_scope.cancel()
    display.end(id)


async def _watch(installer: Installer, id: str, display: InstallDisplay) -> None:
    while True:
        if (now := installer.progress(id)) is not None:
            display.show(id, now.step, now.message, now.bytes, now.total_bytes)
        await installer.changed(id)
