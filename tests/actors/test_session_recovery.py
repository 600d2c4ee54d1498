"""What becomes of a conversation when its agent, or the daemon, dies."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from actors.talking import QUICK, Client, Watch, open_house, prompt
from sandbox_actors.journal import Origin

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from actors.talking import House, OpenHouse, Told


async def introduced(house: House) -> tuple[Client, Watch, str]:
    """A session with the mock agent, one ACP session and one turn."""
    client, watch = await house.open(agent="mock")
    await client.call("initialize", protocolVersion=1)
    session_id: str = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
    await client.call("session/prompt", **prompt(session_id, "the word is plum"))
    return client, watch, session_id


async def crash(client: Client, watch: Watch, session_id: str) -> dict[str, Any]:
    """Crash the agent; gives what is told of the recovery."""
    await client.start("session/prompt", **prompt(session_id, "/crash"))
    recovered = await watch.until("_sandboxagent/session/recovered")
    await watch.until("_sandboxagent/agent/restarted")
    return recovered.params


async def said(client: Client, watch: Watch, session_id: str, text: str) -> str:
    """The text of a whole turn, by the updates that carry the id of the session."""
    answer = await client.start("session/prompt", **prompt(session_id, text))
    from_here = len(watch.told)
    message = await answer()
    assert message["result"]["stopReason"] == "end_turn"
    await watch.until(lambda told: told.origin is Origin.AGENT and told.message.get("id") == message["id"])
    updates = [told.params for told in watch.told[from_here:] if told.method == "session/update"]
    assert {update["sessionId"] for update in updates} == {session_id}
    return "".join(update["update"].get("content", {}).get("text", "") for update in updates)


@pytest.mark.parametrize(
    ("capabilities", "fidelity"),
    [("resume,load", "resumed"), ("load", "loaded"), ("none", "replayed")],
)
async def test_after_a_crash_the_conversation_goes_on_as_well_as_the_agent_can_and_says_how_well(
    open_house: OpenHouse, capabilities: str, fidelity: str
) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES=capabilities) as house:
        client, watch, session_id = await introduced(house)
        assert await crash(client, watch, session_id) == {
            "sessionId": session_id,
            "fidelity": fidelity,
            "incarnation": 2,
        }
        assert "plum" in await said(client, watch, session_id, "/recite")


async def test_a_session_that_had_to_be_opened_anew_keeps_the_id_by_which_clients_know_it(
    open_house: OpenHouse,
) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        client, watch, session_id = await introduced(house)
        ids = {session_id}
        for _ in range(3):
            await crash(client, watch, session_id)
            ids.add(json.loads(await said(client, watch, session_id, "/state"))["sessionId"])
        # The agent knew it by a new id each time, and no client has ever seen one of those.
        assert len(ids) == 4
        asked = await client.start("session/prompt", **prompt(session_id, "/permission"))
        question = await watch.until("session/request_permission")
        assert question.params["sessionId"] == session_id
        option = question.params["options"][0]["optionId"]
        outcome = {"outcome": "selected", "optionId": option}
        await client.say({"id": question.message["id"], "result": {"outcome": outcome}})
        assert (await asked())["result"]["stopReason"] == "end_turn"
        hangs = await client.start("session/prompt", **prompt(session_id, "/hang"))
        await client.say({"method": "session/cancel", "params": {"sessionId": session_id}})
        assert (await hangs())["result"]["stopReason"] == "cancelled"
        await watch.until(lambda told: told.message.get("result", {}).get("stopReason") == "cancelled")
        shown = [told.message for told in watch.told if told.origin is not Origin.DAEMON]
        parts = [message.get(part) or {} for message in shown for part in ("params", "result")]
        assert {part["sessionId"] for part in parts if "sessionId" in part} == {session_id}


async def test_the_replay_of_a_load_is_not_recorded_again(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="load") as house:
        client, watch, session_id = await introduced(house)
        for _ in range(2):
            before = len(watch.told)
            await crash(client, watch, session_id)
            updates = [told for told in watch.told[before:] if told.method == "session/update"]
            assert [told for told in updates if "user_message_chunk" in json.dumps(told.message)] == []
        assert "plum" in await said(client, watch, session_id, "/recite")


async def test_what_the_daemon_itself_says_to_the_agent_is_recorded_as_its_own(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="load") as house:
        client, watch, session_id = await introduced(house)
        await crash(client, watch, session_id)
        assert [told.method or "answer" for told in watch.told if told.origin is Origin.DAEMON] == [
            "initialize",
            "answer",
            "session/load",
            "answer",
        ]


async def test_a_prompt_in_flight_is_never_repeated(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, session_id = await introduced(house)
        await crash(client, watch, session_id)
        recited = await said(client, watch, session_id, "/recite")
        assert recited.count("/crash") == 1
        assert client.session.log.row.incarnation == 2


def is_started(told: Told) -> bool:
    return told.method == "session/update" and "#1/" in json.dumps(told.message)


async def test_after_a_restart_of_the_daemon_sessions_sleep_and_the_next_request_wakes_them(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        _, _, session_id = await introduced(house)
    async with open_house() as house:
        session = house.sessions.get("s")
        assert (session.state, house.processes()) == ("stopped", [])
        client, watch = Client(session), Watch(session, after=session.log.head)
        assert "plum" in await said(client, watch, session_id, "/recite")
        recovered = [told.params for told in watch.told if told.method == "_sandboxagent/session/recovered"]
        assert recovered == [{"sessionId": session_id, "fidelity": "resumed", "incarnation": 2}]


async def test_aliases_survive_the_daemon(open_house: OpenHouse) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        client, watch, session_id = await introduced(house)
        await crash(client, watch, session_id)
    async with open_house() as house:
        session = house.sessions.get("s")
        client, watch = Client(session), Watch(session, after=session.log.head)
        state = json.loads(await said(client, watch, session_id, "/state"))
        assert state["sessionId"] != session_id


async def test_turns_of_a_daemon_that_died_are_settled_by_the_next_one(tmp_path: Path) -> None:
    crashed, folder = tmp_path / "crashed", tmp_path / "first"
    crashed.mkdir()
    folder.mkdir()
    async with open_house(folder, QUICK) as house:
        client, watch, session_id = await introduced(house)
        await client.start("session/prompt", **prompt(session_id, "/stream 2\n/hang"))
        await watch.until(is_started)
        # What a killed daemon would leave: its files as they are now.
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(folder / name, crashed)
        head = house.journal.sessions["s"].head
    async with open_house(crashed, QUICK) as house:
        session = house.sessions.get("s")
        watch = Watch(session)
        exited = await watch.until("_adapter/agent_exited")
        assert exited.params == {"code": None, "success": False, "incarnation": 1, "reason": "daemon_died"}
        error, failed = (told.message for told in watch.told[-3:-1])
        assert (error["id"], error["error"]["data"]["type"]) == (4, "urn:sandbox-agent:error:agent_process_exited")
        assert failed["params"] == {"requestId": 4, "sessionId": session_id, "reason": "daemon_died"}
        assert watch.told[-3].seq <= head + 1
        assert session.state == "stopped"
