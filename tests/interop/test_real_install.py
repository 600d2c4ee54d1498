"""A real agent comes from its registry when somebody first asks for it, and once, however many ask.

It is the smallest agent that needs a newer Node.js than many machines have, which then is installed beside it.
"""

from __future__ import annotations

import json
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from interop.acp_client import Client
from interop.cache import CACHE, may_install
from interop.real_agents import AGENTS_DIR, REAL_AGENTS, environment_of
from sandbox_actors.installer.place import Place
from support.command import run
from support.daemon import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from interop.acp_client import Envelope
    from support.daemon import Daemon

AGENT, ALIAS = "pi", "pi-acp"
INSTALL_WITHIN = 150.0  # 10 to 25 s are usual
LOOK_EVERY = 0.05


@asynccontextmanager
async def empty_house(folder: Path) -> AsyncGenerator[tuple[Daemon, httpx.AsyncClient]]:
    """A daemon without agents that may fetch them."""
    home = folder / "home"
    home.mkdir()
    npm = {"npm_config_cache": str(CACHE / "npm"), "npm_config_userconfig": str(Path.home() / ".npmrc")}
    async with (
        running(folder / "daemon", **environment_of(home), **npm) as daemon,
        httpx.AsyncClient(base_url=daemon.url, headers=daemon.headers, timeout=None, trust_env=False) as http,
    ):
        yield daemon, http


async def described(http: httpx.AsyncClient, agent: str) -> dict[str, Any]:
    response = await http.get(f"/v1/agents/{agent}")
    assert response.status_code == 200, response.text
    description: dict[str, Any] = response.json()
    return description


async def install_events(http: httpx.AsyncClient, agent: str) -> list[tuple[str, dict[str, Any]]]:
    """What is told of the install that is under way, to its end."""
    events: list[tuple[str, dict[str, Any]]] = []
    async with http.stream("GET", f"/v1/agents/{agent}/install", headers={"accept": "text/event-stream"}) as response:
        assert response.status_code == 200, await response.aread()
        name = ""
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                events.append((name, json.loads(value)))
    return events


async def test_two_clients_that_ask_at_once_for_an_agent_that_is_not_there_cause_one_install_and_are_both_served(
    tmp_path: Path,
) -> None:
    if not may_install():
        pytest.skip("SANDBOX_AGENT_TEST_INSTALL is 0")
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    greetings: dict[str, Envelope] = {}
    with trio.fail_after(INSTALL_WITHIN):
        async with empty_house(tmp_path) as (daemon, http), trio.open_nursery() as listening:
            before = await described(http, AGENT)
            assert (before["installed"], "installing" in before) == (False, False)

            async def connect(name: str, server_id: str, agent: str) -> None:
                greetings[name] = await Client(http, name, server_id, agent).connect(listening)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect, "ann", "first", AGENT)
                nursery.start_soon(connect, "bob", "second", ALIAS)
                # Whoever only looks is told nothing of its beginning.
                while "installing" not in (meanwhile := await described(http, AGENT)):  # noqa: ASYNC110
                    await trio.sleep(LOOK_EVERY)
                assert meanwhile["installing"]["agent"] == AGENT
                assert (meanwhile["installed"], greetings) == (False, {})
                *progress, (end, outcome) = await install_events(http, AGENT)

            assert {name for name, _ in progress} == {"progress"}
            steps = list(dict.fromkeys(told["step"] for _, told in progress))
            assert steps[-2:] == ["installing", "verifying"]
            assert max(told["bytes"] for _, told in progress) > 10 << 20
            assert (end, outcome["already_installed"]) == ("installed", False)
            assert [artifact["kind"] for artifact in outcome["artifacts"]] == ["native_agent", "agent_process"]
            assert greetings["ann"] == greetings["bob"]

            launchers = daemon.home / "data/bin/agent_processes"
            assert len([place for place in (launchers / AGENT).iterdir() if place.is_dir()]) == 1
            after = await described(http, AGENT)
            assert (after["installed"], "installing" in after) == (True, False)
            assert after["serverStatus"]["status"] == "running"
            again = await http.post(f"/v1/agents/{AGENT}/install", json={})
            assert again.json() == {"already_installed": True, "artifacts": []}
            assert await install_events(http, AGENT) == [("idle", {"agent": AGENT})]
            listening.cancel_scope.cancel()


async def test_the_command_leaves_what_is_installed_as_it_is() -> None:
    if (lacks := await REAL_AGENTS[AGENT].provide()) is not None:
        pytest.skip(f"{AGENT}: {lacks}")
    place = Place(AGENTS_DIR / "bin" / "agent_processes", AGENT)
    before = place.installed()
    done = await run("install-agent", ALIAS, "--data-dir", str(AGENTS_DIR))
    assert (done.code, done.stdout.strip()) == (0, f"{AGENT} is already installed")
    assert place.installed() == before is not None
