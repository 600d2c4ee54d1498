"""Forks over HTTP: a session that goes on from where another one was, and what cannot be forked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from support.clients import Session
from support.serving import serving
from support.session_client import SessionClient, session_client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Json = Any
WITHIN = 30
NONE: list[str] = []


async def fork(app: SessionClient, body: Json = None, **headers: str) -> SessionClient:
    """A fork of the session that is meant."""
    answer = await app.ask("POST", "/fork", body, headers)
    assert answer.status == 201, answer
    assert answer.headers["location"] == f"/v1/sessions/{answer.json['id']}"
    made = SessionClient(app.daemon)
    made.id = answer.json["id"]
    return made


async def recited(app: SessionClient) -> list[str]:
    """What the agent knows to have been said."""
    return [line.partition("] ")[2] for line in (await app.say("/recite"))["text"].splitlines()[1:]]


async def said_to_agent(app: SessionClient) -> list[Json]:
    """What was said in a session about forks, and the names of the methods."""
    events = (await app.events("?limit=10000"))["events"]
    return [one["envelope"] for one in events if one["kind"] in ("session/fork", "session/close", "session/delete")]


def mock(tmp_path: Path, **environment: str) -> Mapping[str, list[str]]:
    """A mock agent that is told something by its environment."""
    told = [f"{name}={value}" for name, value in environment.items()]
    return {"other": ["/usr/bin/env", *told, sys.executable, "-m", "sandbox_actors.mock"]}


async def test_a_fork_knows_what_was_said_and_goes_its_own_way(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("the beginning")
        other = await fork(app)
        await app.say("here")
        await other.say("there")
        assert await recited(app) == ["the beginning", "here"]
        assert await recited(other) == ["the beginning", "there"]


async def test_a_fork_has_the_terms_of_its_source_but_for_those_that_are_named(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        terms: Json = {
            "cwd": str(tmp_path),
            "env": {"GREETING": "hello"},
            "mcpServers": [{"name": "m", "command": "/bin/true", "args": NONE, "env": NONE}],
            "permissionPolicy": "deny_all",
            "title": "One",
            "tags": {"a": "b"},
            "idleLimitMs": 60000,
            "turnDeadlineMs": 50000,
            "queueLimit": 3,
            "model": "mock-fast",
        }
        await app.create(**terms)
        await app.ask("PATCH", "", {"mode": "plan", "config": {"thought_level": "high"}})
        await app.say("hello")
        source = await app.get()
        kept = ("agent", "native", "cwd", "env", "permissionPolicy", "idleLimitMs", "turnDeadlineMs", "queueLimit")
        same = await (await fork(app)).get()
        assert {name: same[name] for name in (*kept, "title", "tags", "mode", "model", "config")} == {
            name: source[name] for name in (*kept, "title", "tags", "mode", "model", "config")
        }
        assert source["forkedFrom"] is None
        changes: Json = {"id": "two", "title": None, "tags": {}, "mode": "normal", "model": "mock"}
        other = await fork(app, {**changes, "config": {"thought_level": "low"}})
        view = await other.get()
        assert {name: view[name] for name in kept} == {name: source[name] for name in kept}
        assert {name: view[name] for name in changes} == changes
        assert view["config"] == {"model": "mock", "mode": "normal", "thought_level": "low"}
        assert (await other.say("/env GREETING"))["text"] == "GREETING=hello"


async def test_the_source_is_as_it_was_and_tells_of_its_fork(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("hello")
        before = await app.get()
        other = await fork(app, {"id": "two"})
        after = await app.get()
        for name in ("acpSessionId", "acpSessionIds", "pid", "incarnation", "state"):
            assert after[name] == before[name], name
        asked, closed = await said_to_agent(app)
        forked_from = (await other.get())["forkedFrom"]
        assert forked_from["id"] == app.id
        (event,) = (await app.events("?kind=session/fork"))["events"]
        assert event["seq"] == forked_from["seq"]
        assert asked["params"]["sessionId"] == before["acpSessionId"]
        # It is open in one process only.
        assert (closed["method"], closed["params"]["sessionId"]) == (
            "session/close",
            (await other.get())["acpSessionId"],
        )
        (told,) = (await app.events("?kind=session.forked"))["events"]
        assert told["envelope"]["params"] == {"into": "two"}
        (created,) = (await other.events("?kind=session.created"))["events"]
        assert created["envelope"]["params"]["forkedFrom"] == forked_from


async def test_a_session_in_which_nothing_was_said_and_one_that_sleeps_can_be_forked(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        other = await fork(app)
        await other.say("first")
        assert (await other.ask("POST", "/hibernate")).status == 202
        third = await fork(other)
        assert await recited(third) == ["first"]
        assert (await third.get())["forkedFrom"]["id"] == other.id


async def test_where_one_agent_may_run_the_source_makes_room_for_its_fork(tmp_path: Path) -> None:
    async with session_client(tmp_path, max_agents=1) as app:
        await app.say("hello")
        other = await fork(app)
        assert (await app.get())["state"] == "hibernated"
        assert await recited(other) == ["hello"]


async def test_where_a_fork_is_from_is_known_after_a_restart_of_the_daemon(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, state_dir=tmp_path / "state") as daemon:
            app = SessionClient(daemon)
            await app.create(id="one")
            await app.say("before")
            told = (await (await fork(app, {"id": "two"})).get())["forkedFrom"]
        async with serving(tmp_path, state_dir=tmp_path / "state") as daemon:
            app = SessionClient(daemon)
            app.id = "two"
            view = await app.get()
            assert (view["forkedFrom"], view["state"]) == (told, "hibernated")
            assert await recited(app) == ["before"]


async def test_a_raw_clients_session_is_forked_into_one_of_the_native_api(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        raw = Session(app.daemon, "raw")
        await raw.open()
        app.id = "raw"
        await app.say("hello")
        other = await fork(app)
        assert (await other.get())["native"] is True
        assert await recited(other) == ["hello"]
        assert len((await app.get())["acpSessionIds"]) == 1


async def test_the_same_idempotency_key_is_the_same_fork(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        key = {"Idempotency-Key": "k"}
        made = await fork(app, {"title": "x"}, **key)
        again = await app.ask("POST", "/fork", {"title": "x"}, key)
        assert (again.status, again.json["id"]) == (200, made.id)
        other = await app.ask("POST", "/fork", {"title": "y"}, key)
        assert (other.status, other.problem) == (422, "idempotency_conflict")
        assert len((await app.events("?kind=session/fork"))["events"]) == 1


async def test_a_session_whose_agent_works_is_not_forked(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.prompt("/hang")
        answer = await app.ask("POST", "/fork")
        assert (answer.status, answer.problem) == (409, "session_busy")
        await app.ask("POST", "/cancel")
        await app.post("/close")
        answer = await app.ask("POST", "/fork")
        assert (answer.status, answer.problem) == (409, "session_closed")
        assert len(await list_all(app)) == 1


async def list_all(app: SessionClient) -> list[str]:
    everything = SessionClient(app.daemon)
    return [one["id"] for one in (await everything.get())["sessions"]]


REFUSED: list[tuple[Json, int, str, str]] = [
    ({"id": "a/b"}, 400, "invalid_request", "id"),
    ({"mode": "unheard"}, 400, "invalid_request", "unheard"),
    ({"config": {"unheard": "x"}}, 400, "invalid_request", "unheard"),
    ({"cwd": "/"}, 400, "invalid_request", "cwd"),
    ({"mode": None}, 400, "invalid_request", "mode"),
    ({"id": "taken"}, 409, "conflict", "taken"),
]


async def test_what_makes_no_sense_is_refused_before_the_agent_is_asked(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.create(id="taken")
        for body, status, name, said in REFUSED:
            answer = await app.ask("POST", "/fork", body)
            assert (answer.status, answer.problem) == (status, name), (body, answer)
            assert said in answer.detail
        assert await said_to_agent(app) == []


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [
        ("load,resume,close", "sessionCapabilities.fork"),
        ("fork,close", "neither sessionCapabilities.resume nor loadSession"),
    ],
)
async def test_an_agent_that_cannot_says_what_it_lacks(tmp_path: Path, capabilities: str, missing: str) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=mock(tmp_path, MOCK_AGENT_CAPABILITIES=capabilities)) as daemon:
            app = SessionClient(daemon)
            await app.create("other")
            answer = await app.ask("POST", "/fork")
            assert (answer.status, answer.problem) == (501, "not_supported")
            assert missing in answer.detail
            assert await said_to_agent(app) == []


async def test_a_fork_that_can_only_be_loaded_is_loaded(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=mock(tmp_path, MOCK_AGENT_CAPABILITIES="fork,load")) as daemon:
            app = SessionClient(daemon)
            await app.create("other")
            await app.say("hello")
            other = await fork(app)
            assert await recited(other) == ["hello"]
            assert [one["method"] for one in await said_to_agent(app)] == ["session/fork"]


FORGETFUL = """
import json, sys
ABLE = {"loadSession": True, "sessionCapabilities": {"fork": {}, "close": {}, "delete": {}}}
ANSWERS = {
    "initialize": {"protocolVersion": 1, "agentCapabilities": ABLE},
    "session/new": {"sessionId": "a"},
    "session/fork": {"sessionId": "b"},
    "session/close": {},
    "session/delete": {},
}
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "session/fork" and FAILS:
        if FAILS == "dies":
            sys.exit(3)
        answer = {"error": {"code": -32000, "message": "not today"}}
    elif asked["method"] in ANSWERS:
        answer = {"result": ANSWERS[asked["method"]]}
    else:
        answer = {"error": {"code": -32002, "message": "what session?"}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
"""


def forgetful(tmp_path: Path, fails: str = "") -> Mapping[str, list[str]]:
    """An agent whose forks cannot be loaded, or that makes none."""
    program = tmp_path / "forgetful.py"
    program.write_text(f"FAILS = {fails!r}\n{FORGETFUL}")
    return {"forgetful": [sys.executable, str(program)]}


async def test_where_the_new_session_does_not_open_nothing_is_left(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=forgetful(tmp_path)) as daemon:
            app = SessionClient(daemon)
            await app.create("forgetful", id="one")
            answer = await app.ask("POST", "/fork", {"id": "two"})
            assert (answer.status, answer.problem) == (502, "session_open_failed")
            assert answer.json["agentMessage"] == "what session?"
            assert await list_all(app) == ["one"]
            async with app.stream("?kind=session/delete") as stream:
                await stream.until(b"session/delete")
            said = [(one["method"], one["params"]["sessionId"]) for one in await said_to_agent(app)]
            assert said == [("session/fork", "a"), ("session/close", "b"), ("session/delete", "b")]
            assert (await app.events("?kind=session.forked"))["events"] == []
            assert (await app.get())["acpSessionIds"] == ["a"]


@pytest.mark.parametrize(
    ("fails", "status", "name"), [("refuses", 502, "session_open_failed"), ("dies", 500, "agent_process_exited")]
)
async def test_an_agent_that_makes_no_fork_is_told_of(tmp_path: Path, fails: str, status: int, name: str) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=forgetful(tmp_path, fails)) as daemon:
            app = SessionClient(daemon)
            await app.create("forgetful", id="one")
            answer = await app.ask("POST", "/fork")
            assert (answer.status, answer.problem) == (status, name), answer
            assert fails != "refuses" or "not today" in answer.detail
            assert await list_all(app) == ["one"]
