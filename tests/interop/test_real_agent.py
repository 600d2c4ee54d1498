"""Real coding agents, driven through the daemon against the scripted model.

Three families are looked at closely: opencode speaks Chat Completions and is one process; claude speaks Messages and
codex Responses, each through an adapter that has the agent proper as its child. The others show that all this is not
made for three.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from interop.acp_client import Client, RpcError
from interop.model_server import Model, open_model
from interop.real_agents import AGENTS_DIR, REAL_AGENTS, RealAgent
from sandbox_actors.installer.place import Place
from support.daemon import Daemon, running
from support.processes import children_of, eventually, zombies_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CONVERSATION_SECONDS = 60.0  # 2 to 8 are usual; two cores may have other work
PROMPT_SECONDS = 10.0  # an end that must come by itself: after a cancel, a DELETE, a death

CLOSE_UP = ("opencode", "claude", "codex")


def with_agents(*ids: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("agent", [REAL_AGENTS[id] for id in ids], ids=lambda agent: agent.id)


each_agent = with_agents(*CLOSE_UP)
each_adapter = with_agents("claude", "codex")
each_other_agent = with_agents(*(id for id in REAL_AGENTS if id not in CLOSE_UP))


@dataclass(slots=True)
class Stage:
    """An agent, its model, and the daemon between.

    Attributes:
      own: the daemon and what it has started for itself.
    """

    agent: RealAgent
    model: Model
    daemon: Daemon
    http: httpx.AsyncClient
    work: Path
    own: frozenset[int]

    def agent_processes(self) -> list[int]:
        return [pid for pid in self.daemon.processes() if pid not in self.own]

    @asynccontextmanager
    async def client(self, name: str, server_id: str) -> AsyncGenerator[Client]:
        client = Client(self.http, name, server_id, self.agent.id)
        async with trio.open_nursery() as nursery:
            greeting = await client.connect(nursery)
            assert greeting["protocolVersion"] == 1
            assert greeting["agentCapabilities"]["loadSession"] is True
            yield client
            nursery.cancel_scope.cancel()

    async def restart(self) -> None:
        """The next daemon has the same address, and so the same sessions, but another token."""
        self.daemon.token = secrets.token_hex(16)
        await self.daemon.start()
        self.own = frozenset(self.daemon.processes())
        self.http.headers.update(self.daemon.headers)

    async def new_session(self, client: Client) -> str:
        session: str = (await client.request("session/new", cwd=str(self.work), mcpServers=[]))["sessionId"]
        return session

    async def load_session(self, client: Client, session: str) -> None:
        await client.request("session/load", sessionId=session, cwd=str(self.work), mcpServers=[])

    async def destroy(self, server_id: str) -> None:
        """DELETE; nothing of the agent may be left when the daemon has said yes."""
        response = await self.http.delete(f"/v1/acp/{server_id}")
        assert response.status_code == 204, response.text

    async def described(self) -> dict[str, Any]:
        response = await self.http.get(f"/v1/agents/{self.agent.id}", params={"config": "true"})
        assert response.status_code == 200, response.text
        described: dict[str, Any] = response.json()
        return described


@asynccontextmanager
async def set_stage(agent: RealAgent, folder: Path) -> AsyncGenerator[Stage]:
    if (lacks := await agent.provide()) is not None:
        pytest.skip(f"{agent.id}: {lacks}")
    work = folder / "work"
    work.mkdir()
    with trio.fail_after(CONVERSATION_SECONDS):
        async with open_model() as model:
            environment = agent.environment(folder / "home", model.url)
            async with (
                running(folder / "daemon", "--data-dir", str(AGENTS_DIR), **environment) as daemon,
                httpx.AsyncClient(base_url=daemon.url, headers=daemon.headers, timeout=None, trust_env=False) as http,
            ):
                yield Stage(agent, model, daemon, http, work, frozenset(daemon.processes()))
                await eventually(lambda: not zombies_of(daemon.pid))


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

        await _cancel_in_mid_stream(stage, ann, session)

        await _expect_failure(agent, ann, session)

        stop_reason, chunks = await ann.prompt(session, "recite")
        assert stop_reason == "end_turn"
        recited = json.loads("".join(chunks))
        assert [prompt.split()[0] for prompt in recited] == ["say", "write", "write", "hold", "fail"]

        numbers = [number for number, _ in ann.events]
        assert numbers == sorted(set(numbers))
        with trio.fail_after(PROMPT_SECONDS):
            await stage.destroy("first")
            assert stage.agent_processes() == []


@each_other_agent
async def test_other_agents_write_a_file_stop_in_mid_stream_and_go_on(agent: RealAgent, tmp_path: Path) -> None:
    async with set_stage(agent, tmp_path) as stage, stage.client("ann", "first") as ann:
        session = await stage.new_session(ann)
        wanted = stage.work / "wanted.txt"
        stop_reason, chunks = await ann.prompt(session, f"write {wanted} as agreed")
        assert (stop_reason, "".join(chunks)[-4:], len(ann.asked)) == ("end_turn", "done", int(agent.asks))
        assert wanted.read_text() == "as agreed"

        await _cancel_in_mid_stream(stage, ann, session)

        stop_reason, chunks = await ann.prompt(session, "say 300")
        assert (stop_reason, "".join(chunks)) == ("end_turn", "".join(f"{number} " for number in range(1, 301)))
        with trio.fail_after(PROMPT_SECONDS):
            await stage.destroy("first")
            assert stage.agent_processes() == []


@with_agents(*REAL_AGENTS)
async def test_an_agent_is_described_as_it_describes_itself(agent: RealAgent, tmp_path: Path) -> None:
    async with set_stage(agent, tmp_path) as stage:
        described = await stage.described()
        assert (described["installed"], described.get("configError")) == (True, None)
        installed = Place(AGENTS_DIR / "bin" / "agent_processes", agent.id).installed()
        assert installed is not None
        assert described["version"] in [re.split("@|==", package)[-1] for package in installed.packages]
        assert Path(described["path"]).is_relative_to(installed.generation)
        assert os.access(described["path"], os.X_OK)

        assert described["configSource"] == "agent"
        options = {option["category"]: option for option in described["configOptions"]}
        assert {"model", "mode"} <= options.keys()
        assert all(option["currentValue"] in values_of(option) for option in options.values())

        assert described["acp"]["agentInfo"]["version"]
        capabilities = described["capabilities"]
        # Of claude the catalog says that it has none of these, as the public wire does.
        assert (capabilities["images"], capabilities["sessionLifecycle"]) == (True, True)
        assert capabilities["fileAttachments"] is agent.takes_files
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


@each_adapter
async def test_a_killed_agent_takes_its_children_along_and_comes_back_with_the_conversation(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage, stage.client("ann", "first") as ann:
        session = await stage.new_session(ann)
        assert await ann.prompt(session, "say 3") == ("end_turn", ["1 ", "2 ", "3 "])
        async with prompted_in_vain(ann, session, "hold"):
            await ann.until(lambda: "tick " in ann.said())
            doomed = set(stage.agent_processes())
            (child,) = doomed.intersection(children_of(stage.daemon.pid))
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
                await stage.daemon.stop()
                assert stage.daemon.processes() == []
                await ann.ended.wait()
                assert [aside["method"] for aside in ann.asides] == ["_sandboxagent/daemon/stopping"]

        await stage.restart()
        async with stage.client("bob", "first") as bob:
            stop_reason, chunks = await bob.prompt(session, "recite")
            assert (stop_reason, json.loads("".join(chunks))[:1]) == ("end_turn", ["say 3"])
            assert bob.events[: len(ann.events)] == ann.events
            assert [each["fidelity"] for each in bob.notices("_sandboxagent/session/recovered")] == ["resumed"]


@each_adapter
async def test_a_killed_daemon_leaves_no_process_either(agent: RealAgent, tmp_path: Path) -> None:
    async with set_stage(agent, tmp_path) as stage, stage.client("ann", "first") as ann:
        session = await stage.new_session(ann)
        async with prompted_in_vain(ann, session, "hold"):
            await ann.until(lambda: "tick " in ann.said())
            with trio.fail_after(PROMPT_SECONDS):
                await stage.daemon.kill()
                await eventually(lambda: not stage.daemon.processes())


def values_of(option: dict[str, Any]) -> list[str]:
    return [each["value"] for each in option["options"]]


async def _cancel_in_mid_stream(stage: Stage, client: Client, session: str) -> None:
    heard = len(client.events)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_stop, client, session, "hold", "cancelled")
        await client.until(lambda: "tick " in client.said(heard))  # it streams while it works
        with trio.fail_after(PROMPT_SECONDS):
            await client.cancel(session)
            await stage.model.until(lambda model: model.holding == 0)


async def _expect_failure(agent: RealAgent, client: Client, session: str) -> None:
    if agent.fails:
        with pytest.raises(RpcError, match="the script says so"):
            await client.prompt(session, "fail 400")
    else:
        stop_reason, chunks = await client.prompt(session, "fail 400")
        assert stop_reason == "end_turn"
        assert "the script says so" in "".join(chunks)


async def _expect_stop(client: Client, session: str, text: str, expected: str) -> None:
    stop_reason, _ = await client.prompt(session, text)
    assert stop_reason == expected


@asynccontextmanager
async def prompted_in_vain(client: Client, session: str, text: str) -> AsyncGenerator[None]:
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
