"""`/v1/acp` as clients of the public 0.4 wire speak it: POST, DELETE and the list."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_http.exchange import HEAD_WITHIN
from support.clients import Session, refused, texts
from support.processes import alive
from support.serving import routes, script, serving
from support.wire import Answer, Stream, exchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.clients import Json
    from support.serving import Local

JSON = {"Content-Type": "application/json"}
INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}'


async def post(
    daemon: Local, target: str, body: bytes | Json = INITIALIZE, headers: Mapping[str, str] = JSON
) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await exchange(daemon.port, "POST", f"/v1/acp/{target}", headers, data)


async def servers(daemon: Local) -> list[Json]:
    listed: list[Json] = (await exchange(daemon.port, "GET", "/v1/acp")).json["servers"]
    return listed


async def test_faults_are_found_in_the_order_of_the_public_wire(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        assert (await post(daemon, "s1?agent=mock")).status == 200
        wrong_type = {"Content-Type": "text/plain", "Accept": "text/html"}
        answer = await post(daemon, "s1?agent=nope", b"{", wrong_type)
        assert (answer.status, answer.problem) == (415, "unsupported_media_type")
        assert answer.detail == "unsupported media type: content-type must be application/json"
        assert answer.json["details"] == {"message": "content-type must be application/json"}
        answer = await post(daemon, "s1?agent=nope", b"{", {**JSON, "Accept": "text/html"})
        assert (answer.status, answer.problem) == (406, "not_acceptable")
        assert answer.detail == "not acceptable: accept must allow application/json"
        assert answer.json["details"] == {"message": "accept must allow application/json"}
        answer = await post(daemon, "s1?agent=nope", b"{")
        assert (answer.status, answer.problem) == (400, "invalid_request")
        assert answer.detail.startswith("invalid request: invalid JSON body: ")
        answer = await post(daemon, "s1?agent=nope")
        assert (answer.status, answer.problem, answer.json["agent"]) == (400, "unsupported_agent", "nope")
        answer = await post(daemon, "s1?agent=codex")
        assert (answer.status, answer.problem) == (409, "conflict")
        assert answer.detail == "conflict: server 's1' already exists for agent 'mock'; requested 'codex'"
        assert answer.json["details"] == {"message": answer.detail.removeprefix("conflict: ")}
        answer = await post(daemon, "s2")
        assert (answer.status, answer.problem) == (400, "invalid_request")
        expected = "invalid request: missing required 'agent' query parameter for first POST to /v1/acp/s2"
        assert answer.detail == expected
        assert [server["serverId"] for server in await servers(daemon)] == ["s1"]


@pytest.mark.parametrize("body", ["[]", "null", "7", '"{}"', "[{}]"])
async def test_json_that_is_no_object_is_refused_before_any_agent_starts(tmp_path: Path, body: str) -> None:
    async with serving(tmp_path) as daemon:
        answer = await post(daemon, "s?agent=mock", body.encode())
        assert (answer.status, answer.detail) == (400, "invalid request: request body must be a JSON-RPC object")
        assert await servers(daemon) == []


async def test_content_type_and_accept_are_taken_by_their_media_types_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        for content_type, status in {
            "application/json; charset=utf-8": 200,
            "Application/JSON": 200,
            "application/json-rpc": 415,
            "text/json": 415,
            "": 415,
        }.items():
            answer = await post(daemon, "s?agent=mock", headers={"Content-Type": content_type})
            assert answer.status == status, content_type
        for accept, status in {
            "application/json": 200,
            "application/*": 200,
            "*/*;q=0": 200,
            "text/html, APPLICATION/json;q=0.1": 200,
            "text/event-stream": 406,
            "": 406,
            "*": 406,
        }.items():
            answer = await post(daemon, "s?agent=mock", headers={**JSON, "Accept": accept})
            assert answer.status == status, accept


async def test_the_list_is_sorted_by_id_and_tells_agent_and_birth(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        before = int(time.time() * 1000)
        ids = {"b": "b", "a%2Fb": "a/b", "Z": "Z", "%C3%A9": "é", "a": "a", "%F0%9F%98%80": "\N{GRINNING FACE}"}
        async with trio.open_nursery() as nursery:
            for id in ids:
                nursery.start_soon(post, daemon, f"{id}?agent=mock")
        listed = await servers(daemon)
        assert [server["serverId"] for server in listed] == sorted(ids.values(), key=str.encode)
        for server in listed:
            assert server["agent"] == "mock"
            assert before <= server["createdAtMs"] <= time.time() * 1000


async def test_the_shape_of_an_envelope_decides_how_it_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await post(daemon, "s?agent=mock")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json["id"] == 1
        for envelope in (
            {"jsonrpc": "2.0", "method": "session/cancel", "params": {}},
            {"jsonrpc": "2.0", "id": "nobody-asked", "result": {}},
            {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}},
            {},
        ):
            answer = await post(daemon, "s", envelope)
            assert (answer.status, answer.body) == (202, b"")


async def test_an_error_of_the_agent_is_an_ordinary_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        answer = await session.post(session.envelope("session/prompt", session.prompt_params("/error 4711 no luck")))
        assert answer.status_code == 200
        assert answer.json()["error"] == {"code": 4711, "message": "no luck"}


REVERSED = """
requests = [json.loads(heard()) for _ in range(5)]
for request in reversed(requests):
    say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]}))
heard()
"""


async def test_ids_are_told_apart_by_their_text_and_answers_may_come_in_any_order(tmp_path: Path) -> None:
    ids = ["7", '"7"', "7.0", '{"a":7}', "null"]
    answers: dict[str, Answer] = {}

    async def ask(id: str) -> None:
        envelope = f'{{"jsonrpc":"2.0","id":{id},"method":"x","params":{json.dumps(id)}}}'
        answers[id] = await post(daemon, "s?agent=reversed", envelope.encode())

    async with serving(tmp_path, agents={"reversed": script(tmp_path / "reversed.py", REVERSED)}) as daemon:
        async with trio.open_nursery() as nursery:
            for id in ids:
                nursery.start_soon(ask, id)
        assert [answers[id].json for id in ids] == [
            {"jsonrpc": "2.0", "id": json.loads(id), "result": id} for id in ids
        ]


TOGETHER = """
requests = [json.loads(heard()) for _ in range(3)]
for request in requests:
    say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": [request["id"], request["params"]]}))
heard()
"""


async def test_requests_in_flight_with_one_id_are_answered_each_with_its_own_answer(tmp_path: Path) -> None:
    results: list[Json] = []

    async def ask(number: int) -> None:
        answer = await post(daemon, "s?agent=together", {"jsonrpc": "2.0", "id": 1, "method": "x", "params": number})
        assert answer.json["id"] == 1
        results.append(answer.json["result"])

    agents = {"together": script(tmp_path / "together.py", TOGETHER)}
    async with serving(tmp_path, agents=agents) as daemon, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, number)
    assert sorted(params for _, params in results) == [0, 1, 2]
    assert len({str(id) for id, _ in results}) == 3


HEX = """
while line := heard():
    say(json.dumps({"jsonrpc": "2.0", "method": "heard", "params": line.hex()}))
    if b'"method"' in line:
        say(bytes.fromhex(sys.argv[1]))
"""


async def test_envelopes_pass_as_the_bytes_they_were_in_both_directions(tmp_path: Path) -> None:
    said = '{"z":1e3, "id":1,"n":123456789012345678901234567890,"jsonrpc" :"2.0","é":"\\u00e9é","a":-0.0,"result":[]}'
    agents = {"hex": [*script(tmp_path / "hex.py", HEX), said.encode().hex()]}
    envelope = '\r\n {"method":"x", "z":1e3,"n":123456789012345678901234567890,\r"id":1,\n"é":"\\u00e9\\né"}\n'.encode()
    async with serving(tmp_path, agents=agents) as daemon:
        answer = await post(daemon, "s?agent=hex", envelope)
        assert answer.body == said.encode()
        async with Stream.open(daemon.port, "/v1/acp/s") as stream:
            with trio.fail_after(5):
                shown = await stream.until(b'"result":[]')
        heard = envelope.strip().replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
        assert heard.hex().encode() in shown
        assert b"data: " + said.encode() + b"\n" in shown


async def test_head_is_answered_like_get_on_every_route_and_has_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        await post(daemon, "x?agent=mock")
        for route in routes(tmp_path):
            if "GET" in route.methods:
                answer = await exchange(daemon.port, "HEAD", route.path(), within=5)
                got = await exchange(daemon.port, "GET", route.path(), within=5)
                assert (answer.status, answer.body) == (got.status, b"")
                assert answer.headers["content-type"] == got.headers["content-type"]


async def test_delete_is_answered_once_the_agent_is_gone_and_for_unknown_ids_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "DELETE", "/v1/acp/never-was")
        assert (answer.status, answer.body) == (204, b"")
        pid = (await post(daemon, "s?agent=mock")).json["result"]["_meta"]["pid"]
        assert alive(pid)
        answer = await exchange(daemon.port, "DELETE", "/v1/acp/s")
        assert (answer.status, answer.body) == (204, b"")
        assert not alive(pid)
        assert await servers(daemon) == []
        assert (await post(daemon, "s")).problem == "invalid_request"


async def test_other_methods_are_told_what_the_path_takes(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "PUT", "/v1/acp/s")
        assert (answer.status, answer.headers["allow"]) == (405, "DELETE,GET,HEAD,POST")
        assert (await exchange(daemon.port, "POST", "/v1/health")).headers["allow"] == "GET,HEAD"


async def test_a_long_request_gets_its_head_early_and_blanks_before_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        envelope = session.envelope("session/prompt", session.prompt_params(f"/sleep {HEAD_WITHIN + 1}"))
        started = time.monotonic()
        data = json.dumps(envelope).encode()
        with trio.fail_after(HEAD_WITHIN + 10):
            async with Stream.open(daemon.port, "/v1/acp/s", JSON, method="POST", body=data) as stream:
                assert stream.head.status == 200
                assert stream.head.headers["content-type"] == "application/json"
                assert await stream.more() == b" "
                assert HEAD_WITHIN - 0.1 < time.monotonic() - started < HEAD_WITHIN + 0.9
                answer = json.loads(await stream.rest())
        assert answer["id"] == envelope["id"]
        assert answer["result"]["stopReason"] == "end_turn"


async def test_a_request_that_is_out_of_time_is_told_so_and_its_answer_still_comes_on_the_stream(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, request_timeout=0.5) as daemon:
        session = Session(daemon)
        await session.open()
        async with session.subscribed() as subscriber:
            answer = await session.post(
                session.envelope("session/prompt", session.prompt_params("/sleep 1\n/echo late"))
            )
            assert answer.status_code == 200
            assert refused(answer.json()) == "timeout"
            assert answer.json()["id"] == 3
            with trio.fail_after(5):
                await subscriber.until(lambda event: event.message.get("id") == 3 and "result" in event.message)
            assert "late" in texts(subscriber.events)


async def test_a_program_that_cannot_run_leaves_nothing_registered(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    agents = {"missing": ["/nowhere/agent"], "plain": [str(plain)]}
    async with serving(tmp_path, agents=agents) as daemon:
        for agent, reason in {"missing": "No such file or directory", "plain": "Permission denied"}.items():
            answer = await post(daemon, f"s?agent={agent}")
            assert (answer.status, answer.problem) == (502, "stream_error")
            assert answer.detail.startswith("stream error: failed to start agent process: ")
            assert reason in answer.detail
            assert await servers(daemon) == []
        assert (await post(daemon, "s?agent=mock")).status == 200


async def test_an_unknown_agent_is_told_which_ones_are_known(tmp_path: Path) -> None:
    async with serving(tmp_path, agents={"mine": ["true"]}) as daemon:
        for agent in ("nope", "MOCK", "", "../mock", "mock%00", "m" * 1000):
            answer = await post(daemon, f"s?agent={agent}")
            assert (answer.status, answer.problem) == (400, "unsupported_agent")
            known = answer.detail.partition("known agents: ")[2].split(", ")
            assert known[:7] == ["claude", "codex", "opencode", "amp", "pi", "cursor", "mock"]
            assert known[-1] == "mine"
        assert await servers(daemon) == []


async def test_an_agent_that_can_not_be_installed_is_told_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with serving(tmp_path) as daemon:
        answer = await post(daemon, "s?agent=codex")
        assert (answer.status, answer.problem, answer.json["agent"]) == (500, "install_failed", "codex")
        assert answer.json["details"]["reason"] == "missing_tool"
        assert "install Node.js" in answer.detail
        assert await servers(daemon) == []


async def test_a_launcher_script_makes_an_agent_known_and_installed(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        launchers = tmp_path / "data" / "bin" / "agent_processes"
        launchers.mkdir(parents=True)
        for name, mode in (("mine-acp", 0o755), ("Bad Name-acp", 0o755)):
            launcher = launchers / name
            launcher.write_text('#!/bin/sh\nread line\necho \'{"id":1,"result":"launched"}\'\nread line\n')
            os.chmod(launcher, mode)
        assert (await post(daemon, "s?agent=mine")).json["result"] == "launched"
        assert (await post(daemon, "t?agent=Bad%20Name")).problem == "unsupported_agent"


async def test_many_first_posts_at_once_start_one_agent(tmp_path: Path) -> None:
    pids: set[int] = set()

    async def ask(number: int) -> None:
        envelope = {"jsonrpc": "2.0", "id": number, "method": "initialize", "params": {"protocolVersion": 1}}
        pids.add((await post(daemon, "s?agent=mock", envelope)).json["result"]["_meta"]["pid"])

    async with serving(tmp_path) as daemon, trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(ask, number)
    assert len(pids) == 1
