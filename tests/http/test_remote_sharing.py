"""Several connections, several sessions: each gets its own answers, and whatever ACP session it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from support.clients import Session
from support.remote import Remote
from support.serving import script, serving
from support.wire import WebSocket, exchange

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json

WITHIN = 15


async def servers(port: int) -> list[str]:
    listed = await exchange(port, "GET", "/v1/acp")
    return [session["serverId"] for session in listed.json["servers"]]


async def test_each_connection_gets_the_answers_to_its_own_requests_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            ann = await Remote.connect(daemon, "?agent=mock&session=shared")
            bob = await Remote.connect(daemon, "?session=shared")
            hers, his = await ann.new_session(), await bob.new_session()
            async with ann.events(hers) as to_ann, bob.events(his) as to_bob:
                for round in range(3):
                    # The same ids at the same time.
                    assert await ann.prompt(hers, f"/echo to ann {round}") == await bob.prompt(
                        his, f"/echo to bob {round}"
                    )
                for events, text in ((to_ann, "to ann"), (to_bob, "to bob")):
                    for id in (3, 4, 5):
                        await events.answer(id)
                    answers = [told.message for told in events.seen if "method" not in told.message]
                    assert sorted(answer["id"] for answer in answers) == [3, 4, 5]
                    assert text in events.text
            assert await servers(daemon.port) == ["shared"]


async def test_updates_go_to_all_who_follow_a_session_and_the_first_answer_wins(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            ann = await Remote.connect(daemon, "?agent=mock&session=shared")
            session = await ann.new_session()
            bob, eve = [await Remote.connect(daemon, "?session=shared") for _ in range(2)]
            async with ann.events(session) as to_ann, bob.events(session) as to_bob, eve.events() as to_eve:
                asked = await ann.prompt(session, "/permission")
                question = await to_bob.method("session/request_permission")
                assert question == await to_ann.method("session/request_permission")
                for remote, kind in ((bob, "reject_once"), (ann, "allow_once")):
                    option = next(one for one in question["params"]["options"] if one["kind"] == kind)
                    await remote.reply(question, {"outcome": {"outcome": "selected", "optionId": option["optionId"]}})
                await to_ann.answer(asked)
                await to_bob.until(lambda _: to_bob.text == to_ann.text)
                assert "permission: reject_once" in to_ann.text
                assert all("method" in told.message for told in to_bob.seen)
                await to_eve.answer(await eve.send("session/list", {}))
                assert [told.message for told in to_eve.seen if told.message.get("method") == "session/update"] == []


async def test_a_session_of_another_connection_is_found_and_loaded(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            ann = await Remote.connect(daemon)
            session = await ann.new_session()
            async with ann.events(session) as events:
                await events.answer(await ann.prompt(session, "/echo remember this"))
            await ann.delete()
            home = await servers(daemon.port)
            bob = await Remote.connect(daemon)
            # The stream first, as the proposal draws it.
            async with bob.events() as own, bob.events(session) as events:
                asked = await bob.send("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
                assert (await own.answer(asked))["result"]["sessionId"] == session
                await events.until(lambda _: "remember this" in events.text)
                answer = await events.answer(await bob.prompt(session, "/recite"))
                assert answer["result"]["stopReason"] == "end_turn"
                assert "earlier prompts: 1" in events.text
            await bob.delete()
            with trio.fail_after(WITHIN):
                while await servers(daemon.port) != home:
                    await trio.lowlevel.checkpoint()


async def test_who_loads_without_a_stream_is_told_that_there_is_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            ann = await Remote.connect(daemon)
            session = await ann.new_session()
            async with ann.events(session) as events:
                await events.answer(await ann.prompt(session, "/echo remember this"))
            bob = await Remote.connect(daemon)
            async with bob.events() as own:
                asked = await bob.send("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
                told = await own.method("_sandboxagent/session/attached")
                assert told["params"]["sessionId"] == session
                async with bob.events(session) as events:
                    await own.answer(asked)
                    # What was replayed is on its way before the answer is.
                    await events.until(lambda _: "remember this" in events.text)


async def test_a_load_is_not_replayed_to_those_who_follow_the_session_already(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            ann = await Remote.connect(daemon, "?agent=mock&session=shared")
            session = await ann.new_session()
            async with ann.events(session) as to_ann:
                await to_ann.answer(await ann.prompt(session, "/echo once"))
                bob = await Remote.connect(daemon)
                async with bob.events() as own, bob.events(session) as to_bob:
                    await own.answer(await bob.send("session/load", {"sessionId": session, "cwd": "/"}))
                    await to_bob.until(lambda _: "once" in to_bob.text)
                await to_ann.answer(await ann.prompt(session, "/echo twice"))
                assert to_ann.text == "oncetwice"


async def test_a_session_whose_agent_was_stopped_wakes_when_it_is_resumed(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        ann = await Remote.connect(daemon)
        session = await ann.new_session()
        async with ann.events(session) as events:
            await events.answer(await ann.prompt(session, "/echo remember this"))
    async with serving(tmp_path, state_dir=next((tmp_path / "data" / "daemons").iterdir())) as daemon:
        with trio.fail_after(WITHIN):
            bob = await Remote.connect(daemon)
            async with bob.events() as own, bob.events(session) as events:
                asked = await bob.send("session/resume", {"sessionId": session, "cwd": "/", "mcpServers": []})
                assert "result" in await own.answer(asked)
                await events.answer(await bob.prompt(session, "/recite"))
                assert "remember this" in events.text


async def test_a_connection_follows_sessions_of_several_agents_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            other = Session(daemon, "other")
            await other.open()
            ann = await Remote.connect(daemon)
            mine = await ann.new_session()
            async with ann.events(mine) as to_mine, ann.events(other.acp) as to_other, ann.events() as own:
                asked = [await ann.prompt(session, "/permission") for session in (mine, other.acp)]
                questions = [await events.method("session/request_permission") for events in (to_mine, to_other)]
                # Two agents that count alike.
                assert questions[0]["id"] != questions[1]["id"]
                for question in reversed(questions):
                    option = question["params"]["options"][0]["optionId"]
                    await ann.reply(question, {"outcome": {"outcome": "selected", "optionId": option}})
                await to_mine.answer(asked[0])
                await to_other.answer(asked[1])
                listed = await own.answer(await ann.send("session/list", {}))
                assert listed["result"]["sessions"]
                last = own.seen[-1].id
                assert last.count("-") == 1
            again = await ann.send("session/list", {})
            async with ann.events(after=last) as own:
                await own.answer(again)
                assert len(own.seen) == 1


async def test_a_socket_follows_sessions_of_several_agents_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            other = Session(daemon, "other")
            await other.open()
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
                await socket.until(id=1)
                params: Json = {"sessionId": other.acp, "cwd": "/", "mcpServers": []}
                await socket.send_json({"jsonrpc": "2.0", "id": 2, "method": "session/load", "params": params})
                assert (await socket.until(id=2))["result"]["sessionId"] == other.acp
                await other.prompt("/echo from elsewhere")
                heard = ""
                while heard != "from elsewhere":
                    update = (await socket.until(method="session/update"))["params"]["update"]
                    heard += update["content"]["text"]


@pytest.mark.parametrize("directory", [None, "/tmp", "/nowhere"])
async def test_the_list_has_sessions_that_only_the_daemon_knows(tmp_path: Path, directory: str | None) -> None:
    text = """
number = os.getpid()
while line := heard():
    said = json.loads(line)
    results = {"session/new": {"sessionId": f"s{number}"}, "session/list": {"sessions": [], "more": 1}}
    say(json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": results.get(said["method"], {"protocolVersion": 1})}))
"""
    async with serving(tmp_path, agents={"forgetful": script(tmp_path / "forgetful.py", text)}) as daemon:
        with trio.fail_after(WITHIN):
            ann, bob = [await Remote.connect(daemon, "?agent=forgetful") for _ in range(2)]
            made: list[str] = []
            for remote, where in ((ann, "/tmp"), (bob, "/var")):
                async with remote.events() as own:
                    answer = await own.answer(await remote.send("session/new", {"cwd": where, "mcpServers": []}))
                    made.append(answer["result"]["sessionId"])
            async with ann.events() as own:
                params = {} if directory is None else {"cwd": directory}
                result = (await own.answer(await ann.send("session/list", params)))["result"]
            assert result["more"] == 1
            found = [entry["sessionId"] for entry in result["sessions"]]
            assert sorted(found) == sorted({None: made, "/tmp": made[:1]}.get(directory, []))


async def test_an_answer_to_an_agent_that_has_crashed_meanwhile_is_no_answer_to_the_next(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session, crash = await remote.new_session(), await remote.new_session()
            async with remote.events() as own, remote.events(session) as events:
                await remote.prompt(session, "/permission")
                old = await events.method("session/request_permission")
                await remote.prompt(crash, "/crash")
                resolved = await own.method("_sandboxagent/request/resolved")
                assert resolved["params"]["requestId"] == old["id"]
                await own.method("_sandboxagent/agent/restarted")
                asked = await remote.prompt(session, "/permission")
                new = await events.until(
                    lambda message: message.get("method") == old["method"] and message["id"] != old["id"]
                )
                for question, kind in ((old, "reject_once"), (new.message, "allow_once")):
                    option = next(one for one in question["params"]["options"] if one["kind"] == kind)
                    await remote.reply(question, {"outcome": {"outcome": "selected", "optionId": option["optionId"]}})
                await events.answer(asked)
                assert events.text.endswith("permission: allow_once")


async def test_a_question_that_was_open_is_asked_those_again_who_come_later(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            ann = await Remote.connect(daemon)
            session = await ann.new_session()
            async with ann.events(session) as events:
                await ann.prompt(session, "/permission edit: the plan")
                asked = await events.method("session/request_permission")
            await ann.delete()
            bob = await Remote.connect(daemon)
            async with (
                WebSocket.open(daemon.port, "/acp?agent=mock") as socket,
                bob.events(session) as events,
            ):
                question = await events.method("session/request_permission")
                assert question["params"] == asked["params"]
                await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
                await socket.until(id=1)
                params: Json = {"sessionId": session, "cwd": "/", "mcpServers": []}
                await socket.send_json({"jsonrpc": "2.0", "id": 2, "method": "session/resume", "params": params})
                question = await socket.until(method="session/request_permission")
                assert question["params"] == asked["params"]
                option = next(one for one in question["params"]["options"] if one["kind"] == "allow_once")
                outcome = {"outcome": "selected", "optionId": option["optionId"]}
                await socket.send_json({"jsonrpc": "2.0", "id": question["id"], "result": {"outcome": outcome}})
                await events.until(lambda _: "permission: allow_once" in events.text)
            eve = await Remote.connect(daemon)
            async with eve.events(session) as events:
                await events.answer(await eve.prompt(session, "/echo nothing is open"))
                assert all("id" not in told.message or "method" not in told.message for told in events.seen)
