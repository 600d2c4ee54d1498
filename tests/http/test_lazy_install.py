"""The first request for an agent that has to be installed, and an install that takes its time."""

from __future__ import annotations

import json
import os
import shlex
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from sandbox_http.exchange import HEAD_WITHIN
from support.daemon import Daemon, running
from support.processes import eventually
from support.wire import Answer, exchange, request_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}).encode()

NPM = """#!/bin/sh
echo asked >> {folder}/npm-runs
read outcome < {folder}/gate
[ "$outcome" = good ] || {{ echo "npm error code ENOTFOUND" >&2; exit 1; }}
mkdir -p node_modules/.bin node_modules/slow
echo '{{"name": "slow", "version": "1.0.0", "bin": "slow"}}' > node_modules/slow/package.json
cp {folder}/agent node_modules/.bin/slow
"""
"""An npm that waits at a gate, and then brings a package or does not."""

AGENT = """#!/bin/sh
while read line; do
    echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentInfo":{"name":"slow","version":"1.0.0"}}}'
done
"""


class House:
    """A daemon whose agent `slow` is installed as slowly as the test likes."""

    def __init__(self, folder: Path, daemon: Daemon) -> None:
        self.folder = folder
        self.daemon = daemon

    @property
    def headers(self) -> dict[str, str]:
        return {**self.daemon.headers, "Content-Type": "application/json"}

    @property
    def npm_runs(self) -> int:
        runs = self.folder / "npm-runs"
        return runs.read_text().count("asked") if runs.exists() else 0

    async def open_gate(self, outcome: str) -> None:
        """Let the npm that waits go on; blocks until there is one."""
        await trio.to_thread.run_sync((self.folder / "gate").write_text, f"{outcome}\n", abandon_on_cancel=True)

    async def ask(self, id: str) -> Answer:
        return await exchange(self.daemon.port, "POST", f"/v1/acp/{id}?agent=slow", self.headers, INITIALIZE, within=60)

    async def servers(self) -> list[dict[str, Any]]:
        servers: list[dict[str, Any]] = (await exchange(self.daemon.port, "GET", "/v1/acp", self.daemon.headers)).json[
            "servers"
        ]
        return servers


@asynccontextmanager
async def house(folder: Path, *options: str) -> AsyncGenerator[House]:
    tools = folder / "tools"
    tools.mkdir()
    os.mkfifo(folder / "gate")
    (folder / "agent").write_text(AGENT)
    for name, text in (("npm", NPM.format(folder=shlex.quote(str(folder)))), ("node", "#!/bin/sh\necho v24.0.0\n")):
        (tools / name).write_text(text)
    for program in (folder / "agent", tools / "npm", tools / "node"):
        program.chmod(0o755)
    agents = folder / "agents.json"
    agents.write_text(json.dumps({"agents": {"slow": {"distribution": {"npx": {"package": "slow@1.0.0"}}}}}))
    options = ("--agents", str(agents), *options)
    async with running(folder / "home", *options, PATH=f"{tools}:/usr/bin:/bin") as daemon:
        yield House(folder, daemon)


async def test_a_request_that_waits_for_an_install_gets_its_head_in_time_and_its_answer_in_the_end(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as slow:
        asked = time.monotonic()
        data = request_bytes("POST", "/v1/acp/s?agent=slow", slow.headers, INITIALIZE)
        async with await trio.open_tcp_stream("127.0.0.1", slow.daemon.port) as stream:
            await stream.send_all(data)
            with trio.fail_after(HEAD_WITHIN + 5):
                head = await stream.receive_some()
            assert head.startswith(b"HTTP/1.1 200")
            assert time.monotonic() - asked > HEAD_WITHIN - 0.5
            assert await slow.servers() == []
            described = await exchange(slow.daemon.port, "GET", "/v1/agents/slow", slow.daemon.headers)
            assert list(described.json["installing"]) == ["agent", "step", "message", "bytes", "totalBytes"]

            await slow.open_gate("good")
            body = bytearray()
            with trio.fail_after(30):
                while b'"agentInfo"' not in body:
                    body += await stream.receive_some()
        assert [server["serverId"] for server in await slow.servers()] == ["s"]
        assert (await slow.ask("t")).json["result"]["agentInfo"]["name"] == "slow"
        assert slow.npm_runs == 1


async def test_an_install_that_fails_late_is_an_error_of_json_rpc_and_makes_no_session(tmp_path: Path) -> None:
    async with house(tmp_path) as slow, trio.open_nursery() as nursery:
        answers: dict[str, Answer] = {}

        async def ask(id: str) -> None:
            answers[id] = await slow.ask(id)

        nursery.start_soon(ask, "s")
        nursery.start_soon(ask, "t")
        await trio.sleep(HEAD_WITHIN + 0.5)  # what is tested is what happens after this time
        await slow.open_gate("bad")
        with trio.fail_after(30):
            await eventually(lambda: len(answers) == 2)
        for answer in answers.values():
            assert answer.status == 200
            data = answer.json["error"]["data"]
            assert data["type"] == "urn:sandbox-agent:error:install_failed"
            assert data["reason"] == "network"
        assert await slow.servers() == []
        assert slow.npm_runs == 1


async def test_an_install_that_fails_at_once_is_a_problem(tmp_path: Path) -> None:
    async with house(tmp_path) as slow, trio.open_nursery() as nursery:
        nursery.start_soon(slow.open_gate, "bad")
        answer = await slow.ask("s")
        assert (answer.status, answer.problem, answer.json["details"]["reason"]) == (500, "install_failed", "network")
        assert await slow.servers() == []


async def test_a_request_whose_time_is_over_before_the_install_is_told_that_it_was_not_passed_on(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, "--request-timeout-ms", "300") as slow:
        asked = time.monotonic()
        answer = await slow.ask("s")
        assert time.monotonic() - asked < HEAD_WITHIN
        assert answer.status == 200
        assert answer.json["error"]["data"]["type"] == "urn:sandbox-agent:error:timeout"
        assert "not passed on" in answer.json["error"]["message"]
        assert await slow.servers() == []


async def test_a_client_that_leaves_stops_no_install(tmp_path: Path) -> None:
    async with house(tmp_path) as slow:
        with trio.move_on_after(1):
            await slow.ask("s")
        await eventually(lambda: slow.npm_runs == 1)
        await slow.open_gate("good")
        assert (await slow.ask("t")).json["result"]["agentInfo"]["name"] == "slow"
        assert slow.npm_runs == 1


async def test_a_shutdown_stops_the_install_and_tells_who_waits(tmp_path: Path) -> None:
    async with house(tmp_path) as slow, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await slow.ask("s"))

        nursery.start_soon(ask)
        await eventually(lambda: slow.npm_runs == 1)
        await slow.daemon.stop()
        with trio.fail_after(5):
            await eventually(lambda: bool(answers))
        assert (answers[0].status, answers[0].problem) == (503, "shutting_down")
        assert not (slow.daemon.home / "data/bin/agent_processes/slow-acp").exists()
