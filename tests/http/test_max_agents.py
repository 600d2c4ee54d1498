"""More sessions than agents may run: the idle ones take turns, and each knows afterwards what was said before."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from support.daemon import running
from support.processes import command_of
from support.session_client import SessionClient, session_client
from support.wire import exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.daemon import Daemon

LIMIT = 20

SESSIONS = 200

WORKERS = 6
"""Clients at a time. Together they keep fewer agents busy than may run, so none of them is ever refused."""

WITHIN = 120
"""Seconds: 400 starts of an interpreter, on a machine that others use too."""

LOOK_EVERY = 0.05
"""Seconds between two looks at the processes of the daemon."""

MEMORY_GROWTH = 64 << 10
"""KiB that the daemon may have grown by for so many sessions: most of them have no process, and few have news."""


class Watched:
    """What a daemon takes, looked at again and again.

    Attributes:
      most: agents that were there at once.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._pid = daemon.pid
        self.most = 0

    def agents(self) -> int:
        children = [path.read_text().split() for path in Path(f"/proc/{self._pid}/task").glob("*/children")]
        return sum("mock" in command_of(int(pid)) for pids in children for pid in pids)

    def memory(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    async def run(self) -> None:
        while True:
            self.most = max(self.most, self.agents())
            await trio.sleep(LOOK_EVERY)


@pytest.mark.alone
async def test_200_sessions_take_turns_with_20_agents_and_each_knows_what_was_said(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path, "--max-agents", str(LIMIT), "--journal-sync", "normal") as daemon:
            watched = Watched(daemon)
            before = watched.memory()

            async def begin(number: int) -> None:
                app = SessionClient(daemon)
                await app.create(id=f"s{number}", cwd=str(tmp_path))
                assert (await app.say(f"my word is w{number}w"))["outcome"] == "completed"

            async def go_on(number: int) -> None:
                app = SessionClient(daemon)
                app.id = f"s{number}"
                told = (await app.say("/recite"))["text"]
                assert f"w{number}w" in told
                assert told.startswith("earlier prompts: 1")

            async def forget(number: int) -> None:
                assert (await SessionClient(daemon).ask("DELETE", f"/s{number}")).status == 204

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watched.run)
                for do in (begin, go_on):
                    await in_turns(do)
                nursery.cancel_scope.cancel()
            grown = watched.memory() - before
            print(f"{SESSIONS} sessions: at most {watched.most} agents, {before} KiB before, {grown} KiB more after")
            assert LIMIT // 2 < watched.most <= LIMIT
            assert grown < MEMORY_GROWTH
            app = SessionClient(daemon)
            states = [one["state"] for one in (await app.get(f"?limit={SESSIONS}"))["sessions"]]
            assert len(states) == SESSIONS
            assert states.count("ready") <= LIMIT
            await in_turns(forget)
            assert (await app.get())["sessions"] == []
            assert watched.agents() == 0


async def in_turns(do: Callable[[int], Awaitable[None]]) -> None:
    """Do it for the number of each session, a few at a time."""
    sender, receiver = trio.open_memory_channel[int](SESSIONS)
    for number in range(SESSIONS):
        sender.send_nowait(number)
    sender.close()

    async def work() -> None:
        async for number in receiver:
            await do(number)

    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work)


async def test_where_all_agents_work_a_new_session_is_refused_with_the_time_to_try_again(tmp_path: Path) -> None:
    async with session_client(tmp_path, max_agents=1) as app:
        first = app.id
        await app.prompt("/hang")
        app.id = ""
        raw = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
        post = partial(exchange, app.daemon.port, "POST", within=10)
        told = {"Content-Type": "application/json", **app.daemon.headers}
        for answer in (
            await app.ask("POST", "", {"agent": "mock"}),
            await post("/v1/acp/new?agent=mock", told, json.dumps(raw).encode()),
        ):
            assert (answer.status, answer.problem) == (503, "agent_limit"), answer
            assert answer.headers["retry-after"] == "5"
        assert [one["id"] for one in (await app.get())["sessions"]] == [first]
        app.id = first
        async with app.stream("?kind=turn.ended") as stream:
            await app.ask("POST", "/cancel")
            await stream.until(b"turn/ended")
        await app.create(id="second")


async def test_a_session_that_sleeps_is_refused_where_all_agents_work_and_nothing_is_queued(tmp_path: Path) -> None:
    async with session_client(tmp_path, max_agents=1) as app:
        asleep = app.id
        working = (await app.create())["id"]
        await app.prompt("/hang")
        app.id = asleep
        answer = await app.ask("POST", "/prompt", {"content": "hello"})
        assert (answer.status, answer.problem, answer.headers["retry-after"]) == (503, "agent_limit", "5")
        raw = {"jsonrpc": "2.0", "id": 1, "method": "session/list", "params": {"cwd": "/"}}
        told = {"Content-Type": "application/json", **app.daemon.headers}
        answer = await exchange(app.daemon.port, "POST", f"/v1/acp/{asleep}", told, json.dumps(raw).encode())
        # In a session that is there raw clients take any status but 2xx for the end of their connection.
        assert (answer.status, answer.headers["retry-after"]) == (200, "5")
        assert answer.json["error"]["data"]["type"] == "urn:sandbox-agent:error:agent_limit"
        assert (await app.get("/turns"))["turns"] == []
        app.id = working
        await app.ask("DELETE", "")
        app.id = asleep
        answer = await app.ask("POST", "/prompt?wait=true", {"content": "hello"})
        assert answer.json["outcome"] == "completed"


async def test_a_session_hibernates_by_the_limit_of_the_daemon(tmp_path: Path) -> None:
    async with session_client(tmp_path, idle_limit=0.1) as app:
        async with app.stream("?kind=agent.hibernated&kind=agent.exited") as stream:
            await stream.until(b"_adapter/agent_exited")
        assert b'"reason":"idle"' in stream.body
        assert (await app.get())["state"] == "hibernated"
        assert (await app.say("/recite"))["text"].startswith("earlier prompts: 0")
