"""Processes of this test alone, and the proof that none of them is left."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox_actors.processes import Cgroups, Processes, open_processes
from sandbox_supervisor import Node, open_reaper, pids

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def node() -> Node:
    """The place of all processes in the visible tree."""
    return Node("processes", "processes")


@pytest.fixture
async def processes(node: Node) -> AsyncIterator[Processes]:
    run = uuid.uuid4().hex
    async with (
        open_reaper() as reaper,
        open_processes(
            dict(os.environ), owner="tests", run=run, reaper=reaper, node=node, cgroups=Cgroups.none()
        ) as opened,
    ):
        yield opened
    assert pids(lambda cookie: cookie.run == run) == []
