"""Real coding agents, driven through the daemon against the scripted model.

Each agent is of another family: opencode speaks Chat Completions and is one process; claude speaks Messages and codex
Responses, each through an adapter that has the agent proper as its child. codex does not end at the end of its stdin.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import pytest
import trio

from interop.daemon import Daemon, children_of, daemon, eventually, processes_with, zombies_of
from interop.model_server import Model, open_model
from interop.real_agents import REAL_AGENTS, RealAgent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

INSTALL_SECONDS = 300.0
CONVERSATION_SECONDS = 60.0  # 2 to 6 are usual; two cores may have other work
PROMPT_SECONDS = 10.0  # an end that must come by itself: after a cancel, a DELETE, a death

Envelope: TypeAlias = dict[str, Any]

each_agent = pytest.mark.parametrize("agent", REAL_AGENTS, ids=[agent.id for agent in REAL_AGENTS])


class RpcError(Exception):
    """A JSON-RPC error came for an answer, from the agent or from the daemon in its place."""


class Client:
    """An ACP client on the daemon's HTTP: envelopes out by POST, everything in by one SSE stream."""

    def __init__(self, http: httpx.AsyncClient, name: str, server_id: str, agent: str) -> None:
        self.events: list[tuple[int, Envelope]] = []
        self.asked: list[Envelope] = []
        self.consent = "allow_once"
        """The kind of the option with which a permission request is answered."""
        self.ended = trio.Event()
        """The daemon has ended the stream."""
        self._http = http
        self._path = f"/v1/acp/{server_id}"
        self._agent = agent
        self._ids = (f"{name}-{number}" for number in count(1))  # two clients of one server share its ids
        self._grown = trio.Event()

    async def post(self, envelope: Envelope) -> httpx.Response:
        return await self._http.post(self._path, params={"agent": self._agent}, json={"jsonrpc": "2.0", **envelope})

    async def send(self, envelope: Envelope) -> None:
        response = await self.post(envelope)
        assert response.status_code == 202, response.text

    async def request(self, method: str, **params: object) -> Envelope:
        """Returns once the answer is on the stream as well, so that all that came before it is in `events`."""
        name = next(self._ids)
        response = await self.post({"id": name, "method": method, "params": params})
        assert response.status_code in {200, 202}, response.text
        if response.status_code == 200 and "error" in (answer := response.json()):
            raise RpcError(answer["error"])
        await self.until(lambda: name in self._answers())
        match self._answers()[name]:
            case {"result": dict(result)}:
                return result
            case answer:
                raise RpcError(answer.get("error"))

    def _answers(self) -> dict[object, Envelope]:
        return {event["id"]: event for _, event in self.events if "id" in event and "method" not in event}

    async def connect(self, nursery: trio.Nursery) -> Envelope:
        """`initialize`, whose first POST makes the server, and the stream, which can only be opened after it.

        Returns once the stream has come up to now: on a server with a past it starts with that.
        """
        capabilities = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        params = {"protocolVersion": 1, "clientCapabilities": capabilities}
        name = next(self._ids)
        response = await self.post({"id": name, "method": "initialize", "params": params})
        assert response.status_code == 200, response.text
        nursery.start_soon(self.listen)
        await self.until(lambda: name in self._answers())
        result: Envelope = self._answers()[name]["result"]
        return result

    async def listen(self) -> None:
        """The stream from its very beginning, until the daemon ends it."""
        async with (
            trio.open_nursery() as nursery,
            self._http.stream("GET", self._path, headers={"accept": "text/event-stream"}) as response,
        ):
            assert response.status_code == 200, await response.aread()
            number = 0
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    number = int(value)
                elif field == "data":
                    event = json.loads(value)
                    self.events.append((number, event))
                    if "id" in event and "method" in event:
                        nursery.start_soon(self._reply, event)
                    self._grown.set()
                    self._grown = trio.Event()
        self.ended.set()

    async def _reply(self, asked: Envelope) -> None:
        if asked["method"] == "session/request_permission":
            self.asked.append(asked["params"])
            option = next(each for each in asked["params"]["options"] if each["kind"] == self.consent)
            outcome = {"outcome": "selected", "optionId": option["optionId"]}
            await self.send({"id": asked["id"], "result": {"outcome": outcome}})
        else:  # opencode asks to write a file though it was told that we cannot
            await self.send({"id": asked["id"], "error": {"code": -32601, "message": "Method not found"}})

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._grown.wait()

    async def prompt(self, session: str, text: str) -> tuple[str, list[str]]:
        """One turn: its stop reason, and what the agent said, chunk by chunk."""
        heard = len(self.events)
        result = await self.request("session/prompt", sessionId=session, prompt=[{"type": "text", "text": text}])
        return result["stopReason"], self.said(heard)

    def said(self, since: int = 0, who: str = "agent_message_chunk") -> list[str]:
        updates = [event["params"]["update"] for _, event in self.events[since:] if "update" in event.get("params", {})]
        return [each["content"]["text"] for each in updates if each["sessionUpdate"] == who]

    def notices(self, method: str) -> list[Envelope]:
        return [event["params"] for _, event in self.events if event.get("method") == method]

    async def cancel(self, session: str) -> None:
        await self.send({"method": "session/cancel", "params": {"sessionId": session}})


@dataclass(frozen=True, slots=True)
class Stage:
    """An agent, its model, and the daemon between."""

    agent: RealAgent
    model: Model
    daemon: Daemon
    http: httpx.AsyncClient
    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def agent_processes(self) -> list[int]:
        return processes_with(f"HOME={self.folder / 'home'}")

    @asynccontextmanager
    async def client(self, name: str, server_id: str) -> AsyncIterator[Client]:
        client = Client(self.http, name, server_id, self.agent.id)
        async with trio.open_nursery() as nursery:
            greeting = await client.connect(nursery)
            assert greeting["protocolVersion"] == 1
            assert greeting["agentCapabilities"]["loadSession"] is True
            yield client
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def restarted(self) -> AsyncIterator[Stage]:
        async with serving(self.folder / "data", self.daemon.port) as (running, http):
            yield replace(self, daemon=running, http=http)

    async def new_session(self, client: Client) -> str:
        session: str = (await client.request("session/new", cwd=str(self.work), mcpServers=[]))["sessionId"]
        return session

    async def load_session(self, client: Client, session: str) -> None:
        await client.request("session/load", sessionId=session, cwd=str(self.work), mcpServers=[])

    async def destroy(self, server_id: str) -> None:
        """DELETE; nothing of the agent may be left when the daemon has said yes."""
        response = await self.http.delete(f"/v1/acp/{server_id}")
        assert response.status_code == 204, response.text


@asynccontextmanager
async def set_stage(agent: RealAgent, folder: Path) -> AsyncIterator[Stage]:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    if os.environ.get("SANDBOX_AGENT_TEST_INSTALL") == "0" and not agent.is_installed():
        pytest.skip(f"{agent.id} is not installed, and SANDBOX_AGENT_TEST_INSTALL is 0")
    with trio.fail_after(INSTALL_SECONDS):
        installed = await agent.install()
    (folder / "work").mkdir()
    with trio.fail_after(CONVERSATION_SECONDS):
        async with open_model() as model:
            installed.write_launcher(folder / "data", folder / "home", model.url)
            async with serving(folder / "data") as (running, http):
                yield Stage(agent, model, running, http, folder)
        await eventually(lambda: not processes_with(str(folder)))


@asynccontextmanager
async def serving(data_dir: Path, port: int | None = None) -> AsyncIterator[tuple[Daemon, httpx.AsyncClient]]:
    async with (
        daemon(data_dir, port=port) as running,
        httpx.AsyncClient(base_url=running.url, headers=running.headers, timeout=None, trust_env=False) as http,
    ):
        yield running, http
        await eventually(lambda: not zombies_of(running.process.pid))


@each_agent
async def test_a_conversation_streams_in_order_asks_before_it_writes_and_survives_a_cancel(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage, stage.client("ann", "first") as ann:
        session = await stage.new_session(ann)

        stop_reason, chunks = await ann.prompt(session, "say 300")
        assert stop_reason == "end_turn"
        assert [chunk for chunk in chunks if chunk] == [f"{number} " for number in range(1, 301)]

        wanted = stage.work / "wanted.txt"
        stop_reason, chunks = await ann.prompt(session, f"write {wanted} as agreed")
        assert (stop_reason, chunks[-1], len(ann.asked)) == ("end_turn", "done", 1)
        assert wanted.read_text() == "as agreed"

        ann.consent = "reject_once"
        unwanted = stage.work / "unwanted.txt"
        stop_reason, _ = await ann.prompt(session, f"write {unwanted} against our will")
        assert stop_reason in {"end_turn", "cancelled"}  # codex takes a refusal for a cancel
        assert len(ann.asked) == 2
        assert not unwanted.exists()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_stop, ann, session, "hold", "cancelled")
            heard = len(ann.events)
            await ann.until(lambda: "tick " in ann.said(heard))  # it streams while it works
            with trio.fail_after(PROMPT_SECONDS):
                await ann.cancel(session)
                await stage.model.until(lambda model: model.holding == 0)

        with pytest.raises(RpcError, match="the script says so"):
            await ann.prompt(session, "fail 400")

        stop_reason, chunks = await ann.prompt(session, "recite")
        assert stop_reason == "end_turn"
        recited = json.loads("".join(chunks))
        assert [prompt.split()[0] for prompt in recited] == ["say", "write", "write", "hold", "fail"]

        numbers = [number for number, _ in ann.events]
        assert numbers == sorted(set(numbers))
        with trio.fail_after(PROMPT_SECONDS):
            await stage.destroy("first")
            assert stage.agent_processes() == []


@each_agent
async def test_a_session_is_loaded_by_a_new_client_with_its_whole_conversation(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage:
        async with stage.client("ann", "first") as ann:
            session = await stage.new_session(ann)
            assert await ann.prompt(session, "say 3") == ("end_turn", ["1 ", "2 ", "3 "])
            await stage.destroy("first")

        async with stage.client("bob", "second") as bob, stage.client("cleo", "second") as cleo:
            await stage.load_session(bob, session)
            assert bob.said(who="user_message_chunk") == ["say 3"]
            assert "".join(bob.said()) == "1 2 3 "
            assert await bob.prompt(session, "recite") == ("end_turn", ['["say 3"]'])

            # Who joins a running server starts with its past.
            stop_reason, chunks = await cleo.prompt(session, "recite")
            assert (stop_reason, json.loads("".join(chunks))) == ("end_turn", ["say 3", "recite"])
            await bob.until(lambda: len(bob.events) >= len(cleo.events))
            assert bob.events[: len(cleo.events)] == cleo.events
            await stage.destroy("second")
            assert stage.agent_processes() == []


@each_agent
async def test_a_server_destroyed_in_the_middle_of_a_tool_call_leaves_no_process(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage, stage.client("ann", "first") as ann:
        session = await stage.new_session(ann)
        started = stage.work / "started"
        async with prompted_in_vain(ann, session, f"run touch {started}; sleep 600"):
            await eventually(started.exists)
            assert len(stage.agent_processes()) >= 2  # the agent and its tool at least
            with trio.fail_after(PROMPT_SECONDS):
                await stage.destroy("first")
                assert stage.agent_processes() == []
                await ann.ended.wait()


@each_agent
async def test_a_killed_agent_takes_its_children_along_and_comes_back_with_the_conversation(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage, stage.client("ann", "first") as ann:
        session = await stage.new_session(ann)
        assert await ann.prompt(session, "say 3") == ("end_turn", ["1 ", "2 ", "3 "])
        async with prompted_in_vain(ann, session, "hold"):
            await ann.until(lambda: "tick " in ann.said())
            doomed = set(stage.agent_processes())
            (child,) = doomed.intersection(children_of(stage.daemon.process.pid))
            with trio.fail_after(PROMPT_SECONDS):
                os.kill(child, signal.SIGKILL)
                await stage.model.until(lambda model: model.holding == 0)
                await eventually(lambda: doomed.isdisjoint(stage.agent_processes()))
        # A turn has effects: nobody, the daemon least, begins it again.
        assert [asked.prompts[-1] for asked in stage.model.conversations].count("hold") == 1

        await ann.until(lambda: ann.notices("_sandboxagent/agent/restarted"))
        assert [each["fidelity"] for each in ann.notices("_sandboxagent/session/recovered")] == ["resumed"]
        stop_reason, chunks = await ann.prompt(session, "recite")
        # Whether the prompt that was cut short is part of the conversation is the agent's affair.
        assert (stop_reason, json.loads("".join(chunks))[:1]) == ("end_turn", ["say 3"])


@each_agent
async def test_a_stopped_daemon_leaves_no_process_and_the_next_one_has_the_conversation(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage:
        async with stage.client("ann", "first") as ann:
            session = await stage.new_session(ann)
            assert await ann.prompt(session, "say 3") == ("end_turn", ["1 ", "2 ", "3 "])
            async with prompted_in_vain(ann, session, "hold"):
                await ann.until(lambda: "tick " in ann.said())
                assert await stage.daemon.stop() == 0
                assert processes_with(str(tmp_path)) == []

        async with stage.restarted() as again, again.client("bob", "first") as bob:
            stop_reason, chunks = await bob.prompt(session, "recite")
            assert (stop_reason, json.loads("".join(chunks))[:1]) == ("end_turn", ["say 3"])
            assert bob.events[: len(ann.events)] == ann.events


async def _expect_stop(client: Client, session: str, text: str, expected: str) -> None:
    stop_reason, _ = await client.prompt(session, text)
    assert stop_reason == expected


@asynccontextmanager
async def prompted_in_vain(client: Client, session: str, text: str) -> AsyncIterator[None]:
    """A turn whose agent the body takes away. Soon after it the turn must have ended, by whatever error."""
    settled = trio.Event()

    async def prompt() -> None:
        with suppress(RpcError, httpx.TransportError):
            stop_reason, _ = await client.prompt(session, text)
            assert stop_reason == "cancelled"
        settled.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prompt)
        yield
        with trio.fail_after(PROMPT_SECONDS):
            await settled.wait()
