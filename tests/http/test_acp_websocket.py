"""The WebSocket of `/v1/acp/{id}`: envelopes in both directions, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from support.clients import Session
from support.daemon import running
from support.serving import TOKEN, script, serving
from support.wire import Closed, Stream, WebSocket, exchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.clients import Json

READS_FILES = {"protocolVersion": 1, "clientCapabilities": {"fs": {"readTextFile": True}}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": READS_FILES}
WITHIN = 15


def prompt(id: Json, session: str, text: str) -> Json:
    params = {"sessionId": session, "prompt": [{"type": "text", "text": text}]}
    return {"jsonrpc": "2.0", "id": id, "method": "session/prompt", "params": params}


async def introduced(socket: WebSocket) -> str:
    """The id of a new ACP session, made on this socket."""
    assert socket.refusal is None
    await socket.send_json(INITIALIZE)
    assert (await socket.until(id=1))["result"]["protocolVersion"] == 1
    await socket.send_json(
        {"jsonrpc": "2.0", "id": 2, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}}
    )
    id: str = (await socket.until(id=2))["result"]["sessionId"]
    return id


async def test_envelopes_go_both_ways_on_one_socket(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                acp = await introduced(socket)
                await socket.send_json(prompt("p", acp, "/permission\n/ask-client fs/read_text_file"))
                question = await socket.until(method="session/request_permission")
                chosen = {"outcome": "selected", "optionId": question["params"]["options"][0]["optionId"]}
                await socket.send_json({"jsonrpc": "2.0", "id": question["id"], "result": {"outcome": chosen}})
                question = await socket.until(method="fs/read_text_file")
                error = {"code": -32601, "message": "cannot"}
                await socket.send_json({"jsonrpc": "2.0", "id": question["id"], "error": error})
                assert (await socket.until(id="p"))["result"]["stopReason"] == "end_turn"
                await socket.send_json(prompt("q", acp, "/hang"))
                await socket.send_json({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": acp}})
                assert (await socket.until(id="q"))["result"]["stopReason"] == "cancelled"


async def test_what_no_client_serves_the_daemon_serves(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                acp = await introduced(socket)
                written = json.dumps({"path": str(tmp_path / "plum"), "content": "ripe"})
                await socket.send_json(prompt("p", acp, f"/ask-client fs/write_text_file {written}"))
                assert (await socket.until(id="p"))["result"]["stopReason"] == "end_turn"
                assert (tmp_path / "plum").read_text() == "ripe"


async def test_what_a_socket_shows_is_what_the_event_stream_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                acp = await introduced(socket)
                await socket.send_json(prompt(3, acp, "/stream 300\n/garbage"))
                await socket.until(id=3)
            async with WebSocket.open(daemon.port, "/v1/acp/s?after=0") as socket:
                plain = [await _text(socket)]
                while '"id":3' not in plain[-1]:
                    plain.append(await _text(socket))
            async with WebSocket.open(daemon.port, "/v1/acp/s?after=0&seq=true") as socket:
                numbered = [await _text(socket) for _ in plain]
            async with Stream.open(daemon.port, "/v1/acp/s") as stream:
                shown = (await stream.until(plain[-1].encode() + b"\n\n")).decode()
            seqs = [json.loads(text)["seq"] for text in numbered]
            assert shown == ": heartbeat\n\n" + "".join(
                f"event: message\nid: {seq}\ndata: {text}\n\n" for seq, text in zip(seqs, plain, strict=True)
            )
            assert numbered == [f'{text[:-1]},"seq":{seq}}}' for seq, text in zip(seqs, plain, strict=True)]
            for after in (seqs[0], seqs[150] - 1, seqs[-2]):
                async with WebSocket.open(daemon.port, f"/v1/acp/s?seq=true&after={after}") as socket:
                    expected = [text for seq, text in zip(seqs, numbered, strict=True) if seq > after]
                    assert [await _text(socket) for _ in expected] == expected


async def _text(socket: WebSocket) -> str:
    message = await socket.receive()
    assert isinstance(message, str), message
    return message


async def test_without_a_number_a_socket_begins_with_what_happens_from_now_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                await socket.send_json({**INITIALIZE, "id": "now"})
                assert (await socket.receive_json())["id"] == "now"


async def test_a_number_of_a_lost_journal_is_told_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        await Session(daemon).open()
        with trio.fail_after(WITHIN):
            for query, reason in (("after=900", "ahead"), ("after=1&epoch=other", "epoch")):
                async with WebSocket.open(daemon.port, f"/v1/acp/s?seq=true&{query}") as socket:
                    gap = await socket.receive_json()
                    assert (gap["method"], gap["params"]["reason"]) == ("_sandboxagent/journal/gap", reason)
                    assert "seq" not in gap
                    assert (await socket.receive_json())["seq"] == 2


async def test_a_socket_that_cannot_be_is_refused_with_a_problem(tmp_path: Path) -> None:
    async with serving(tmp_path, agents={"broken": ["/nowhere"]}) as daemon:
        await Session(daemon).open()
        for target, status, problem in (
            ("s?after=x", 400, "invalid_request"),
            ("s?agent=nope", 400, "unsupported_agent"),
            ("s?agent=codex", 409, "conflict"),
            ("%ff", 400, "invalid_request"),
            ("nope", 404, "session_not_found"),
            ("t?agent=broken", 502, "stream_error"),
            ("a/b?agent=mock", 404, "invalid_request"),
        ):
            with trio.fail_after(WITHIN):
                async with WebSocket.open(daemon.port, f"/v1/acp/{target}") as socket:
                    assert socket.refusal is not None, target
                    assert (socket.refusal.status, socket.refusal.problem) == (status, problem), target
        assert len((await exchange(daemon.port, "GET", "/v1/acp")).json["servers"]) == 1


@pytest.mark.parametrize("frame", ["", " ", "{", "[]", "7", "null", '{"id":1,"method":"x"} {}', "\x00"])
async def test_a_frame_that_is_no_object_is_answered_and_the_socket_stays(tmp_path: Path, frame: str) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                await socket.send(frame)
                answer = await socket.receive_json()
                assert answer["id"] is None
                assert answer["jsonrpc"] == "2.0"
                assert answer["error"]["code"] == -32700
                assert await introduced(socket)


@pytest.mark.parametrize("frame", [b"", b"{}", b"\xff"])
async def test_a_binary_frame_closes_the_socket_with_1003(tmp_path: Path, frame: bytes) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                await socket.send(frame)
                assert await socket.end() == Closed(1003, "only text frames are taken")
        assert (await exchange(daemon.port, "GET", "/v1/acp")).json["servers"][0]["serverId"] == "s"


async def test_a_frame_that_is_too_large_closes_the_socket_with_1009(tmp_path: Path) -> None:
    async with serving(tmp_path, max_body=10_000) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                acp = await introduced(socket)
                small = json.dumps(prompt(3, acp, "/silent"))
                await socket.send(small + " " * (10_000 - len(small)))
                assert (await socket.until(id=3))["result"]["stopReason"] == "end_turn"
                await socket.send(small + " " * (10_001 - len(small)))
                assert (await socket.end()).code == 1009
            async with WebSocket.open(daemon.port, "/v1/acp/s") as socket:
                assert socket.refusal is None


async def test_deleting_the_session_closes_its_sockets_with_4404_behind_the_last_event(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                await introduced(socket)
                assert (await exchange(daemon.port, "DELETE", "/v1/acp/s")).status == 204
                await socket.until(method="_adapter/agent_exited")
                assert await socket.receive() == Closed(4404, "the session was deleted")


async def test_sigterm_tells_streams_and_sockets_before_it_ends_them(tmp_path: Path) -> None:
    with trio.fail_after(40):
        async with running(tmp_path) as daemon:
            session = Session(daemon)
            await session.open()
            async with (
                WebSocket.open(daemon.port, "/v1/acp/s?after=0", daemon.headers) as socket,
                Stream.open(daemon.port, "/v1/acp/s", daemon.headers) as stream,
            ):
                await socket.until(id=2)
                await daemon.stop()
                await socket.until(method="_sandboxagent/daemon/stopping")
                assert await socket.receive() == Closed(1001, "the daemon is shutting down")
                last = (await stream.rest()).split(b"\n\n")[-2]
                assert (
                    json.loads(last.removeprefix(b"event: message\ndata: "))["method"]
                    == "_sandboxagent/daemon/stopping"
                )


async def test_a_prompt_of_a_mebibyte_arrives_whole(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock") as socket:
                acp = await introduced(socket)
                envelope = prompt(3, acp, "/silent")
                text = "é" * (1 << 19)
                envelope["params"]["prompt"].insert(0, {"type": "text", "text": text})
                await socket.send_json(envelope)
                echoed = (await socket.until(id=3))["result"]["echoed"]
                assert echoed["params"]["prompt"][0]["text"] == text


SLOW_FIRST = """
first = json.loads(heard())
say('{"method":"heard"}')
second = json.loads(heard())
for request in (first, second):
    say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]}))
heard()
"""


async def test_two_sockets_with_one_id_in_flight_get_each_its_own_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, agents={"slow": script(tmp_path / "slow.py", SLOW_FIRST)}) as daemon:
        with trio.fail_after(WITHIN):
            async with (
                WebSocket.open(daemon.port, "/v1/acp/s?agent=slow") as first,
                WebSocket.open(daemon.port, "/v1/acp/s?agent=slow") as second,
            ):
                await first.send_json({"jsonrpc": "2.0", "id": 7, "method": "x", "params": "first"})
                await first.until(method="heard")
                await second.send_json({"jsonrpc": "2.0", "id": 7, "method": "x", "params": "second"})
                assert (await first.until(id=7))["result"] == "first"
                assert (await second.until(id=7))["result"] == "second"


async def test_an_empty_object_gets_its_number_as_well(tmp_path: Path) -> None:
    agents = {"terse": script(tmp_path / "terse.py", "say('{}')\nsay('{ } ')\nsay('{\"seq\":\"mine\"}')\nheard()\n")}
    async with serving(tmp_path, agents=agents) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=terse&after=0&seq=true") as socket:
                assert [await socket.receive_json() for _ in range(3)] == [{"seq": 1}, {"seq": 2}, {"seq": 3}]


async def test_a_request_that_is_refused_is_answered_under_its_own_id(tmp_path: Path) -> None:
    agents = {"crashing": script(tmp_path / "crashing.py", "heard()\nsys.exit(3)\n")}
    async with serving(tmp_path, agents=agents) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=crashing") as socket:
                await socket.send_json({"jsonrpc": "2.0", "id": "a", "method": "x"})
                assert _name(await socket.until(id="a")) == "agent_process_exited"
                await socket.send_json({"jsonrpc": "2.0", "id": "b", "method": "x"})
                assert _name(await socket.until(id="b")) == "agent_unavailable"


def _name(answer: Mapping[str, Json]) -> str:
    kind: str = answer["error"]["data"]["type"]
    return kind.removeprefix("urn:sandbox-agent:error:")


async def test_a_socket_needs_the_token_in_a_header(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        for headers, status in (({}, 401), ({"X-Sandbox-Agent-Token": TOKEN}, None), (daemon.headers, None)):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock", headers) as socket:
                assert (None if socket.refusal is None else socket.refusal.status) == status
