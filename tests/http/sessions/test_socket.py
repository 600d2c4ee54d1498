"""The WebSocket of a session: the frames of its streams come down, prompts, cancels and answers go up."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from support.session_client import session_client
from support.wire import Closed, WebSocket

if TYPE_CHECKING:
    from pathlib import Path

Json = Any


async def until_kind(socket: WebSocket, kind: str) -> Json:
    """The next event of a kind."""
    return await socket.until(type="event", kind=kind)


async def asked(socket: WebSocket, frame: Json) -> Json:
    """What a frame is answered with."""
    await socket.send_json(frame)
    while True:
        message = await socket.receive_json()
        if message["type"] in ("reply", "error") and message["id"] == frame.get("id"):
            return message


async def test_a_socket_tells_what_a_page_tells_and_goes_on(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("hello")
        page = await app.events()
        async with app.socket() as socket:
            events = [await socket.receive_json() for _ in page["events"]]
            assert events == page["events"]
            assert await socket.receive_json() == {"type": "replay_complete", "seq": page["head"]}
            await app.say("more")
            assert (await until_kind(socket, "turn.queued"))["seq"] == page["head"] + 1
        async with app.socket(f"?after={page['head']}&kind=turn.*") as socket:
            assert [(await socket.receive_json())["kind"] for _ in range(3)] == [
                "turn.queued",
                "turn.started",
                "turn.ended",
            ]


async def test_a_whole_conversation_goes_over_one_socket(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, app.socket("?after=latest") as socket:
        reply = await asked(socket, {"type": "prompt", "id": 1, "content": "/permission execute: ls", "key": "k"})
        assert (reply["type"], reply["state"] in ("queued", "running")) == ("reply", True)
        again = await asked(socket, {"type": "prompt", "id": "two", "content": "/permission execute: ls", "key": "k"})
        assert again["turnId"] == reply["turnId"]
        async with app.stream("?kind=permission.requested") as stream:
            await stream.until(b"permission.requested")
        (pending,) = (await app.get("/permissions"))["permissions"]
        option = next(one["optionId"] for one in pending["options"] if one["kind"] == "allow_once")
        frame = {"type": "permission", "id": 3, "permissionId": pending["permissionId"], "optionId": option}
        assert (await asked(socket, frame))["optionId"] == option
        late = await asked(socket, frame)
        assert (late["type"], late["problem"]["status"]) == ("error", 409)
        hanging = await asked(socket, {"type": "prompt", "id": 4, "content": "/hang"})
        cancelled = await asked(socket, {"type": "cancel", "id": [5], "turnId": hanging["turnId"]})
        assert cancelled == {"type": "reply", "id": [5], "turnIds": [hanging["turnId"]]}
        pong = await asked(socket, {"type": "ping", "id": None})
        assert 0 < pong["seq"] <= (await app.get())["head"]


BAD_FRAMES = [
    "",
    "not json",
    "[]",
    "5",
    "{}",
    '{"type":"song"}',
    '{"type":5}',
    '{"type":"prompt"}',
    '{"type":"prompt","content":5}',
    '{"type":"prompt","content":"x","key":5}',
    '{"type":"cancel","turnId":"nobody"}',
    '{"type":"permission","permissionId":"nobody","outcome":"cancelled"}',
    '{"type":"permission","permissionId":"nobody"}',
    '{"type":"ping"' + "[" * 5000,
    '{"type":"prompt","content":"\\ud83d"}',
    "\x00",
]


async def test_garbage_is_answered_and_never_closes_the_socket(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, app.socket("?after=latest") as socket:
        for frame in BAD_FRAMES:
            await socket.send(frame)
            answer = await socket.until(type="error")
            assert answer["problem"]["type"].startswith("urn:sandbox-agent:error:"), frame
            assert 400 <= answer["problem"]["status"] < 500, (frame, answer)
        answer = await asked(socket, {"type": "song", "id": {"a": 1}})
        assert answer["id"] == {"a": 1}
        assert (await asked(socket, {"type": "prompt", "id": 1, "content": "still here"}))["type"] == "reply"
        await until_kind(socket, "turn.ended")


@pytest.mark.parametrize("frame", [b"", b"{}"])
async def test_a_binary_frame_closes_the_socket_with_1003(tmp_path: Path, frame: bytes) -> None:
    async with session_client(tmp_path) as app, app.socket() as socket:
        await socket.send(frame)
        assert await socket.end() == Closed(1003, "only text frames are taken")


async def test_a_frame_that_is_too_large_closes_the_socket_with_1009(tmp_path: Path) -> None:
    async with session_client(tmp_path, max_body=10_000) as app, app.socket() as socket:
        await socket.send(" " * 10_001)
        assert (await socket.end()).code == 1009


async def test_deleting_the_session_closes_the_socket_behind_the_last_frame(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, app.socket() as socket:
        await socket.until(type="replay_complete")
        assert (await app.ask("DELETE", "")).status == 204
        assert await socket.until(type="deleted") == {"type": "deleted"}
        assert await socket.receive() == Closed(4404, "the session was deleted")


async def test_a_socket_of_a_session_that_is_not_there_is_refused(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        for query in ("?after=x", "?kind=a" + "&kind=a" * 80):
            async with app.socket(query) as socket:
                assert socket.refusal is not None
                assert socket.refusal.problem == "invalid_request"
        app.id = "nobody"
        async with app.socket() as socket:
            assert socket.refusal is not None
            assert (socket.refusal.status, socket.refusal.problem) == (404, "session_not_found")


async def events_until(socket: WebSocket, last: int) -> list[Json]:
    """The events up to a number."""
    events: list[Json] = []
    while not events or events[-1]["seq"] != last:
        events.append(await socket.until(type="event"))
    return events


async def test_ten_readers_see_the_same(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(app.socket()) for _ in range(10)]
            await app.say("/stream 300")
            head = (await app.get())["head"]
            seen = [await events_until(socket, head) for socket in sockets]
        assert all(events == seen[0] for events in seen)
        assert [event["seq"] for event in seen[0]] == list(range(1, head + 1))
