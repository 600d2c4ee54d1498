from __future__ import annotations

import itertools
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.installer.site import LINE_LENGTH, LINES, NPM, PYPI, Finished, Site, size_of
from sandbox_actors.installer.trouble import Trouble
from support.processes import eventually, processes_with

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.installer.progress import Progress

OWNER = f"site-{uuid.uuid4().hex}"


def site(environment: dict[str, str], seen: list[Progress] | None = None) -> Site:
    told = seen if seen is not None else []
    return Site("fox", {"PATH": "/usr/bin:/bin", **environment}, OWNER, "run", None, told.append, itertools.count(1))


async def test_the_last_lines_of_both_outputs_are_kept_and_no_more() -> None:
    for output in ("stdout", "stderr"):
        source = f"import sys\nfor n in range(1000): print(n, 'x' * 9000, file=sys.{output})\nsys.exit(3)"
        finished = await site({}).tool([sys.executable, "-c", source], env={})
        assert finished.code == 3
        assert len(finished.lines) == LINES
        assert finished.lines[-1] == f"999 {'x' * 9000}"[:LINE_LENGTH]


async def test_a_tool_reads_nothing_and_leaves_nobody() -> None:
    with trio.fail_after(10):
        finished = await site({}).tool(["sh", "-c", "cat; sleep 60 & echo done"], env={"PATH": "/usr/bin:/bin"})
    assert finished == Finished(0, ("done",))
    assert processes_with(f"{OWNER}/run/") == []


async def test_secrets_of_a_tool_are_not_told() -> None:
    env = {"PATH": "/usr/bin:/bin", "npm_config__authToken": "swordfish-1234"}
    finished = await site({}).tool(["sh", "-c", 'echo "token $npm_config__authToken at https://me:pw@host/"'], env=env)
    assert "swordfish" not in finished.lines[0]
    assert finished.lines[0].endswith("at https://***@host/")


async def test_a_tool_that_is_silent_for_too_long_is_given_up(tmp_path: Path) -> None:
    where = site({})
    where.step("installing")
    env = where.tool_environment()
    with pytest.raises(Trouble, match=r"nothing has come over the network for 0\.2 s") as trouble:
        await where.tool(["sleep", "60"], env=env, grows=tmp_path, silence=0.2)
    assert trouble.value.reason == "network"
    assert processes_with(f"{OWNER}/run/") == []


async def test_what_a_tool_writes_is_told_as_progress(tmp_path: Path) -> None:
    seen: list[Progress] = []
    where = site({}, seen)
    where.step("installing", "fox")
    command = ["sh", "-c", f"head -c 5000 /dev/zero >{tmp_path}/file; sleep 60"]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tool, where, command, tmp_path)
            await eventually(lambda: seen[-1].bytes >= 5000)
            nursery.cancel_scope.cancel()
    assert (seen[-1].step, seen[-1].message, seen[-1].bytes) == ("installing", "fox", 5000)
    assert size_of(tmp_path) == 5000


async def _tool(where: Site, command: list[str], folder: Path) -> None:
    await where.tool(command, env=where.tool_environment(), grows=folder)


async def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(Trouble, match="cannot start 'no-such-program'"):
        await site({}).tool(["no-such-program"], env={"PATH": "/usr/bin"})


def test_a_tool_gets_what_it_needs_and_what_is_its_own() -> None:
    own = {"npm_config_registry": "r", "NPM_CONFIG_CACHE": "c", "UV_INDEX_URL": "u", "PIP_INDEX_URL": "p"}
    common = {"HOME": "/h", "LC_ALL": "C", "https_proxy": "x", "HTTP_PROXY": "y", "SSL_CERT_FILE": "z"}
    others = {"OPENAI_API_KEY": "k", "SANDBOX_AGENT_TOKEN": "t", "npm_lifecycle_event": "e", "NODE_OPTIONS": "o"}
    where = site({**own, **common, **others})
    plain = {"PATH": "/usr/bin:/bin", **common}
    assert where.tool_environment() == plain
    assert where.tool_environment(NPM) == {**plain, "npm_config_registry": "r", "NPM_CONFIG_CACHE": "c"}
    assert where.tool_environment(PYPI) == {**plain, "UV_INDEX_URL": "u", "PIP_INDEX_URL": "p"}
