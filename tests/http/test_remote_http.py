"""`/acp` by HTTP: what each method takes and refuses, and that nothing is lost between two streams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from support.clients import Session
from support.remote import JSON, SSE, Remote
from support.serving import TOKEN, script, serving
from support.wire import Stream, WebSocket, exchange

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json

WITHIN = 15
INITIALIZE = {"jsonrpc": "2.0", "id": "first", "method": "initialize", "params": {"protocolVersion": 1}}


def body(envelope: Json) -> bytes:
    return json.dumps(envelope).encode()


async def test_initialize_is_answered_at_once_with_the_id_of_a_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "POST", "/acp?agent=mock", JSON, body(INITIALIZE))
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        told = answer.json
        assert told["id"] == "first"
        assert told["result"]["protocolVersion"] == 1
        assert told["result"]["connectionId"] == answer.headers["acp-connection-id"]


@pytest.mark.parametrize("name", ["Sandbox-Agent", "Acp-Agent"])
async def test_a_header_names_the_agent_as_well(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as daemon:
        await Remote.connect(daemon, "", **{name: "mock"})
        listed = await exchange(daemon.port, "GET", "/v1/acp")
        assert [session["agent"] for session in listed.json["servers"]] == ["mock"]


async def test_the_default_agent_is_for_clients_that_name_none(tmp_path: Path) -> None:
    async with serving(tmp_path, default_agent="mock") as daemon:
        assert (await Remote.connect(daemon, "")).introduction["result"]["agentInfo"]["name"] == "mock"


async def test_without_an_agent_there_is_no_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        for query, status, problem in (
            ("", 400, "invalid_request"),
            ("?agent=nope", 400, "unsupported_agent"),
            ("?session=nope", 404, "session_not_found"),
        ):
            answer = await exchange(daemon.port, "POST", f"/acp{query}", JSON, body(INITIALIZE))
            assert (answer.status, answer.problem) == (status, problem)
        assert (await exchange(daemon.port, "GET", "/v1/acp")).json == {"servers": []}


async def test_what_cannot_be_an_envelope_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        remote = await Remote.connect(daemon)
        for headers, sent, status, problem in (
            ({"Content-Type": "text/plain"}, body(INITIALIZE), 415, "unsupported_media_type"),
            ({}, b"[]", 501, "not_supported"),
            ({}, b' [{"jsonrpc":"2.0","id":1,"method":"x"}]', 501, "not_supported"),
            ({}, b"{", 400, "invalid_request"),
            ({}, b"7", 400, "invalid_request"),
            ({}, b"", 400, "invalid_request"),
        ):
            for told in (JSON, remote.headers):
                answer = await exchange(daemon.port, "POST", "/acp?agent=mock", {**told, **headers}, sent)
                assert (answer.status, answer.problem) == (status, problem), sent
        notification = {"jsonrpc": "2.0", "method": "initialize"}
        answer = await exchange(daemon.port, "POST", "/acp?agent=mock", JSON, body(notification))
        assert (answer.status, answer.problem) == (400, "invalid_request")


async def test_a_connection_has_to_be_named_and_be_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        new = body({"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {}})
        unknown = {"Acp-Connection-Id": "acpc_nobody"}
        for method, headers, sent in (("POST", JSON, new), ("GET", SSE, b""), ("DELETE", {}, b"")):
            answer = await exchange(daemon.port, method, "/acp", headers, sent)
            assert (answer.status, answer.problem) == (400, "invalid_request")
            answer = await exchange(daemon.port, method, "/acp", {**headers, **unknown}, sent)
            assert (answer.status, answer.problem) == (404, "not_found")


async def test_what_is_about_a_session_needs_its_id_in_one_place_or_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        remote = await Remote.connect(daemon)
        session = await remote.new_session()
        said = [{"type": "text", "text": "hello"}]
        prompt = {"id": 9, "method": "session/prompt", "params": {"sessionId": session, "prompt": said}}
        assert (await remote.post(prompt, **{"Acp-Session-Id": session})).status == 202
        for id in ("another", 10):
            assert (await remote.post({**prompt, "id": id})).status == 202
        for params, headers, status, problem in (
            ({"prompt": said}, {}, 400, "invalid_request"),
            ({"prompt": said, "sessionId": 7}, {}, 400, "invalid_request"),
            ({"prompt": said, "sessionId": session}, {"Acp-Session-Id": "other"}, 400, "invalid_request"),
            ({"prompt": said, "sessionId": "other"}, {}, 404, "session_not_found"),
            ({"prompt": said}, {"Acp-Session-Id": "other"}, 404, "session_not_found"),
        ):
            for method in ("session/prompt", "session/cancel", "session/set_mode", "session/close"):
                answer = await remote.post({"id": 11, "method": method, "params": params}, **headers)
                assert (answer.status, answer.problem) == (status, problem)


async def test_a_stream_has_to_be_asked_for_as_one_and_be_of_a_session_that_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        remote = await Remote.connect(daemon)
        answer = await exchange(daemon.port, "GET", "/acp", {**remote.headers, "Accept": "application/json"})
        assert (answer.status, answer.problem) == (406, "not_acceptable")
        answer = await exchange(daemon.port, "GET", "/acp", {**remote.headers, **SSE, "Acp-Session-Id": "nope"})
        assert (answer.status, answer.problem) == (404, "session_not_found")
        for session, wrong in ((None, "x"), (None, "1-"), (await remote.new_session(), "1-2")):
            headers = {**remote.headers, **SSE, "Last-Event-ID": wrong}
            if session is not None:
                headers["Acp-Session-Id"] = session
            answer = await exchange(daemon.port, "GET", "/acp", headers)
            assert (answer.status, answer.problem) == (400, "invalid_request")


async def test_a_turn_is_told_on_the_stream_of_its_session_and_openings_on_that_of_the_connection(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            async with remote.events() as own:
                assert own.head.headers["content-type"] == "text/event-stream"
                made = await own.answer(await remote.send("session/new", {"cwd": "/", "mcpServers": []}))
                session = made["result"]["sessionId"]
                async with remote.events(session) as events:
                    answer = await events.answer(await remote.prompt(session, "/echo to whom it may concern"))
                    assert answer["result"]["stopReason"] == "end_turn"
                    assert events.text == "to whom it may concern"
                    await events.answer(await remote.send("session/set_mode", {"sessionId": session, "modeId": "plan"}))
                    assert {
                        told.message["params"]["sessionId"] for told in events.seen if told.message.get("method")
                    } == {session}
                listed = await own.answer(await remote.send("session/list", {}))
                assert [entry["sessionId"] for entry in listed["result"]["sessions"]] == [session]
                assert {one.message.get("method") for one in own.seen} <= {None, "_sandboxagent/session/attached"}


async def test_what_happens_while_no_stream_is_open_is_told_on_the_next_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            asked = await remote.send("session/new", {"cwd": "/", "mcpServers": []})
            async with remote.events() as own:
                session = (await own.answer(asked))["result"]["sessionId"]
            first = await remote.prompt(session, "/stream 50")
            async with remote.events(session) as events:
                await events.answer(first)
                assert events.text.count("/50") == 50
            second = await remote.prompt(session, "/echo again")
            async with remote.events(session) as events:
                await events.answer(second)
                assert events.text == "again"


async def test_a_stream_goes_on_behind_the_last_event_id(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            asked = await remote.prompt(session, "/stream 100")
            async with remote.events(session) as events:
                await events.answer(asked)
                whole = events.seen
            numbers = [int(told.id) for told in whole]
            assert numbers == sorted(set(numbers))
            for index in (0, 41, len(whole) - 2):
                async with remote.events(session, after=whole[index].id) as events:
                    await events.answer(asked)
                    assert events.seen == whole[index + 1 :]


async def test_the_stream_of_the_connection_goes_on_behind_the_last_event_id(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            first = await remote.send("session/list", {})
            second = await remote.send("session/list", {})
            async with remote.events() as own:
                await own.answer(second)
                whole = own.seen
            assert [told.message["id"] for told in whole] == [first, second]
            async with remote.events(after=whole[0].id) as own:
                await own.answer(second)
                assert own.seen == whole[1:]


async def test_the_newest_stream_of_a_name_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            async with remote.events(session) as old, remote.events(session) as new:
                await old.end()
                await new.answer(await remote.prompt(session, "/echo here"))
                assert (old.text, new.text) == ("", "here")


async def test_a_permission_is_asked_and_answered_without_naming_the_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            async with remote.events(session) as events:
                asked = await remote.prompt(session, "/permission")
                question = await events.method("session/request_permission")
                allowed = next(one for one in question["params"]["options"] if one["kind"] == "allow_once")
                chosen = {"outcome": "selected", "optionId": allowed["optionId"]}
                await remote.reply(question, {"outcome": chosen})
                await events.answer(asked)
                assert "permission: allow_once" in events.text
                # Too late, and never asked: nobody waits for it.
                for id in (question["id"], "1.1:7", "x", 5):
                    assert (await remote.post({"id": id, "result": {"outcome": chosen}})).status == 202


async def test_a_turn_is_cancelled(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            async with remote.events(session) as events:
                asked = await remote.prompt(session, "/echo soon\n/hang")
                await events.method("session/update")
                await remote.notify("session/cancel", {"sessionId": session})
                assert (await events.answer(asked))["result"]["stopReason"] == "cancelled"


async def test_a_request_is_taken_back_by_the_id_that_the_client_gave_it(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    text = f"""
while line := heard():
    said = json.loads(line)
    if said["method"] == "$/cancel_request":
        open({str(heard)!r}, "w").write(json.dumps([asked, said["params"]["requestId"]]))
        say(json.dumps({{"jsonrpc": "2.0", "id": asked, "error": {{"code": -32800, "message": "taken back"}}}}))
    elif said["method"] == "slow":
        asked = said["id"]
        say(json.dumps({{"jsonrpc": "2.0", "method": "busy", "params": {{}}}}))
    else:
        say(json.dumps({{"jsonrpc": "2.0", "id": said["id"], "result": {{"protocolVersion": 1}}}}))
"""
    async with serving(tmp_path, agents={"slow": script(tmp_path / "slow.py", text)}) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon, "?agent=slow")
            async with remote.events() as own:
                await remote.send("slow", {}, id={"any": ["thing"]})
                await own.method("busy")
                await remote.notify("$/cancel_request", {"requestId": {"any": ["thing"]}})
                assert (await own.answer({"any": ["thing"]}))["error"]["code"] == -32800
            asked, taken_back = json.loads(await trio.Path(heard).read_text())
            assert asked == taken_back


async def test_two_requests_with_one_id_are_both_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            async with remote.events() as own:
                for _ in range(2):
                    await remote.send("session/list", {}, id=7)
                while len(own.seen) < 2:
                    await own.until(lambda _: len(own.seen) >= 2)
                assert [told.message["id"] for told in own.seen] == [7, 7]


async def test_the_end_of_a_connection_ends_its_streams_and_leaves_its_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            async with remote.events() as own, remote.events(session) as events:
                answer = await remote.delete()
                assert (answer.status, answer.body) == (202, b"")
                await own.end()
                await events.end()
            assert (await remote.delete()).status == 404
            assert (await remote.post({"id": 3, "method": "session/list"})).status == 404
            listed = await exchange(daemon.port, "GET", "/v1/acp")
            assert len(listed.json["servers"]) == 1


async def test_a_session_that_was_made_for_a_connection_and_never_used_goes_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            await (await Remote.connect(daemon)).delete()
            while (await exchange(daemon.port, "GET", "/v1/acp")).json["servers"]:
                await trio.lowlevel.checkpoint()
            await Session(daemon, "mine").open()
            await (await Remote.connect(daemon, "?session=mine")).delete()
            await (await Remote.connect(daemon, "?session=other&agent=mock")).delete()
            listed = (await exchange(daemon.port, "GET", "/v1/acp")).json["servers"]
            assert [session["serverId"] for session in listed] == ["mine", "other"]


async def test_a_crash_is_the_answer_to_a_prompt_and_the_next_one_is_refused_until_the_agent_is_back(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            async with remote.events() as own, remote.events(session) as events:
                crash = await remote.prompt(session, "/crash 7")
                answer = await events.answer(crash)
                assert answer["error"]["data"]["type"] == "urn:sandbox-agent:error:agent_process_exited"
                failed = await events.method("_sandboxagent/turn/failed")
                assert failed["params"]["requestId"] == crash
                refused = await remote.post({"id": "r", "method": "session/prompt", "params": {"sessionId": session}})
                assert (refused.status, refused.problem) == (503, "agent_unavailable")
                assert refused.headers["retry-after"] == "1"
                await own.method("_sandboxagent/agent/restarted")
                assert (await events.answer(await remote.prompt(session, "/recite")))["result"][
                    "stopReason"
                ] == "end_turn"


async def test_an_agent_that_refuses_to_be_initialized_gets_no_connection(tmp_path: Path) -> None:
    text = """
said = json.loads(heard())
say(json.dumps({"jsonrpc": "2.0", "id": said["id"], "error": {"code": -32000, "message": "not today"}}))
heard()
"""
    async with serving(tmp_path, agents={"shy": script(tmp_path / "shy.py", text)}) as daemon:
        answer = await exchange(daemon.port, "POST", "/acp?agent=shy", JSON, body(INITIALIZE))
        assert answer.status == 200
        assert answer.json == {"jsonrpc": "2.0", "id": "first", "error": {"code": -32000, "message": "not today"}}
        told = {**SSE, "Acp-Connection-Id": answer.headers["acp-connection-id"]}
        assert (await exchange(daemon.port, "GET", "/acp", told)).status == 404


async def test_mcp_servers_that_are_stored_for_the_directory_are_in_the_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            server = {"type": "local", "command": "npx", "args": ["-y", "server"]}
            target = f"/v1/config/mcp?directory={tmp_path}&mcpName=stored"
            assert (await exchange(daemon.port, "PUT", target, JSON, body(server))).status == 204
            remote = await Remote.connect(daemon)
            async with remote.events() as own:
                made = await own.answer(await remote.send("session/new", {"cwd": str(tmp_path)}))
            session = made["result"]["sessionId"]
            async with remote.events(session) as events:
                await events.answer(await remote.prompt(session, "/state"))
                assert json.loads(events.text)["mcpServers"] == ["stored"]


async def test_the_token_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        for method, told, sent in (("POST", JSON, body(INITIALIZE)), ("GET", SSE, b""), ("DELETE", {}, b"")):
            answer = await exchange(daemon.port, method, "/acp?agent=mock", told, sent)
            assert (answer.status, answer.problem) == (401, "token_invalid")
        await Remote.connect(daemon)


async def test_foreign_pages_and_rebound_names_are_kept_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        for told in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            answer = await exchange(daemon.port, "POST", "/acp?agent=mock", {**JSON, **told}, body(INITIALIZE))
            assert (answer.status, answer.problem) == (403, "permission_denied")


async def test_a_connection_belongs_to_the_token_that_opened_it_and_to_what_replaces_that(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        with trio.fail_after(WITHIN):
            tokens: list[str] = []
            for name in ("a", "b"):
                wanted = body({"name": name, "scopes": ["read", "prompt"]})
                made = await exchange(daemon.port, "POST", "/v1/tokens", {**daemon.headers, **JSON}, wanted)
                tokens.append(made.json["token"])
            owner, other = ({"Authorization": f"Bearer {token}"} for token in tokens)
            remote = await Remote.connect(daemon, **owner)
            listing = body({"jsonrpc": "2.0", "id": 2, "method": "session/list", "params": {}})
            async with (
                WebSocket.open(daemon.port, "/acp?agent=mock", owner) as socket,
                Stream.open(daemon.port, "/acp", {**remote.headers, **SSE, **owner}) as stream,
            ):
                ids = (remote.id, socket.headers["acp-connection-id"])
                for id in ids:
                    for method, headers, sent in (("POST", JSON, listing), ("GET", SSE, b""), ("DELETE", {}, b"")):
                        for strange in (other, daemon.headers):
                            told = {**strange, **headers, "Acp-Connection-Id": id}
                            answer = await exchange(daemon.port, method, "/acp", told, sent)
                            assert (answer.status, answer.problem) == (404, "not_found"), method
                rotated = await exchange(
                    daemon.port, "POST", "/v1/tokens/a/rotate", {**daemon.headers, **JSON}, b'{"overlap":60}'
                )
                newer = {"Authorization": f"Bearer {rotated.json['token']}"}
                assert (await remote.post(listing, **newer)).status == 202
                await stream.until(b'"id":2')
                for id in ids:
                    told = {**newer, "Acp-Connection-Id": id}
                    assert (await exchange(daemon.port, "DELETE", "/acp", told)).status == 202


async def test_a_head_tells_the_headers_and_leaves_every_stream_where_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            remote = await Remote.connect(daemon)
            listed = await remote.send("session/list", {})
            session = await remote.new_session()
            async with remote.events(session) as events:
                asked = await remote.prompt(session, "/echo one")
                await events.answer(asked)
                whole = events.seen
            later = await Remote.connect(daemon)
            for one, headers, status in (
                (remote, {}, 200),
                (remote, {"Last-Event-ID": "999999"}, 200),
                (remote, {"Acp-Session-Id": session, "Last-Event-ID": whole[0].id}, 200),
                (later, {"Acp-Session-Id": session, "Last-Event-ID": "1"}, 200),
                (remote, {"Acp-Session-Id": "nope"}, 404),
            ):
                answer = await exchange(daemon.port, "HEAD", "/acp", {**one.headers, **SSE, **headers})
                assert (answer.status, answer.body) == (status, b"")
                if status == 200:
                    assert answer.headers["content-type"] == "text/event-stream"
                    assert answer.headers["acp-connection-id"] == one.id
            again = await remote.send("session/list", {})
            async with remote.events() as own:
                await own.answer(again)
                assert listed not in [told.message.get("id") for told in own.seen]
            second = await remote.prompt(session, "/echo two")
            async with remote.events(session) as events:
                await events.answer(second)
                assert events.text == "two"
            async with later.events(session) as events:
                third = await remote.prompt(session, "/echo three")
                await events.until(lambda _: events.text.endswith("three"))
                assert third not in [told.message.get("id") for told in events.seen]
                assert "two" not in events.text


async def test_http_2_without_tls_is_taken(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as daemon,
        httpx.AsyncClient(http1=False, http2=True, base_url=daemon.url, trust_env=False) as client,
    ):
        answer = await client.post("/acp", params={"agent": "mock"}, json=INITIALIZE)
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        told = {"Acp-Connection-Id": answer.headers["acp-connection-id"]}
        asked: Json = {"jsonrpc": "2.0", "id": 2, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}}
        answers: list[Json] = []
        async with client.stream("GET", "/acp", headers={**told, **SSE}) as stream:
            assert (await client.post("/acp", headers=told, json=asked)).status_code == 202
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    answers.append(json.loads(line[6:])["id"])
                    assert (await client.delete("/acp", headers=told)).status_code == 202
        assert answers == [2]


async def test_shutdown_ends_the_streams_with_a_word(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        opened = trio.Event()

        async def listen(remote: Remote, port: int) -> None:
            async with Stream.open(port, "/acp", {**remote.headers, **SSE}) as stream:
                await stream.more()
                opened.set()
                assert b"_sandboxagent/daemon/stopping" in await stream.rest()

        async with serving(tmp_path) as daemon:
            remote = await Remote.connect(daemon)
            nursery.start_soon(listen, remote, daemon.port)
            await opened.wait()
