"""Real agents that die in the middle of a turn: the model's own requests show what the next incarnation still knows."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from interop.model_server import Model, open_model
from interop.real_agents import AGENTS_DIR, REAL_AGENTS, RealAgent
from sandbox_actors.installer.place import Place
from support.daemon import Daemon, running
from support.session_client import SessionClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Json = Any

WITHIN = 90.0
"""Seconds for a whole conversation: 5 to 15 are usual; two cores may have other work."""

FORGETFUL = Path(__file__).with_name("forgetful.py")

each_agent = pytest.mark.parametrize(
    "agent", [REAL_AGENTS[id] for id in ("claude", "codex", "opencode")], ids=lambda agent: agent.id
)


@dataclass(slots=True)
class Stage:
    """An agent, its model, the daemon between, and an application that speaks the native API."""

    model: Model
    daemon: Daemon
    app: SessionClient

    async def hold(self) -> Json:
        """A turn in full swing, which never ends by itself."""
        turn = await self.app.prompt("hold")
        async with self.app.stream(f"?after={turn['seq']}&kind=agent_message_chunk") as stream:
            await stream.until(b"tick ")
        return turn

    async def ended(self, turn: Json) -> list[Json]:
        """All ends of a turn, as soon as there is one; what it has done with the model is over, too."""
        async with self.app.stream(f"?after={turn['seq']}&kind=turn.ended") as stream:
            await stream.until(b"turn.ended")
        await self.model.until(lambda model: model.holding == 0)
        return [end for end in await self.told("turn.ended") if end["turnId"] == turn["turnId"]]

    async def told(self, kind: str) -> list[Json]:
        return [one["envelope"]["params"] for one in (await self.app.events(f"?kind={kind}"))["events"]]

    async def create(self, agent: str, work: Path) -> Json:
        """A session. Where the agent is slow, the head of the answer comes first, with status 200."""
        answer = await self.app.ask("POST", "", {"agent": agent, "cwd": str(work)})
        assert answer.status in (200, 201), answer
        self.app.id = answer.json["id"]
        return answer.json

    async def kill_agent(self) -> None:
        """Kill its process, and wait for the next one."""
        os.kill((await self.app.get())["pid"], signal.SIGKILL)
        async with self.app.stream("?kind=agent.restarted") as stream:
            await stream.until(b"agent.restarted")

    async def recite(self) -> list[str]:
        """What the model is told in the next turn beside the prompt itself."""
        said: list[str] = json.loads((await self.app.say("recite"))["text"])
        assert sorted([*said, "recite"]) == sorted(self.model.conversations[-1].prompts)
        return said

    def held(self) -> int:
        """How often the model was asked to hold: a turn that has failed is not begun again."""
        return [asked.prompts[-1] for asked in self.model.conversations].count("hold")


@asynccontextmanager
async def set_stage(agent: RealAgent, folder: Path, *, forgetful: bool = False) -> AsyncGenerator[Stage]:
    """An agent with a conversation behind it.

    Args:
      forgetful: whether its client does not know that it can load and resume sessions.
    """
    if (lacks := await agent.provide()) is not None:
        pytest.skip(f"{agent.id}: {lacks}")
    (work := folder / "work").mkdir()
    launcher = Place(AGENTS_DIR / "bin" / "agent_processes", agent.id).launcher
    own = {agent.id: {"command": [sys.executable, str(FORGETFUL), str(launcher)]}} if forgetful else {}
    (folder / "agents.json").write_text(json.dumps({"agents": own}))
    with trio.fail_after(WITHIN):
        async with open_model() as model:
            options = ("--data-dir", str(AGENTS_DIR), "--agents", str(folder / "agents.json"))
            environment = agent.environment(folder / "home", model.url)
            async with running(folder / "daemon", *options, **environment) as daemon:
                stage = Stage(model, daemon, SessionClient(daemon))
                view = await stage.create(agent.id, work)
                assert view["capabilities"].get("loadSession", False) is not forgetful
                assert (await stage.app.say("say 3"))["text"] == "1 2 3 "
                yield stage


@each_agent
async def test_an_agent_that_is_killed_in_mid_turn_still_knows_what_was_said_before(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage:
        turn = await stage.hold()
        waiting = await stage.app.prompt("say 2")
        await stage.kill_agent()
        (end,) = await stage.ended(turn)
        assert (end["outcome"], end["error"]["type"]) == ("failed", "urn:sandbox-agent:error:agent_process_exited")

        assert (await stage.recite())[0] == "say 3"
        assert stage.held() == 1
        recovered = await stage.told("session.recovered")
        assert [each["fidelity"] for each in recovered] in (["resumed"], ["loaded"])
        # What waited in the queue was done before that, by the new process.
        ends = {end["turnId"]: end["outcome"] for end in await stage.told("turn.ended")}
        assert (len(ends), ends[waiting["turnId"]]) == (len(await stage.told("turn.ended")), "completed")
        assert (await stage.app.get())["incarnation"] == 2


@each_agent
async def test_after_the_daemon_was_killed_in_mid_turn_the_next_prompt_wakes_the_conversation(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path) as stage:
        turn = await stage.hold()
        await stage.daemon.kill()
        await stage.model.until(lambda model: model.holding == 0)
        await stage.daemon.start()
        (listed,) = (await _sessions(stage.app))["sessions"]
        assert (listed["id"], listed["state"], listed["pid"]) == (stage.app.id, "hibernated", None)
        (end,) = await stage.ended(turn)
        assert end["outcome"] == "failed"
        assert (await stage.recite())[0] == "say 3"
        assert stage.held() == 1
        assert [each["fidelity"] for each in await stage.told("session.recovered")] in (["resumed"], ["loaded"])


@each_agent
async def test_an_agent_that_can_neither_load_nor_resume_is_told_the_transcript(
    agent: RealAgent, tmp_path: Path
) -> None:
    async with set_stage(agent, tmp_path, forgetful=True) as stage:
        turn = await stage.hold()
        await stage.kill_agent()
        assert [end["outcome"] for end in await stage.ended(turn)] == ["failed"]
        (transcript,) = await stage.recite()
        for said in ("User: say 3", "Agent: 1 2 3", "User: hold", "Agent: tick"):
            assert said in transcript
        assert stage.held() == 1
        assert [each["fidelity"] for each in await stage.told("session.recovered")] == ["replayed"]
        assert len(await stage.told("context.added")) == 1
        # It is told once: from here on the agent knows it by itself.
        assert await stage.recite() == ["recite", transcript]
        assert len(await stage.told("context.added")) == 1
        assert (await stage.app.get("/transcript?format=json"))["sessionId"] == stage.app.id


async def _sessions(app: SessionClient) -> Json:
    id, app.id = app.id, ""
    try:
        return await app.get()
    finally:
        app.id = id
