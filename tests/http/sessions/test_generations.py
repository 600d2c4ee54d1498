"""Owners of a session that have a number: the newest one acts, those before are refused, also after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from support.daemon import running
from support.session_client import SessionClient, session_client
from support.wire import UPGRADE

if TYPE_CHECKING:
    from pathlib import Path

    from support.wire import Answer, WebSocket

Json = Any
WITHIN = 40
ACTS: list[tuple[str, str, Json]] = [
    ("POST", "/prompt", {"content": "x"}),
    ("POST", "/cancel", None),
    ("POST", "/permissions/perm_x", {"outcome": "cancelled"}),
    ("PATCH", "", {"title": "x"}),
    ("POST", "/hibernate", None),
    ("POST", "/restart", None),
    ("POST", "/fork", None),
    ("POST", "/close", None),
    ("DELETE", "", None),
]
"""Everything that does something to a session."""


def of(generation: object) -> dict[str, str]:
    return {"Sandbox-Agent-Generation": str(generation)}


async def claim(app: SessionClient, generation: int) -> None:
    """Become the owner, and do nothing else."""
    answer = await app.ask("PATCH", "", {}, of(generation))
    assert (answer.status, answer.json["generation"]) == (200, generation), answer


def is_stale(answer: Answer, generation: int, current: int) -> None:
    assert (answer.status, answer.problem) == (409, "stale_generation"), answer
    assert (answer.json["generation"], answer.json["current"]) == (generation, current)


async def kinds(app: SessionClient) -> list[str]:
    return [one["kind"] for one in (await app.events("?limit=10000"))["events"]]


async def test_an_owner_before_does_nothing_any_more(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await claim(app, 3)
        before = await app.get()
        for method, path, body in ACTS:
            is_stale(await app.ask(method, path, body, of(2)), 2, 3)
        assert {**await app.get(), "lastActiveAt": None} == {**before, "lastActiveAt": None}
        assert (await app.events(f"?after={before['head']}"))["events"] == []


async def test_an_owner_before_may_still_look(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await claim(app, 2)
        for path in ("", "/events", "/turns", "/permissions", "/transcript", "/usage"):
            assert (await app.ask("GET", path, None, of(1))).status == 200, path


async def test_the_newest_owner_and_who_is_none_are_let_through(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await claim(app, 5)
        for headers in (of(5), {}, of(6), of(2**63 - 1)):
            answer = await app.ask("POST", "/prompt?wait=true", {"content": "hello"}, headers)
            assert (answer.status, answer.json["outcome"]) == (200, "completed")
        is_stale(await app.ask("POST", "/prompt", {"content": "hello"}, of(6)), 6, 2**63 - 1)


async def test_the_events_tell_once_when_the_owner_changes(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.get())["generation"] == 0
        head = (await app.get())["head"]
        for generation in (1, 1, 4):
            answer = await app.ask("POST", "/prompt?wait=true", {"content": "hi"}, of(generation))
            assert answer.status == 200
        events = (await app.events(f"?after={head}&kind=session.*&kind=turn.queued"))["events"]
        assert [one["kind"] for one in events] == [
            "session.claimed",
            "turn.queued",
            "turn.queued",
            "session.claimed",
            "turn.queued",
        ]
        assert [one["envelope"]["params"]["generation"] for one in events if one["kind"] == "session.claimed"] == [1, 4]
        assert (await app.get())["generation"] == 4


async def test_what_was_taken_from_an_owner_before_goes_on(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        first = (await app.ask("POST", "/prompt", {"content": "/sleep 0.3"}, of(1))).json["turnId"]
        second = (await app.ask("POST", "/prompt", {"content": "hello"}, {**of(1), "Idempotency-Key": "k"})).json
        await claim(app, 2)
        async with app.stream(f"?turn={second['turnId']}") as stream:
            await stream.until(b"turn.ended")
        for turn in (first, second["turnId"]):
            assert (await app.get(f"/turns/{turn}"))["outcome"] == "completed"
        # Whoever is not the owner any more is told so, even where there is nothing left to do.
        again = await app.ask("POST", "/prompt", {"content": "hello"}, {**of(1), "Idempotency-Key": "k"})
        is_stale(again, 1, 2)


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "+1", "\N{FULLWIDTH DIGIT ONE}", str(2**63), "9" * 400])
async def test_what_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    async with session_client(tmp_path) as app:
        answer = await app.ask("PATCH", "", {}, {"Sandbox-Agent-Generation": text.encode().decode("latin-1")})
        assert (answer.status, answer.problem) == (400, "invalid_request")
        if text.isascii():
            handshake = {**app.daemon.headers, **UPGRADE}
            refused = await app.ask("GET", f"/events?generation={text}", None, handshake)
            assert (refused.status, refused.problem) == (400, "invalid_request")
        assert (await app.get())["generation"] == 0


async def asked(socket: WebSocket, frame: Json) -> Json:
    await socket.send_json(frame)
    return await socket.until(id=frame["id"])


async def test_a_socket_is_checked_at_each_frame(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, app.socket("?after=latest&generation=7") as socket:
        assert (await asked(socket, {"type": "prompt", "id": 1, "content": "hello"}))["type"] == "reply"
        assert (await app.get())["generation"] == 7
        await claim(app, 8)
        frames = [
            {"type": "prompt", "id": 2, "content": "late"},
            {"type": "cancel", "id": 3},
            {"type": "permission", "id": 4, "permissionId": "perm_x", "outcome": "cancelled"},
        ]
        for frame in frames:
            answer = await asked(socket, frame)
            assert (answer["type"], answer["problem"]["type"]) == ("error", "urn:sandbox-agent:error:stale_generation")
            assert (answer["problem"]["generation"], answer["problem"]["current"]) == (7, 8)
        assert (await asked(socket, {"type": "ping", "id": 5}))["type"] == "reply"
        # It is no reason to close: the events go on.
        await app.say("by somebody else")
        assert (await socket.until(kind="turn.queued"))["type"] == "event"


async def test_a_closed_session_can_be_claimed_and_deleted_by_its_owner_alone(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.ask("POST", "/close", None, of(2))).status == 200
        is_stale(await app.ask("DELETE", "", None, of(1)), 1, 2)
        assert (await app.ask("DELETE", "", None, of(3))).status == 204
        assert (await app.ask("GET", "")).status == 404


@pytest.mark.parametrize("act", ["prompt", "restart", "cancel"])
async def test_a_crash_of_the_daemon_lets_nobody_in_again(tmp_path: Path, act: str) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path) as daemon:
            app = SessionClient(daemon)
            await app.create(cwd=str(tmp_path))
            body = {"content": "hello"} if act == "prompt" else {}
            assert (await app.ask("POST", f"/{act}", body, of(2))).status == 202
            await daemon.kill()
            await daemon.start()
            assert (await app.get())["generation"] == 2
            for method, path, body in ACTS:
                is_stale(await app.ask(method, path, body, of(1)), 1, 2)
            assert (await app.ask("POST", "/prompt?wait=true", {"content": "on"}, of(2))).json["outcome"] == "completed"


async def test_of_two_owners_who_race_the_older_one_never_acts_after_the_newer(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.post("/hibernate", {}, 202)

        async def act(generation: int) -> None:
            for number in range(20):
                headers = {**of(generation), "Idempotency-Key": f"{generation}-{number}"}
                answer = await app.ask("POST", "/cancel", {}, headers)
                assert answer.status == 202 or answer.problem == "stale_generation", answer
                title = {"title": f"{generation}"}
                answer = await app.ask("PATCH", "", title, headers)
                assert answer.status == 200 or answer.problem == "stale_generation", answer

        async with trio.open_nursery() as nursery:
            for generation in (1, 2, 3):
                nursery.start_soon(act, generation)
        owner = 0
        for event in (await app.events("?limit=10000&kind=session.claimed&kind=session.updated"))["events"]:
            params = event["envelope"]["params"]
            if event["kind"] == "session.claimed":
                assert params["generation"] > owner
                owner = params["generation"]
            else:
                assert params["changes"]["title"] == str(owner)
        assert owner == 3
