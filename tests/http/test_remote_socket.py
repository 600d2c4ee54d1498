"""`/acp` by WebSocket: the same connection on one socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from support.remote import Remote
from support.serving import TOKEN, script, serving
from support.wire import WebSocket, exchange

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json

WITHIN = 15
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}


def request(id: Json, method: str, **params: Json) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def prompt(id: Json, session: str, text: str) -> Json:
    return request(id, "session/prompt", sessionId=session, prompt=[{"type": "text", "text": text}])


async def introduced(socket: WebSocket) -> str:
    """The id of a new ACP session, made on this socket."""
    assert socket.refusal is None
    await socket.send_json(INITIALIZE)
    assert (await socket.until(id=1))["result"]["protocolVersion"] == 1
    await socket.send_json(request(2, "session/new", cwd="/", mcpServers=[]))
    id: str = (await socket.until(id=2))["result"]["sessionId"]
    return id


async def test_a_whole_conversation_fits_on_one_socket(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                session = await introduced(socket)
                await socket.send_json(prompt("p", session, "/permission\n/ask-client _test/ask"))
                question = await socket.until(method="session/request_permission")
                chosen = {"outcome": "selected", "optionId": question["params"]["options"][0]["optionId"]}
                await socket.send_json({"jsonrpc": "2.0", "id": question["id"], "result": {"outcome": chosen}})
                question = await socket.until(method="_test/ask")
                error = {"code": -32601, "message": "cannot"}
                await socket.send_json({"jsonrpc": "2.0", "id": question["id"], "error": error})
                assert (await socket.until(id="p"))["result"]["stopReason"] == "end_turn"
                await socket.send_json(prompt("q", session, "/hang"))
                await socket.send_json({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}})
                assert (await socket.until(id="q"))["result"]["stopReason"] == "cancelled"


async def test_the_handshake_tells_the_id_of_the_connection_and_a_delete_ends_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                headers = {"Acp-Connection-Id": socket.headers["acp-connection-id"]}
                assert (await exchange(daemon.port, "DELETE", "/acp", headers)).status == 202
                assert (await socket.end()).code == 1000


async def test_nothing_is_taken_before_initialize(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                await socket.send_json(request(5, "session/new", cwd="/", mcpServers=[]))
                refused = await socket.receive_json()
                assert (refused["id"], refused["error"]["data"]["type"]) == (
                    5,
                    "urn:sandbox-agent:error:invalid_request",
                )
                assert await introduced(socket)


async def test_binary_frames_say_nothing_and_nonsense_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                await socket.send(b"\x00\x01")
                await socket.send(b"")
                await socket.send("[]")
                answer = await socket.receive_json()
                assert (answer["id"], answer["error"]["code"]) == (None, -32700)
                session = await introduced(socket)
                await socket.send_json(request(6, "session/prompt", prompt=[]))
                assert (await socket.until(id=6))["error"]["data"]["type"].endswith(":invalid_request")
                await socket.send_json(prompt(7, "nope", "hello"))
                assert (await socket.until(id=7))["error"]["data"]["type"].endswith(":session_not_found")
                await socket.send_json(prompt(8, session, "/echo well"))
                assert (await socket.until(id=8))["result"]["stopReason"] == "end_turn"


async def test_what_an_agent_says_before_it_has_named_a_session_comes_behind_the_name(tmp_path: Path) -> None:
    text = """
while line := heard():
    said = json.loads(line)
    if said["method"] == "session/new":
        for session in ("s", "t", "s"):
            params = {"sessionId": session, "update": {"sessionUpdate": "plan", "entries": []}}
            say(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": params}))
        say(json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": {"sessionId": "s"}}))
    else:
        say(json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": {"protocolVersion": 1}}))
"""
    async with serving(tmp_path, agents={"early": script(tmp_path / "early.py", text)}) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=early") as socket:
                assert await introduced(socket) == "s"
                for _ in range(2):
                    assert (await socket.receive_json())["params"]["sessionId"] == "s"
                await socket.send_json(request(3, "another"))
                assert (await socket.receive_json())["id"] == 3


async def test_a_socket_that_cannot_be_is_refused_with_a_problem(tmp_path: Path) -> None:
    async with serving(tmp_path, agents={"broken": ["/nowhere"]}) as daemon:
        for query, status, problem in (
            ("", 400, "invalid_request"),
            ("?agent=nope", 400, "unsupported_agent"),
            ("?session=nope", 404, "session_not_found"),
            ("?agent=broken", 502, "stream_error"),
        ):
            async with WebSocket.open(daemon.port, f"/acp{query}") as socket:
                assert socket.refusal is not None
                assert (socket.refusal.status, socket.refusal.problem) == (status, problem)


async def test_the_token_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
            assert socket.refusal is not None
            assert socket.refusal.status == 401
        async with WebSocket.open(daemon.port, "/acp?agent=mock", daemon.headers) as socket:
            assert await introduced(socket)


async def test_foreign_pages_are_kept_out(tmp_path: Path) -> None:
    foreign = {"Origin": "https://evil.example"}
    async with serving(tmp_path) as daemon, WebSocket.open(daemon.port, "/acp?agent=mock", foreign) as socket:
        assert socket.refusal is not None
        assert socket.refusal.status == 403


async def test_the_end_of_a_socket_leaves_its_session_for_the_next_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                session = await introduced(socket)
                await socket.send_json(prompt(3, session, "/echo remember"))
                await socket.until(id=3)
            async with WebSocket.open(daemon.port, "/acp?agent=mock") as socket:
                await socket.send_json(INITIALIZE)
                await socket.until(id=1)
                await socket.send_json(request(2, "session/load", sessionId=session, cwd="/", mcpServers=[]))
                replayed = await socket.until(method="session/update")
                assert replayed["params"]["update"]["content"]["text"] == "/echo remember"
                assert (await socket.until(id=2))["result"]["sessionId"] == session


async def test_a_deleted_session_closes_the_socket(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock&session=mine") as socket:
                await introduced(socket)
                assert (await exchange(daemon.port, "DELETE", "/v1/acp/mine")).status == 204
                assert (await socket.end()).code == 4404


async def test_a_shutdown_closes_the_socket_with_a_word(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        ready = trio.Event()

        async def listen(port: int) -> None:
            async with WebSocket.open(port, "/acp?agent=mock") as socket:
                await introduced(socket)
                ready.set()
                await socket.until(method="_sandboxagent/daemon/stopping")
                assert (await socket.end()).code == 1001

        async with serving(tmp_path) as daemon:
            nursery.start_soon(listen, daemon.port)
            await ready.wait()


async def test_a_socket_and_an_event_stream_tell_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(WITHIN):
            async with WebSocket.open(daemon.port, "/acp?agent=mock&session=both") as socket:
                session = await introduced(socket)
                remote = await Remote.connect(daemon, "?session=both")
                async with remote.events(session) as events:
                    await socket.send_json(prompt(3, session, "/stream 200"))
                    told: list[Json] = []
                    while (message := await socket.receive_json()).get("id") != 3:
                        told.append(message)
                    while len(events.seen) < len(told):
                        await events.until(lambda _: len(events.seen) >= len(told))
                    assert [one.message for one in events.seen] == told
