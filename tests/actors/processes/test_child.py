"""When the tree of a child is known to be gone without looking at every process there is."""

from __future__ import annotations

import os
import signal
import uuid

import pytest
import trio

from sandbox_actors.processes import Cgroups
from sandbox_actors.processes.child import Child, Launch, open_child
from sandbox_supervisor import Cookie, ExitStatus, Reaper, open_reaper, pids, sweep
from support.processes import alive, eventually

WITHIN = 15
ENVIRONMENT = {"PATH": os.environ["PATH"]}


async def read_line(child: Child) -> bytes:
    """What it writes first. The caller brings the deadline."""
    output = child.outputs["stdout"]
    line = bytearray()
    with trio.CancelScope() as reading:

        def take(data: bytes) -> None:
            line.extend(data)
            if b"\n" in line:
                reading.cancel()

        await output.pump(take)
    return bytes(line)


@pytest.fixture
def cookie() -> Cookie:
    return Cookie("tests", uuid.uuid4().hex, "child")


async def test_an_orphan_is_seen_as_long_as_it_lives(cookie: Cookie) -> None:
    with trio.fail_after(WITHIN):
        async with open_reaper() as reaper:
            assert not reaper.may_have_orphans()
            launch = Launch(("sh", "-c", "(setsid sleep 60 >/dev/null 2>&1 & echo $!); read line"), ENVIRONMENT)
            async with open_child(launch, cookie=cookie, reaper=reaper, cgroups=Cgroups.none()) as child:
                pid = int(await read_line(child))
                await eventually(reaper.may_have_orphans)  # its parent, a subshell, is gone
                assert alive(pid)
                assert pids(lambda other: other == cookie) == sorted([child.pid, pid])
            assert not alive(pid)
            await eventually(lambda: not reaper.may_have_orphans())


async def test_one_that_we_own_is_none(cookie: Cookie) -> None:
    with trio.fail_after(WITHIN):
        async with open_reaper() as reaper:
            launch = Launch(("sleep", "60"), ENVIRONMENT)
            async with open_child(launch, cookie=cookie, reaper=reaper, cgroups=Cgroups.none()) as child:
                assert not reaper.may_have_orphans()
                child.signal(signal.SIGTERM)
                await child.wait()
                assert child.status == ExitStatus(None, signal.SIGTERM)
                assert not reaper.may_have_orphans()


async def test_without_orphans_of_its_own_nothing_is_certain(cookie: Cookie) -> None:
    with trio.fail_after(WITHIN):
        async with open_reaper():
            pass
        assert Reaper().may_have_orphans()
        # And without a reaper the tree is looked for all the same.
        launch = Launch(("sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo begun"), ENVIRONMENT)
        async with open_child(launch, cookie=cookie, reaper=None, cgroups=Cgroups.none()) as child:
            await child.wait()
            assert await child.end() == ExitStatus(0, None)
            assert pids(lambda other: other == cookie) == []
    assert sweep(lambda other: other == cookie) == 0
