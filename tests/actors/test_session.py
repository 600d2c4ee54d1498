"""The session actor with real agents: who hears what, and who is told when an agent goes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from actors.talking import LIMIT, Client, prompt
from sandbox_actors.errors import AgentBusy, AgentUnavailable, JournalUnavailable, SessionClosed
from sandbox_actors.framing import LINE_LIMIT
from sandbox_actors.held import HELD_LIMIT
from sandbox_actors.journal import Origin
from sandbox_actors.outbox import COUNT_LIMIT
from sandbox_supervisor import ActorStopped, RestartPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import OpenHouse, Told

PATIENT = RestartPolicy(backoff=40, backoff_limit=40)


async def received(client: Client) -> list[dict[str, Any]]:
    """What has reached the agent."""
    return [json.loads(line) for line in await client.call("received")]


async def test_clients_that_use_the_same_ids_get_each_their_own_answers(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one, _ = await house.open()
        other = Client(one.session)
        names = ["one's first", "other's first", "one's second", "other's second"]
        answers = [await client.start("keep", name=name) for client, name in zip([one, other] * 2, names, strict=True)]
        await Client(one.session, 100).call("release")
        assert [(await answer())["result"]["name"] for answer in answers] == names
        ids = [json.dumps(message["id"]) for message in await received(Client(one.session, 200))]
        assert len(ids) == len(set(ids)) == 6


async def test_an_answer_with_half_a_surrogate_pair_reaches_its_client_under_its_own_id(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one, _ = await house.open()
        other = Client(one.session)
        answers = [await client.start("keep", text="cut \ud83d", n=1.5) for client in (one, other)]
        await Client(one.session, 100).call("release")
        assert [(await answer())["result"]["n"] for answer in answers] == [1.5, 1.5]


async def test_the_first_answer_to_a_permission_request_wins_and_a_late_one_never_reaches_the_agent(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("question", id="q")
        await watch.until("session/request_permission")
        for outcome in ("first", "second", "third"):
            assert (await client.say({"id": "q", "result": {"outcome": outcome}})).answer is None
        heard = [message["result"] for message in await received(client) if "result" in message]
        assert heard == [{"outcome": "first"}]
        await watch.until(lambda told: told.message.get("id") == 2 and told.origin is Origin.AGENT)
        answers = [told.message for told in watch.told if told.origin is Origin.CLIENT and not told.method]
        assert [answer["result"]["outcome"] for answer in answers] == ["first"]


async def test_a_crash_settles_everything_that_was_open_at_once(open_house: OpenHouse) -> None:
    async with open_house(PATIENT) as house:
        client, watch = await house.open()
        await client.call("question", id="q")
        answers = [
            await client.start("keep"),
            await client.start("session/prompt", **prompt("acp", "hello")),
            await client.start("exit", code=7),
        ]
        for id, answer in zip((2, 3, 4), answers, strict=True):
            message = await answer()
            assert message["error"]["message"] == "the agent process exited with code 7 before it answered"
            data = message["error"]["data"]
            assert data["type"].endswith(":agent_process_exited")
            assert (data["exitCode"], data["stderr"]) == (7, ["last words"])
            assert message["id"] == id
        await watch.until("_sandboxagent/agent/restarting")
        notices = [told for told in watch.told if told.origin is Origin.NOTICE]
        assert [told.message.get("id", told.method) for told in notices] == [
            "_sandboxagent/permission/requested",
            "_sandboxagent/permission/resolved",
            2,
            3,
            "_sandboxagent/turn/failed",
            4,
            "_sandboxagent/request/resolved",
            "_adapter/agent_exited",
            "_sandboxagent/agent/restarting",
        ]
        failed, resolved, exited = notices[4].params, notices[6].params, notices[7].params
        assert failed == {"requestId": 3, "sessionId": "acp", "reason": "agent_process_exited"}
        assert resolved == {"requestId": "q", "method": "session/request_permission", "outcome": "cancelled"}
        assert (exited["code"], exited["incarnation"], exited["stderr"]) == (7, 1, ["last words"])


async def test_during_the_backoff_requests_are_refused_with_the_time_that_is_left(open_house: OpenHouse) -> None:
    async with open_house(PATIENT) as house:
        client, watch = await house.open()
        await client.start("exit", code=1)
        await watch.until("_sandboxagent/agent/restarting")
        assert client.session.node.state == "backoff"
        for method in ("session/prompt", "initialize"):
            with pytest.raises(AgentUnavailable, match="about to be started again") as refused:
                await client.start(method)
            assert refused.value.retry_after is not None
            assert 15 < refused.value.retry_after <= 40
        # A notification has nobody to be told to; it is no error, and it is not recorded either.
        head = client.session.log.next_seq
        await client.say({"method": "session/cancel", "params": {}})
        assert client.session.log.next_seq == head


async def test_over_its_limit_an_agent_has_failed_and_initialize_starts_it_again(open_house: OpenHouse) -> None:
    async with open_house(RestartPolicy(intensity=2, backoff=0.01)) as house:
        client, watch = await house.open()
        await client.call("initialize")
        broken = trio.Path(house.flags / "broken")
        await broken.touch()
        await client.start("exit", code=1)
        failed = await watch.until("_sandboxagent/agent/failed")
        assert failed.params == {"reason": "agent scripted crashed 3 times within 60 s"}
        assert [told.params["crashes"] for told in watch.told if told.method == "_sandboxagent/agent/restarting"] == [
            1,
            2,
        ]
        assert client.session.node.state == "failed"
        with pytest.raises(AgentUnavailable, match="send initialize") as refused:
            await client.start("received")
        assert refused.value.retry_after is None
        await broken.unlink()
        assert await client.call("initialize") == {}
        assert (client.session.node.state, client.session.log.row.incarnation) == ("ready", 4)
        assert len(await received(client)) == 3  # the daemon's own initialize, the client's, and this


async def test_lines_that_are_no_json_become_events_and_nothing_else(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        text = 'Loading...\n[1]\n\xff\xfe\n{"id":\n\n{"jsonrpc":"2.0","method":"fine"}\r\n'
        assert await client.call("print", text=text) == {}
        await watch.until(lambda told: told.message.get("id") == 1 and told.origin is Origin.AGENT)
        told = [told for told in watch.told if told.origin is not Origin.CLIENT]
        assert [one.params["raw"] for one in told if one.method == "_adapter/invalid_stdout"] == [
            "Loading...",
            "[1]",
            "\ufffd\ufffd",
            '{"id":',
        ]
        assert [one.method for one in told][4:] == ["fine", ""]


async def test_a_line_longer_than_the_limit_becomes_an_event_and_the_next_ones_are_intact(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        client, watch = await house.open(agent="mock")
        session_id = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
        answer = await client.call("session/prompt", **prompt(session_id, f"/huge {LINE_LIMIT + 2}\n/echo still there"))
        assert answer["stopReason"] == "end_turn"
        invalid = await watch.until("_adapter/invalid_stdout")
        assert invalid.params["length"] == LINE_LIMIT + 1
        assert len(invalid.params["raw"]) == 256
        said = await watch.until("session/update")
        assert said.params["update"]["sessionUpdate"] == "agent_message_chunk"


async def test_an_agent_that_does_not_read_is_busy_and_can_still_be_closed(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, _ = await house.open()
        await client.call("deaf")
        accepted = 0
        with pytest.raises(AgentBusy), trio.fail_after(LIMIT):  # noqa: PT012 (until it is full)
            while True:
                await client.say({"method": "fill", "params": {"text": "x" * 1000}})
                accepted += 1
        # The pipe holds some, the writer holds what it took, the outbox holds its limit.
        assert COUNT_LIMIT <= accepted < 3 * COUNT_LIMIT
        with pytest.raises(AgentBusy):
            await client.start("received")
        with trio.fail_after(LIMIT):
            await house.sessions.delete("s")
        assert house.processes() == []


async def test_requests_are_held_while_an_agent_comes_up_and_refused_beyond_a_limit(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("initialize")
        await trio.Path(house.flags / "mute").touch()
        await client.start("exit", code=1)
        await watch.until(lambda told: told.origin is Origin.DAEMON)
        assert client.session.node.state == "starting"
        answers = [await client.start("received") for _ in range(HELD_LIMIT)]
        with pytest.raises(AgentBusy):
            await client.start("received")
        await house.sessions.delete("s")
        for answer in answers:
            assert (await answer())["error"]["data"]["type"].endswith(":session_closed")


async def test_what_was_held_is_passed_on_in_its_order(open_house: OpenHouse) -> None:
    async with open_house() as house:
        session = await house.sessions.obtain("s", "scripted")
        client = Client(session)
        await client.start("exit", code=0)
        watch = (await house.open())[1]
        await watch.until("_adapter/agent_exited")
        assert session.node.state == "stopped"
        # The first of these wakes the agent, and all wait for it.
        answers = [await client.start("keep", n=n) for n in range(5)]
        assert session.node.state == "starting"
        assert [message.get("params", {}).get("n") for message in await received(client)][:5] == [0, 1, 2, 3, 4]
        await client.call("release")
        assert [(await answer())["result"]["n"] for answer in answers] == [0, 1, 2, 3, 4]


async def test_closing_ends_the_agent_and_everything_that_waits(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, _ = await house.open(agent="mock")
        session_id = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
        steps = "/ignore-sigterm\n/grandchild\n/orphan 60 pipes\n/title ready\n/hang"
        answer = await client.start("session/prompt", **prompt(session_id, steps))
        _, watch = await house.open(agent="mock")
        await watch.until(lambda told: told.origin is Origin.AGENT and "ready" in json.dumps(told.message))
        assert len(house.processes()) == 3
        with trio.fail_after(LIMIT):
            await house.sessions.delete("s")
        assert house.processes() == []
        assert (await answer())["error"]["data"]["type"].endswith(":session_closed")
        with pytest.raises((SessionClosed, ActorStopped)):
            await client.start("received")
        assert house.journal.sessions == {}
        assert house.node.snapshot().children == ()


async def test_while_events_cannot_be_written_requests_are_refused_and_streams_go_on(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("received")
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waits = await client.start("received")
            with trio.fail_after(LIMIT):
                while house.journal.trouble is None:  # noqa: ASYNC110 (the journal sets no event for it)
                    await trio.sleep(0.01)
            with pytest.raises(JournalUnavailable, match="database is locked"):
                await client.start("received")
            other.execute("ROLLBACK")
        assert len((await waits())["result"]) == 2
        await watch.until(lambda told: told.message.get("id") == 2 and told.origin is Origin.AGENT)
        assert len(await client.call("received")) == 3


async def test_events_of_both_directions_are_recorded_in_their_order(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("initialize", protocolVersion=1)
        await client.say({"method": "note", "params": {"n": 1}})
        await client.call("received")

        def is_last(told: Told) -> bool:
            return told.origin is Origin.AGENT and told.message.get("id") == 2

        await watch.until(is_last)
        assert [(told.origin, told.method or told.message["id"]) for told in watch.told] == [
            (Origin.CLIENT, "initialize"),
            (Origin.AGENT, 1),
            (Origin.CLIENT, "note"),
            (Origin.CLIENT, "received"),
            (Origin.AGENT, 2),
        ]
        assert [told.seq for told in watch.told] == [1, 2, 3, 4, 5]
