"""Installs one agent in a process of its own, guarded as a daemon and the command are; the test may kill it.

Says each step on a line, and at last `installed` or `there`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from sandbox_actors.catalog import Agent, Catalog
from sandbox_actors.installer import open_installer
from sandbox_supervisor import open_reaper, open_sentinel

if TYPE_CHECKING:
    from sandbox_actors.installer import Installer


async def main(told: dict[str, Any]) -> None:
    agents = {id: msgspec.convert({"id": id, "name": id, **agent}, Agent) for id, agent in told["agents"].items()}
    catalog = Catalog(agents, Path(told["launchers"]), told["environment"])
    owner, run = told["owner"], told["run"]
    async with (
        open_reaper() as reaper,
        open_sentinel(owner, run, reaper=reaper),
        open_installer(catalog, catalog.launchers, owner=owner, run=run, reaper=reaper) as installer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch, installer, told["id"])
        outcome = await installer.install(told["id"], reinstall=told["reinstall"])
        print("there" if outcome.already_installed else "installed", flush=True)
        nursery.cancel_scope.cancel()


async def watch(installer: Installer, id: str) -> None:
    while True:
        await installer.changed(id)
        if (progress := installer.progress(id)) is not None:
            print(progress.step, flush=True)


trio.run(main, json.loads(sys.argv[1]))
