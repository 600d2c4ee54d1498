"""Sessions over HTTP: made, shown, listed, changed, closed, deleted; and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from support.clients import Session
from support.serving import script, serving
from support.session_client import SessionClient, session_client
from support.wire import Stream, request_bytes

if TYPE_CHECKING:
    from pathlib import Path

Json = Any
WITHIN = 30


async def test_a_new_session_is_shown_as_the_agent_tells_it(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        app.id = ""
        answer = await app.ask(
            "POST",
            "",
            {
                "agent": "mock",
                "id": "my session",
                "cwd": str(tmp_path),
                "env": {"SECRET": "hush"},
                "mode": "plan",
                "model": "mock-fast",
                "config": {"thought_level": "high"},
                "permissionPolicy": "allow_reads",
                "title": "T",
                "tags": {"team": "a"},
                "idleLimitMs": 60000,
                "turnDeadlineMs": 5000,
                "queueLimit": 2,
                "mcpServers": [],
            },
        )
        assert (answer.status, answer.headers["location"]) == (201, "/v1/sessions/my%20session")
        view = answer.json
        expected = {
            "id": "my session",
            "agent": "mock",
            "state": "ready",
            "native": True,
            "title": "T",
            "tags": {"team": "a"},
            "cwd": str(tmp_path),
            "env": ["SECRET"],
            "mode": "plan",
            "model": "mock-fast",
            "permissionPolicy": "allow_reads",
            "idleLimitMs": 60000,
            "turnDeadlineMs": 5000,
            "queueLimit": 2,
            "runningTurnId": None,
            "queuedTurnIds": [],
            "pendingPermissions": 0,
            "incarnation": 1,
            "floor": 1,
        }
        assert {name: view[name] for name in expected} == expected
        assert view["config"]["thought_level"] == "high"
        assert view["modes"]["currentModeId"] == "plan"
        assert [option["id"] for option in view["configOptions"]] == ["model", "mode", "thought_level"]
        assert view["capabilities"]["loadSession"] is True
        assert view["agentInfo"]["name"] == "mock"
        assert view["acpSessionIds"] == [view["acpSessionId"]]
        assert view["createdAt"].endswith("Z")
        assert view["head"] >= 1
        assert b"hush" not in answer.body
        app.id = "my%20session"
        assert (await app.get())["id"] == "my session"
        assert (await app.say("/env SECRET"))["text"] == "SECRET=hush"


REFUSED: list[tuple[Json, int, str, str]] = [
    ({"agent": "nobody"}, 400, "unsupported_agent", "nobody"),
    ({}, 400, "invalid_request", "agent"),
    ({"agent": "mock", "cwd": "relative"}, 400, "invalid_request", "cwd"),
    ({"agent": "mock", "cwd": "/nowhere/at/all"}, 400, "invalid_request", "/nowhere/at/all"),
    ({"agent": "mock", "id": ""}, 400, "invalid_request", "id"),
    ({"agent": "mock", "permissionPolicy": "sometimes"}, 400, "invalid_request", "permissionPolicy"),
    ({"agent": "mock", "permissionPolicy": {"rules": [{"decision": "x"}]}}, 400, "invalid_request", "rules"),
    ({"agent": "mock", "permisionPolicy": "deny_all"}, 400, "invalid_request", "permisionPolicy"),
    ({"agent": "mock", "env": {"A": 1}}, 400, "invalid_request", "env"),
    ({"agent": "mock", "env": {"": "x"}}, 400, "invalid_request", "env"),
    ({"agent": "mock", "mcpServers": ["x"]}, 400, "invalid_request", "mcpServers"),
    ({"agent": "mock", "idleLimitMs": -1}, 400, "invalid_request", "idleLimitMs"),
    ({"agent": "mock", "mode": "unheard"}, 400, "invalid_request", "unheard"),
    ({"agent": "mock", "resume": "unheard"}, 502, "session_open_failed", ""),
]


async def test_what_makes_no_sense_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path) as daemon:
            app = SessionClient(daemon)
            for body, status, name, said in REFUSED:
                answer = await app.ask("POST", "", body)
                assert (answer.status, answer.problem) == (status, name), (body, answer)
                assert said in answer.detail, (body, answer)
            answer = await app.ask("POST", "", raw=b"{", headers={"Content-Type": "application/json"})
            assert (answer.status, answer.problem) == (400, "invalid_request")
            answer = await app.ask("POST", "", {"agent": "mock"}, {"Content-Type": "text/plain"})
            assert (answer.status, answer.problem) == (415, "unsupported_media_type")
            assert await app.get() == {"sessions": [], "nextCursor": None}


async def test_an_agent_that_does_not_start_or_does_not_open_is_told(tmp_path: Path) -> None:
    agents = {
        "absent": [str(tmp_path / "no such program")],
        "deaf": script(tmp_path / "deaf.py", 'heard()\nsay(\'{"jsonrpc":"2.0","id":0}\')\nsys.exit(3)\n'),
    }
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=agents) as daemon:
            app = SessionClient(daemon)
            for agent, status in (("absent", 502), ("deaf", 502)):
                answer = await app.ask("POST", "", {"agent": agent})
                assert answer.status in (status, 404), answer
                assert answer.problem
            assert (await app.get())["sessions"] == []


async def test_an_agent_that_wants_a_login_is_a_failed_dependency(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, environment={"MOCK_AGENT_AUTH": "1"}) as daemon:
            answer = await SessionClient(daemon).ask("POST", "", {"agent": "mock"})
            assert (answer.status, answer.problem) == (424, "agent_auth_required")


async def test_a_client_that_leaves_while_its_session_is_made_leaves_nothing(tmp_path: Path) -> None:
    agents = {"slow": script(tmp_path / "slow.py", "heard()\nheard()\n")}
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=agents) as daemon:
            app = SessionClient(daemon)
            body = b'{"agent":"slow"}'
            request = request_bytes("POST", "/v1/sessions", {"Content-Type": "application/json"}, body)
            async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
                await stream.send_all(request)
                while not (await app.get())["sessions"]:
                    await trio.lowlevel.checkpoint()
            while (await app.get())["sessions"]:
                await trio.lowlevel.checkpoint()


async def test_an_agent_that_takes_long_keeps_the_connection_alive(tmp_path: Path) -> None:
    agents = {"dying": script(tmp_path / "dying.py", "heard()\ntime.sleep(5.5)\nsys.exit(3)\n")}
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, agents=agents) as daemon:
            headers, body = {"Content-Type": "application/json"}, b'{"agent":"dying"}'
            async with Stream.open(daemon.port, "/v1/sessions", headers, method="POST", body=body) as stream:
                assert (stream.head.status, await stream.more()) == (200, b" ")
                problem = json.loads(await stream.rest())["error"]
                assert problem["type"] == "urn:sandbox-agent:error:session_open_failed"


async def test_the_same_idempotency_key_is_the_same_session(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        app.id = ""
        key = {"Idempotency-Key": "k1"}
        first = await app.ask("POST", "", {"agent": "mock", "title": "x"}, key)
        again = await app.ask("POST", "", {"agent": "mock", "title": "x"}, key)
        other = await app.ask("POST", "", {"agent": "mock", "title": "y"}, key)
        assert (first.status, again.status) == (201, 200)
        assert first.json["id"] == again.json["id"]
        assert again.headers["location"] == first.headers["location"]
        assert (other.status, other.problem) == (422, "idempotency_conflict")
        empty = await app.ask("POST", "", {"agent": "mock"}, {"Idempotency-Key": "k" * 257})
        assert (empty.status, empty.problem) == (400, "invalid_request")


async def test_an_id_that_is_taken_is_a_conflict(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        taken, app.id = app.id, ""
        answer = await app.ask("POST", "", {"agent": "mock", "id": taken})
        assert (answer.status, answer.problem) == (409, "conflict")


async def test_sessions_are_listed_filtered_and_page_by_page(tmp_path: Path) -> None:
    async with session_client(tmp_path, agents={"other": ["python3", "-m", "sandbox_actors.mock"]}) as app:
        app.id = ""
        for name in ("a", "b", "c"):
            await app.create(id=name, tags={"team": name, "all": "x:y"})
        await app.ask("POST", "/hibernate")
        app.id = ""
        ids: list[str] = []
        cursor = ""
        while True:
            page = await app.get(f"?limit=2&native=true&tag=all:x:y{cursor}")
            assert len(page["sessions"]) <= 2
            ids += [one["id"] for one in page["sessions"]]
            if page["nextCursor"] is None:
                break
            cursor = f"&cursor={page['nextCursor']}"
        assert ids == ["a", "b", "c"]
        for query, found in (
            ("?tag=team:b", ["b"]),
            ("?tag=team:b&tag=team:c", []),
            ("?native=false", []),
            ("?agent=other", []),
        ):
            assert [one["id"] for one in (await app.get(query))["sessions"]] == found, query
        for query in ("?limit=0", "?limit=x", "?state=tired", "?tag=team", "?native=1"):
            answer = await app.ask("GET", query)
            assert (answer.status, answer.problem) == (400, "invalid_request"), query


async def test_what_is_said_of_a_session_can_be_changed(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        changes = {
            "title": "New",
            "tags": {"a": "b"},
            "mode": "plan",
            "config": {"thought_level": "low"},
            "permissionPolicy": {"rules": [{"decision": "deny", "kind": "execute"}]},
            "queueLimit": 0,
            "turnDeadlineMs": None,
        }
        answer = await app.ask("PATCH", "", changes)
        assert answer.status == 200, answer
        assert {"title": "New", "tags": {"a": "b"}, "queueLimit": 0}.items() <= answer.json.items()
        assert answer.json["permissionPolicy"] == {"rules": [{"decision": "deny", "kind": "execute"}]}
        assert '"mode": "plan"' in (await app.say("/state"))["text"]
        view = await app.get()
        assert (view["mode"], view["config"]["thought_level"]) == ("plan", "low")
        assert (await app.events("?kind=session.updated"))["events"]
        bad: list[Json] = [{"cwd": "/"}, {"mode": None}, {"tags": None}, {"title": 1}, [], "x"]
        for body in bad:
            refused = await app.ask("PATCH", "", body)
            assert (refused.status, refused.problem) == (400, "invalid_request"), body


async def test_a_closed_session_stays_readable_and_takes_no_prompts(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("hello")
        assert (await app.post("/close"))["state"] == "closed"
        assert (await app.get())["state"] == "closed"
        answer = await app.ask("POST", "/prompt", {"content": "more"})
        assert (answer.status, answer.problem) == (409, "session_closed")
        assert "hello" in (await app.ask("GET", "/transcript")).body.decode()
        assert (await app.ask("DELETE", "")).status == 204
        assert (await app.ask("GET", "")).status == 404


async def test_a_session_hibernates_and_wakes_with_its_next_prompt(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("remember me")
        assert (await app.ask("POST", "/hibernate")).status == 202
        async with app.stream("?kind=agent.exited") as stream:
            await stream.until(b"agent.exited")
        view = await app.get()
        assert (view["state"], view["pid"]) == ("hibernated", None)
        assert "remember me" in (await app.say("/recite"))["text"]
        assert (await app.get())["incarnation"] == 2


async def test_a_restart_ends_the_agent_and_keeps_the_conversation(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("remember me")
        assert (await app.ask("POST", "/restart")).status == 202
        assert "remember me" in (await app.say("/recite"))["text"]
        assert (await app.get())["incarnation"] == 2


async def test_what_a_session_cannot_do_is_refused(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.prompt("/hang")
        answer = await app.ask("POST", "/hibernate")
        assert (answer.status, answer.problem) == (409, "session_busy")


async def test_a_session_that_is_not_there_is_not_found_on_any_route(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        app.id = "nobody"
        asked: list[tuple[str, str, Json]] = [
            ("GET", "", None),
            ("PATCH", "", {}),
            ("DELETE", "", None),
            *[("POST", f"/{what}", None) for what in ("close", "restart", "hibernate", "fork", "cancel")],
            ("POST", "/prompt", {"content": "x"}),
            ("POST", "/permissions/p", {"outcome": "cancelled"}),
            *[("GET", f"/{what}", None) for what in ("turns", "turns/t", "events", "transcript", "usage")],
            ("GET", "/permissions", None),
        ]
        for method, path, body in asked:
            answer = await app.ask(method, path, body)
            assert (answer.status, answer.problem) == (404, "session_not_found"), (method, path)


async def test_a_raw_clients_session_is_there_as_well(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        raw = Session(app.daemon, "raw")
        await raw.open()
        app.id = ""
        assert [one["id"] for one in (await app.get("?native=false"))["sessions"]] == ["raw"]
        app.id = "raw"
        assert (await app.say("hello"))["text"] == "hello"
