"""Prompts over HTTP: taken at once or waited for, in every kind of content, cancelled, and never taken twice."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sandbox_http.sessions.content import FILES_LIMIT
from support.session_client import SessionClient, session_client
from support.wire import Stream

if TYPE_CHECKING:
    from pathlib import Path

Json = Any
WITHIN = 30


async def ended(app: SessionClient, turn: str) -> Json:
    """A turn, when it is over."""
    async with app.stream(f"?turn={turn}&kind=turn.ended") as stream:
        await stream.until(b"turn.ended")
    return await app.get(f"/turns/{turn}")


async def test_a_prompt_is_taken_at_once_and_its_turn_can_be_followed(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        taken = await app.prompt("hello")
        assert taken["state"] in ("queued", "running", "ended")
        turn = await ended(app, taken["turnId"])
        assert (turn["seq"], turn["outcome"], turn["stopReason"]) == (taken["seq"], "completed", "end_turn")
        assert turn["createdAt"] <= turn["startedAt"] <= turn["endedAt"]
        assert (await app.get("/turns"))["turns"] == [turn]
        kinds = [one["kind"] for one in (await app.events(f"?after={taken['seq'] - 1}"))["events"]]
        assert kinds[0] == "turn.queued"
        assert kinds[-1] == "turn.ended"
        assert {"session/prompt", "turn.started", "agent_message_chunk", "response"} < set(kinds)


async def test_who_waits_gets_the_outcome_and_what_was_said(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        turn = await app.say("one\n/think hm\n/tool look\ntwo")
        assert (turn["outcome"], turn["stopReason"], turn["text"]) == ("completed", "end_turn", "one\n\ntwo")
        turn = await app.say("/error -32603 broken")
        assert (turn["outcome"], turn["text"], turn["error"]["detail"]) == ("failed", "", "broken")
        turn = await app.say("half\n/crash 3")
        assert (turn["outcome"], turn["text"]) == ("failed", "half")
        assert turn["error"]["type"].endswith("agent_process_exited")


async def test_a_client_waits_no_longer_than_it_prefers(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        answer = await app.ask("POST", "/prompt", {"content": "/silent"}, {"Prefer": "respond-async, wait=20"})
        assert (answer.status, answer.json["outcome"]) == (200, "completed")
        answer = await app.ask("POST", "/prompt", {"content": "/hang"}, {"Prefer": "wait=1"})
        assert (answer.status, answer.json["state"]) == (202, "running")


async def test_a_long_turn_keeps_the_connection_alive_and_its_end_is_told_in_the_body(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, AsyncExitStack() as stack:
        first, second = app.id, (await app.create())["id"]
        streams: list[Stream] = []
        for session in (first, second):
            app.id = session
            target, headers = app.target("/prompt?wait=true"), {"Content-Type": "application/json"}
            opening = Stream.open(app.daemon.port, target, headers, method="POST", body=b'{"content":"/hang"}')
            streams.append(await stack.enter_async_context(opening))
        for stream in streams:
            assert (stream.head.status, await stream.more()) == (200, b" ")
        assert (await app.ask("DELETE", "")).status == 204
        assert b'"outcome":"failed"' in await streams[1].rest()
        app.id = first
        assert len((await app.post("/cancel", status=202))["turnIds"]) == 1
        assert b'"outcome":"cancelled"' in await streams[0].rest()


async def test_blocks_arrive_as_they_were_sent(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        blocks = [
            {"type": "image", "mimeType": "image/png", "data": "AAAA", "annotations": {"priority": 1}},
            {"type": "audio", "mimeType": "audio/wav", "data": "AAAA"},
            {"type": "resource", "resource": {"uri": "file:///r", "text": "context"}},
            {"type": "resource_link", "uri": "file:///l", "name": "l"},
            {"type": "text", "text": "/recite"},
        ]
        turn = await app.say(blocks)
        assert turn["outcome"] == "completed"
        (asked,) = (await app.events("?kind=session/prompt"))["events"]
        assert asked["envelope"]["params"]["prompt"] == blocks


async def test_a_file_becomes_what_the_agent_understands(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        png, text, binary = b"\x89PNG", "grüße".encode(), b"\xff\x00"
        (tmp_path / "a b.png").write_bytes(png)
        (tmp_path / "notes.md").write_bytes(text)
        (tmp_path / "blob").write_bytes(binary)
        (tmp_path / "sound.wav").write_bytes(b"RIFF")
        names = ["a b.png", str(tmp_path / "notes.md"), "blob", "sound.wav"]
        files = [{"type": "file", "path": name} for name in names]
        assert (await app.say([*files, {"type": "file", "path": "blob", "mimeType": "text/x"}]))[
            "outcome"
        ] == "completed"
        (asked,) = (await app.events("?kind=session/prompt"))["events"]
        home = str(tmp_path)
        assert asked["envelope"]["params"]["prompt"] == [
            {
                "type": "image",
                "mimeType": "image/png",
                "data": base64.b64encode(png).decode(),
                "uri": f"file://{home}/a%20b.png",
            },
            {
                "type": "resource",
                "resource": {"uri": f"file://{home}/notes.md", "mimeType": "text/markdown", "text": "grüße"},
            },
            {
                "type": "resource",
                "resource": {
                    "uri": f"file://{home}/blob",
                    "mimeType": "application/octet-stream",
                    "blob": base64.b64encode(binary).decode(),
                },
            },
            {"type": "audio", "mimeType": "audio/x-wav", "data": base64.b64encode(b"RIFF").decode()},
            {
                "type": "resource",
                "resource": {
                    "uri": f"file://{home}/blob",
                    "mimeType": "text/x",
                    "blob": base64.b64encode(binary).decode(),
                },
            },
        ]


BAD_CONTENT: list[tuple[Json, str]] = [
    ("", "content"),
    ([], "blocks"),
    (5, "content"),
    (None, "content"),
    ([5], "content[0]"),
    ([{"type": "text"}], "content[0]"),
    ([{"type": "text", "text": "x"}, {"type": "song"}], "content[1]"),
    ([{"type": "image", "data": "x"}], "mimeType"),
    ([{"type": "resource", "resource": {"uri": "x"}}], "text or blob"),
    ([{"type": "file", "path": "no such file"}], "no such file"),
    ([{"type": "file", "path": "."}], "not a file"),
    ([{"type": "file", "path": "a\0b"}], "NUL"),
    ([{"type": "text", "text": "x"}] * 300, "blocks"),
]


async def test_content_that_makes_no_sense_is_refused_and_no_turn_begins(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        for content, said in BAD_CONTENT:
            answer = await app.ask("POST", "/prompt", {"content": content})
            assert (answer.status, answer.problem) == (400, "invalid_request"), (content, answer)
            assert said in answer.detail, (content, answer)
        for body in ({}, {"content": "x", "more": 1}, {"content": "x", "acpSessionId": "nobody's"}):
            answer = await app.ask("POST", "/prompt", body)
            assert (answer.status, answer.problem) == (400, "invalid_request"), body
        (tmp_path / "big").write_bytes(b"x" * (FILES_LIMIT + 1))
        answer = await app.ask("POST", "/prompt", {"content": [{"type": "file", "path": "big"}]})
        assert (answer.status, answer.problem) == (400, "invalid_request")
        assert "too large" in answer.detail
        assert (await app.get("/turns"))["turns"] == []


async def test_a_file_outside_of_the_root_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("hush")
    (root / "link").symlink_to(tmp_path / "secret")
    async with session_client(tmp_path, fs_root=root) as app:
        for path in (str(tmp_path / "secret"), str(root / "link"), f"{root}/../secret"):
            answer = await app.ask("POST", "/prompt", {"content": [{"type": "file", "path": path}]})
            assert answer.status in (400, 403), path
            assert b"hush" not in answer.body


async def test_the_same_key_is_the_same_turn(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        key = {"Idempotency-Key": "k"}
        first = await app.prompt("hello", **key)
        await ended(app, first["turnId"])
        again = await app.ask("POST", "/prompt?wait=true", {"content": "hello"}, key)
        assert (again.status, again.json["turnId"], again.json["text"]) == (200, first["turnId"], "hello")
        other = await app.ask("POST", "/prompt", {"content": "else"}, key)
        assert (other.status, other.problem) == (422, "idempotency_conflict")
        assert len((await app.events("?kind=session/prompt"))["events"]) == 1


async def test_what_waits_is_queued_up_to_the_limit_and_can_be_cancelled(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.ask("PATCH", "", {"queueLimit": 2})).status == 200
        ids = [(await app.prompt(text))["turnId"] for text in ("/hang", "second", "third")]
        answer = await app.ask("POST", "/prompt", {"content": "fourth"})
        assert (answer.status, answer.problem) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        view = await app.get()
        assert (view["runningTurnId"], view["queuedTurnIds"]) == (ids[0], ids[1:])
        assert await app.post("/cancel", {"turnId": ids[1]}, 202) == {"turnIds": [ids[1]]}
        assert (await app.get(f"/turns/{ids[1]}"))["outcome"] == "cancelled"
        assert await app.post("/cancel", {"turnId": ids[0]}, 202) == {"turnIds": [ids[0]]}
        assert (await ended(app, ids[0]))["stopReason"] == "cancelled"
        assert (await ended(app, ids[2]))["outcome"] == "completed"
        assert await app.post("/cancel", status=202) == {"turnIds": []}
        for body, status, name in (
            ({"turnId": "nobody"}, 404, "turn_not_found"),
            ({"turn": "x"}, 400, "invalid_request"),
        ):
            answer = await app.ask("POST", "/cancel", body)
            assert (answer.status, answer.problem) == (status, name)
        answer = await app.ask("GET", "/turns/nobody")
        assert (answer.status, answer.problem) == (404, "turn_not_found")


@pytest.mark.parametrize("stop", ["max_tokens", "refusal"])
async def test_the_agents_stop_reason_is_told_as_it_is(tmp_path: Path, stop: str) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.say(f"/stop {stop}"))["stopReason"] == stop


async def test_a_client_that_leaves_does_not_end_its_turn(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        with trio.move_on_after(0.2):
            await app.say("/sleep 0.5\ndone")
        (turn,) = (await app.get("/turns"))["turns"]
        assert (await ended(app, turn["turnId"]))["outcome"] == "completed"
