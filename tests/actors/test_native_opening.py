"""How a native session begins: opened as it was asked for, or refused and gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import Raw

from actors.natively import created, ended, prompt, said
from actors.talking import LIMIT, Client, Watch
from actors.talking import prompt as raw_prompt
from sandbox_actors.errors import (
    AgentAuthRequired,
    AgentNotInstalled,
    AgentStartFailed,
    IdempotencyConflict,
    InvalidRequest,
    Refusal,
    SessionExists,
    SessionOpenFailed,
    UnsupportedAgent,
)
from sandbox_actors.journal import Origin
from sandbox_actors.native import Setup

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import House, OpenHouse

KEY = "sk-this-is-a-secret-key"


def nothing_is_left(house: House) -> bool:
    return (house.sessions.all(), house.journal.sessions, house.processes()) == ([], {}, [])


async def test_a_session_is_opened_with_all_that_was_asked_for(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house() as house:
        servers = [Raw(b'{"name":"one","command":"true","args":[],"env":[]}')]
        session, watch = await created(
            house,
            Setup(
                cwd=str(tmp_path),
                mcp_servers=servers,
                env={"MOCK_WORD": "plum"},
                mode="plan",
                model="mock-fast",
                config={"thought_level": "high"},
            ),
        )
        assert session.state == "ready"
        assert session.log.row.id.startswith("ses_")
        state = json.loads(await said(session, "/state"))
        assert state["sessionId"] == session.memory.main
        assert (state["cwd"], state["mcpServers"]) == (str(tmp_path), ["one"])
        assert (state["mode"], state["model"], state["thought_level"]) == ("plan", "mock-fast", "high")
        assert await said(session, "/env MOCK_WORD") == "MOCK_WORD=plum"
        view = session.memory_view()
        assert view.target is not None
        assert (view.target.mode, view.target.model) == ("plan", "mock-fast")
        assert view.target.config == {"mode": "plan", "model": "mock-fast", "thought_level": "high"}
        assert json.loads(bytes(view.agent["agentInfo"]))["name"] == "mock"
        initialize = await watch.until("initialize")
        assert initialize.origin is Origin.DAEMON
        assert initialize.params["clientInfo"]["name"] == "sandbox-agent"


async def test_it_offers_the_agent_only_what_the_daemon_serves(open_house: OpenHouse) -> None:
    for serving in (True, False):
        async with open_house(serving=serving) as house:
            _, watch = await created(house)
            capabilities = (await watch.until("initialize")).params["clientCapabilities"]
            assert capabilities["fs"] == {"readTextFile": serving, "writeTextFile": serving}
            assert capabilities["terminal"] == serving
            assert "elicitation" in capabilities


async def test_a_directory_of_its_own_is_not_needed(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(HOME=str(tmp_path)) as house:
        session, _ = await created(house)
        assert json.loads(await said(session, "/state"))["cwd"] == str(tmp_path) == session.setup.cwd


@pytest.mark.parametrize("tells", ["modes,models", "configOptions", "modes,models,configOptions"])
async def test_modes_and_models_are_set_as_the_agent_knows_them(open_house: OpenHouse, tells: str) -> None:
    async with open_house(MOCK_AGENT_TELLS=tells) as house:
        session, _ = await created(house, Setup(mode="plan", model="mock-fast"))
        state = json.loads(await said(session, "/state"))
        assert (state["mode"], state["model"]) == ("plan", "mock-fast")
        view = session.memory_view().target
        assert view is not None
        assert (view.mode, view.model) == ("plan", "mock-fast")


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (Setup(mode="warp"), "no mode 'warp'; it has 'normal', 'plan'"),
        (Setup(model="huge"), "'model' cannot be 'huge'; it can be 'mock', 'mock-fast'"),
        (Setup(config={"colour": "red"}), "no config option 'colour'; it has 'model', 'mode', 'thought_level'"),
        (Setup(config={"thought_level": "wild"}), "cannot be 'wild'; it can be 'low', 'medium', 'high'"),
        (Setup(config={"thought_level": True}), "cannot be True"),
        (Setup(cwd="somewhere"), "cwd: must be an absolute path"),
        (Setup(cwd="/does/not/exist"), "there is no directory /does/not/exist"),
        (Setup(env={"A=B": "x"}), "no name of a variable"),
        (Setup(env={"A": "x\0"}), "holds what no variable can"),
        (Setup(env={"SANDBOX_AGENT_TOKEN": "x"}), "the daemon's own"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    open_house: OpenHouse, setup: Setup, message: str
) -> None:
    async with open_house() as house:
        with pytest.raises(InvalidRequest, match=message):
            await created(house, setup)
        assert nothing_is_left(house)


@pytest.mark.parametrize(
    ("agent", "refusal"), [("missing", AgentStartFailed), ("nobody", UnsupportedAgent), ("scripted", SessionOpenFailed)]
)
async def test_an_agent_that_cannot_be_had_or_opens_nothing_is_refused_and_leaves_nothing(
    open_house: OpenHouse, agent: str, refusal: type[Refusal]
) -> None:
    async with open_house() as house:
        with trio.fail_after(LIMIT), pytest.raises(refusal):
            await house.sessions.create("s", agent, Setup())
        assert nothing_is_left(house)


async def test_an_agent_that_crashes_while_it_opens_is_refused_and_leaves_nothing(open_house: OpenHouse) -> None:
    async with open_house() as house:
        (house.flags / "broken").touch()
        with trio.fail_after(LIMIT), pytest.raises((SessionOpenFailed, AgentNotInstalled), match="exited with code 1"):
            await house.sessions.create("s", "scripted", Setup())
        assert nothing_is_left(house)


async def test_a_client_that_goes_away_while_the_agent_opens_leaves_nothing(open_house: OpenHouse) -> None:
    async with open_house() as house:
        (house.flags / "mute").touch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.create, "s", "scripted", Setup())
            with trio.fail_after(LIMIT):
                while not house.processes():  # noqa: ASYNC110 (a process that begins sets no event of ours)
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert nothing_is_left(house)


async def test_an_agent_that_wants_a_login_of_a_person_is_refused_and_says_which(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_AUTH="1") as house:
        with pytest.raises(AgentAuthRequired, match="mock-login") as refused:
            await created(house)
        assert refused.value.details == {"authMethods": ["mock-login"]}
        assert nothing_is_left(house)


async def test_a_login_by_a_variable_that_is_there_is_done_without_anybody(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_AUTH="env", MOCK_AGENT_CAPABILITIES="none") as house:
        with pytest.raises(AgentAuthRequired):
            await created(house)
        session, watch = await created(house, Setup(env={"MOCK_AGENT_API_KEY": KEY}))
        await watch.until("authenticate")
        assert await said(session, "hello") == "hello"
        # Every incarnation has to log in.
        await ended(await prompt(session, "/crash"))
        await watch.until("authenticate")
        await watch.until("_sandboxagent/agent/restarted")
        assert await said(session, "hello") == "hello"


async def test_values_of_variables_are_told_to_nobody(
    open_house: OpenHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_house() as house:
        session, watch = await created(house, Setup(env={"PLAIN_NAME": KEY}))
        await ended(await prompt(session, f"/stderr it is {KEY}\n/crash"))
        exited = await watch.until("_adapter/agent_exited")
        assert exited.params["stderr"] == ["it is [redacted]"]
        shown = [told.message for told in watch.told if told.method not in ("session/prompt", "session/update")]
        told = json.dumps([message for message in shown if "result" not in message])
        assert KEY not in told
        assert "PLAIN_NAME" in told
        assert KEY not in capsys.readouterr().out


async def test_a_session_of_the_agents_own_is_gone_on_with(open_house: OpenHouse) -> None:
    async with open_house() as house:
        first, _ = await created(house)
        assert "plum" in await said(first, "the word is plum")
        own = first.memory.main
        await house.sessions.delete(first.log.row.id)
        again, _ = await created(house, Setup(resume=own))
        assert again.memory.main == own
        assert "plum" in await said(again, "/recite")
        with pytest.raises(SessionOpenFailed, match="refuses session/resume: Resource not found") as refused:
            await created(house, Setup(resume="mock-0000"))
        assert refused.value.details["agentCode"] == -32002


async def test_a_session_that_can_only_be_loaded_tells_its_past(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="load") as house:
        first, _ = await created(house)
        await said(first, "the word is plum")
        again, watch = await created(house, Setup(resume=first.memory.main))
        await watch.until(lambda told: "plum" in json.dumps(told.message) and told.origin is Origin.AGENT)
        assert "plum" in await said(again, "/recite")


async def test_an_agent_that_goes_on_with_nothing_says_so(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        with pytest.raises(InvalidRequest, match="neither resume nor load"):
            await created(house, Setup(resume="mock-1"))
        assert nothing_is_left(house)


async def test_an_id_is_taken_once(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.open("raw")
        with pytest.raises(SessionExists):
            await house.sessions.create("raw", "mock", Setup())
        for id in ("", "a/b", "..", "x" * 257, "a\nb"):
            with pytest.raises(InvalidRequest, match="id:"):
                await house.sessions.create(id, "mock", Setup())
        assert [session.log.row.id for session in house.sessions.all()] == ["raw"]


async def test_the_same_key_is_the_same_session_also_for_the_next_daemon(open_house: OpenHouse) -> None:
    async with open_house() as house:
        found: list[object] = []

        async def create() -> None:
            found.append((await created(house, Setup(title="one"), key="k"))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(create)
        assert len(set(map(id, found))) == 1
        assert len(house.processes()) == 1
        with pytest.raises(IdempotencyConflict):
            await created(house, Setup(title="two"), key="k")
        name = house.sessions.all()[0].log.row.id
    async with open_house() as house:
        session, _ = await created(house, Setup(title="one"), key="k")
        assert (session.log.row.id, session.state) == (name, "stopped")
        await house.sessions.delete(name)
        other, _ = await created(house, Setup(title="two"), key="k")
        assert other.log.row.id != name


async def test_a_raw_client_and_a_native_one_share_a_session(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open("s", "mock")
        with pytest.raises(InvalidRequest, match="no ACP session was opened"):
            await prompt(client.session, "hello")
        await client.call("initialize", protocolVersion=1)
        opened = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
        assert await said(client.session, "hello") == "hello"
        with pytest.raises(InvalidRequest, match="no ACP session 'x'"):
            await prompt(client.session, "hello", to="x")
        native, _ = await created(house)
        talks, follows = Client(native), Watch(native)
        main = native.memory.main
        assert (await talks.call("session/prompt", **raw_prompt(str(main), "hi")))["stopReason"] == "end_turn"
        await follows.until("session/prompt")
        assert watch.methods(Origin.DAEMON) == []
        assert client.session.memory.target == opened
