"""Permissions that many answer at once, and that are taken away meanwhile: each is settled once, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import AsyncExitStack, closing
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from support.daemon import running
from support.processes import eventually
from support.serving import Resources
from support.session_client import SessionClient, session_client
from support.wire import WebSocket, exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

Json = Any

ROUNDS = 8
POSTING, TALKING, RAW = 4, 3, 3
"""How many clients there are of each kind: ten in all."""

ANSWERS: tuple[Json, ...] = ({"optionId": "yes"}, {"optionId": "no"}, {"outcome": "cancelled"})
SAID = {"yes": "allow_once", "no": "reject_once", None: "cancelled"}
"""What the agent calls the options that it offers."""


async def asking(app: SessionClient) -> Json:
    """The permission that a new turn waits for, with the ids of both."""
    turn = await app.prompt("/permission execute: ls")
    async with app.stream(f"?after={turn['seq']}&kind=permission.requested") as stream:
        await stream.until(b"permission.requested")
    (pending,) = (await app.get("/permissions"))["permissions"]
    return {**pending, "turnId": turn["turnId"]}


async def ended(app: SessionClient, turn: str) -> Json:
    async with app.stream(f"?turn={turn}&kind=turn.ended") as stream:
        await stream.until(b"turn.ended")
    return await app.get(f"/turns/{turn}")


async def told(app: SessionClient, kind: str) -> list[Json]:
    """What the notices of a kind say, oldest first."""
    return [one["envelope"]["params"] for one in (await app.events(f"?kind={kind}"))["events"]]


async def answer_raw(app: SessionClient, request_id: Json, option: str | None) -> int:
    """Answer as a client of the raw wire does; gives the status."""
    outcome = {"outcome": "cancelled"} if option is None else {"outcome": "selected", "optionId": option}
    envelope = {"jsonrpc": "2.0", "id": request_id, "result": {"outcome": outcome}}
    headers = {"Content-Type": "application/json", **app.daemon.headers}
    target = f"/v1/acp/{app.id}"
    return (await exchange(app.daemon.port, "POST", target, headers, json.dumps(envelope).encode())).status


async def resolution_on(socket: WebSocket, permission: str) -> Json:
    """What a client that follows is told."""
    while True:
        params = (await socket.until(type="event", kind="permission.resolved"))["envelope"]["params"]
        if params["permissionId"] == permission:
            return params


class Race:
    """Everybody answers one permission, at once.

    Attributes:
      won: the answers of those that were told that theirs counts.
      lost: the problems that the others got.
      seen: the resolution as each of those that follow saw it.
    """

    def __init__(self, app: SessionClient, pending: Json, whims: Random) -> None:
        self.won: list[Json] = []
        self.lost: list[Json] = []
        self.seen: list[Json] = []
        self._app = app
        self._pending = pending
        self._whims = whims
        self._start = trio.Event()

    async def run(self, sockets: list[WebSocket], *others: Callable[[], Awaitable[object]]) -> None:
        """Answer by all three ways; `others` do something else at the same time."""
        entrants: list[Callable[[], Awaitable[object]]] = [*(self._post for _ in range(POSTING)), *others]
        entrants += [self._raw for _ in range(RAW)]
        entrants += [partial(self._talk, socket) for socket in sockets]
        self._whims.shuffle(entrants)
        async with trio.open_nursery() as nursery:
            for entrant in entrants:
                nursery.start_soon(self._entered, entrant)
            self._start.set()

    async def _entered(self, entrant: Callable[[], Awaitable[object]]) -> None:
        await self._start.wait()
        await entrant()

    async def _post(self) -> None:
        answer = await self._app.ask(
            "POST", f"/permissions/{self._pending['permissionId']}", self._whims.choice(ANSWERS)
        )
        if answer.status == 200:
            self.won.append(answer.json)
        else:
            assert answer.problem == "permission_resolved"
            self.lost.append(answer.json)

    async def _talk(self, socket: WebSocket) -> None:
        permission = self._pending["permissionId"]
        answer = self._whims.choice(ANSWERS)
        await socket.send_json({"type": "permission", "id": permission, "permissionId": permission, **answer})
        replied = seen = None
        while replied is None or seen is None:
            message = await socket.receive_json()
            if message.get("id") == permission:
                replied = message
            elif message.get("kind") == "permission.resolved":
                params = message["envelope"]["params"]
                seen = params if params["permissionId"] == permission else seen
        self.seen.append(seen)
        if replied["type"] == "reply":
            self.won.append(replied)
        else:
            self.lost.append(replied["problem"])

    async def _raw(self) -> None:
        option = self._whims.choice(("yes", "no", None))
        assert await answer_raw(self._app, self._pending["requestId"], option) == 202

    def check(self, resolved: Json) -> None:
        """All were told the same."""
        assert len(self.won) <= 1
        assert len(self.won) + len(self.lost) == POSTING + len(self.seen)
        for one in (*self.won, *self.lost, *self.seen):
            assert (one["outcome"], one.get("optionId"), one["by"]) == (
                resolved["outcome"],
                resolved.get("optionId"),
                resolved["by"],
            )
        assert all(problem["status"] == 409 for problem in self.lost)


async def resolved_once(app: SessionClient, permission: str) -> Json:
    """The one resolution of a permission."""
    (requested,) = [one for one in await told(app, "permission.requested") if one["permissionId"] == permission]
    (resolved,) = [one for one in await told(app, "permission.resolved") if one["permissionId"] == permission]
    assert requested["requestId"] == resolved["requestId"]
    return resolved


async def nothing_left(app: SessionClient) -> None:
    """Neither in the session nor in what is kept of it for the next daemon."""
    assert await app.get("/permissions") == {"permissions": []}
    view = await app.get()
    assert (view["pendingPermissions"], view["runningTurnId"], view["queuedTurnIds"]) == (0, None, [])
    asked = [one["permissionId"] for one in await told(app, "permission.requested")]
    assert sorted(asked) == sorted(one["permissionId"] for one in await told(app, "permission.resolved"))
    with trio.fail_after(5):
        await eventually(lambda: not any(kept_of(app).get(name) for name in ("permissions", "turns", "open_turns")))


def kept_of(app: SessionClient) -> Json:
    (journal,) = app.daemon.home.rglob("journal.db")
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        ((memory,),) = connection.execute("SELECT memory FROM sessions WHERE id=?", (app.id,)).fetchall()
    kept = json.loads(memory)
    assert {"permissions", "turns", "open_turns"} <= kept.keys()
    return kept


async def nodes(app: SessionClient) -> list[Json]:
    """The supervision tree as it is shown, from the root to the leaves."""
    tree = (await exchange(app.daemon.port, "GET", "/v1/supervisor", app.daemon.headers)).json["tree"]
    found, open_ones = list[Json](), [tree]
    while open_ones:
        found.append(node := open_ones.pop())
        open_ones += node["children"]
    return found


async def test_of_ten_answers_at_once_one_counts_and_everybody_is_told_which(tmp_path: Path) -> None:
    whims = Random(1)
    async with session_client(tmp_path) as app, AsyncExitStack() as stack:
        await app.say("/silent")
        before, tree = Resources.now(), [(node["name"], node["state"]) for node in await nodes(app)]
        sockets = [await stack.enter_async_context(app.socket("?after=latest")) for _ in range(TALKING)]
        for _ in range(ROUNDS):
            pending = await asking(app)
            race = Race(app, pending, whims)
            await race.run(sockets)
            turn = await ended(app, pending["turnId"])
            assert turn["outcome"] == "completed"
            resolved = await resolved_once(app, pending["permissionId"])
            assert resolved["by"] == "client"
            race.check(resolved)
            assert len(race.seen) == TALKING
            # To the agent went one answer, and no other stands in the log.
            events = (await app.events(f"?after={turn['seq']}"))["events"]
            answers = [one for one in events if one["kind"] == "response" and one["direction"] == "client"]
            assert [one["envelope"]["id"] for one in answers] == [pending["requestId"]]
            said = [one["envelope"]["params"]["update"] for one in events if one["kind"] == "agent_message_chunk"]
            text = "".join(update["content"]["text"] for update in said)
            assert text == f"permission: {SAID[resolved.get('optionId')]}"
        await stack.aclose()
        await nothing_left(app)
        assert [(node["name"], node["state"]) for node in await nodes(app)] == tree
        await before.back()


@pytest.mark.parametrize("others", ["cancel", "close", "restart", "kill the agent"])
async def test_what_takes_the_question_away_races_with_answers_and_it_is_settled_once(
    tmp_path: Path, others: str
) -> None:
    whims = Random(others)
    async with session_client(tmp_path) as app, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(app.socket("?after=latest")) for _ in range(TALKING)]
        pending = await asking(app)
        pid = (await app.get())["pid"]

        async def take_away() -> None:
            if others == "kill the agent":
                os.kill(pid, signal.SIGKILL)
            else:
                answer = await app.ask("POST", f"/{others}")
                assert answer.status in (200, 202), answer

        race = Race(app, pending, whims)
        await race.run(sockets, take_away)
        turn = await ended(app, pending["turnId"])
        resolved = await resolved_once(app, pending["permissionId"])
        race.check(resolved)
        by = {"cancel": "cancel", "close": "close", "restart": "crash", "kill the agent": "crash"}[others]
        assert resolved["by"] in ("client", by)
        assert turn["outcome"] in ("completed", "cancelled" if others == "cancel" else "failed")
        assert len(await told(app, "turn.ended")) == 1
        await nothing_left(app)
        late = await app.ask("POST", f"/permissions/{pending['permissionId']}", {"optionId": "yes"})
        assert (late.status, late.json["by"]) == (409, resolved["by"])
        if others == "close":
            assert (await app.ask("POST", "/prompt", {"content": "hello"})).problem == "session_closed"


@pytest.mark.parametrize(
    ("others", "by", "outcome"),
    [("cancel", "cancel", "cancelled"), ("close", "close", "failed"), ("restart", "crash", "failed")],
)
async def test_a_question_that_nobody_answers_goes_with_its_turn(
    tmp_path: Path, others: str, by: str, outcome: str
) -> None:
    async with session_client(tmp_path) as app:
        pending = await asking(app)
        await app.ask("POST", f"/{others}")
        assert (await ended(app, pending["turnId"]))["outcome"] == outcome
        resolved = await resolved_once(app, pending["permissionId"])
        assert (resolved["outcome"], resolved["by"]) == ("cancelled", by)
        await nothing_left(app)


async def test_after_the_daemon_was_killed_nothing_hangs_and_it_is_settled_once(tmp_path: Path) -> None:
    async with running(tmp_path, "--journal-sync", "normal") as daemon:
        with trio.fail_after(60):
            app = SessionClient(daemon)
            await app.create(cwd=str(tmp_path), permissionPolicy={"default": "ask", "timeout": 1000})
            pending = await asking(app)
            await daemon.kill()
            await daemon.start()
            resolved = await resolved_once(app, pending["permissionId"])
            assert (resolved["outcome"], resolved["by"]) == ("cancelled", "crash")
            assert [end["outcome"] for end in await told(app, "turn.ended")] == ["failed"]
            await nothing_left(app)
            answer = await app.ask("POST", f"/permissions/{pending['permissionId']}", {"optionId": "yes"})
            assert (answer.status, answer.problem) == (404, "permission_not_found")
            assert await answer_raw(app, pending["requestId"], "yes") == 202
            assert (await app.get())["state"] == "hibernated"
            # It works as before, on the same terms.
            again = await asking(app)
            assert "expiresAt" in again
            await app.post(f"/permissions/{again['permissionId']}", {"optionId": "no"})
            assert (await ended(app, again["turnId"]))["outcome"] == "completed"
            assert (await resolved_once(app, pending["permissionId"]), again["permissionId"]) == (
                resolved,
                (await told(app, "permission.resolved"))[-1]["permissionId"],
            )
            await nothing_left(app)


POLICIES: list[tuple[Json, str, str, str]] = [
    ("allow_all", "/permission execute: rm -rf build", "allow_once", "policy:allow_all"),
    ("deny_all", "/permission read: look", "reject_once", "policy:deny_all"),
    ("allow_reads", "/permission read: look", "allow_once", "policy:allow_reads"),
    (
        {"default": "allow_all", "rules": [{"decision": "deny", "kind": "execute", "command": "rm *"}]},
        "/permission execute: rm -rf build",
        "reject_once",
        "policy:rules[0]",
    ),
    (
        {
            "default": "deny_all",
            "rules": [{"decision": "deny", "kind": "read"}, {"decision": "allow", "kind": "think"}],
        },
        "/permission think: hm",
        "allow_once",
        "policy:rules[1]",
    ),
]


@pytest.mark.parametrize(("policy", "prompt", "decision", "by"), POLICIES)
async def test_a_policy_answers_in_the_place_of_people(
    tmp_path: Path, policy: Json, prompt: str, decision: str, by: str
) -> None:
    async with session_client(tmp_path) as app:
        await app.create(cwd=str(tmp_path), permissionPolicy=policy)
        assert (await app.get())["permissionPolicy"] == policy
        assert (await app.say(prompt))["text"] == f"permission: {decision}"
        assert [one["by"] for one in await told(app, "permission.resolved")] == [by]
        await nothing_left(app)


async def test_a_rule_about_paths_lets_the_agent_write_there_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    policy = {"default": "deny_all", "rules": [{"decision": "allow", "kind": "edit", "path": "src/**"}]}
    async with session_client(tmp_path) as app:
        await app.create(cwd=str(tmp_path), permissionPolicy=policy)
        await app.say("/write? src/wanted yes")
        await app.say("/write? unwanted no")
        assert ((tmp_path / "src/wanted").exists(), (tmp_path / "unwanted").exists()) == (True, False)
        assert [one["by"] for one in await told(app, "permission.resolved")] == ["policy:rules[0]", "policy:deny_all"]
        await nothing_left(app)


async def test_reads_are_allowed_and_a_person_is_asked_for_the_rest(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.create(cwd=str(tmp_path), permissionPolicy="allow_reads")
        assert (await app.say("/permission read: look"))["text"] == "permission: allow_once"
        pending = await asking(app)
        assert pending["toolCall"]["kind"] == "execute"
        # A new policy decides what is open, at once, while people answer, too.
        race = Race(app, pending, Random(3))

        async def change() -> None:
            assert (await app.ask("PATCH", "", {"permissionPolicy": "deny_all"})).status == 200

        await race.run([], change)
        assert (await ended(app, pending["turnId"]))["outcome"] == "completed"
        resolved = await resolved_once(app, pending["permissionId"])
        race.check(resolved)
        assert resolved["by"] in ("client", "policy:deny_all")
        await nothing_left(app)


async def test_nobody_in_time_settles_it_as_the_policy_says_and_a_late_answer_is_told_so(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.create(cwd=str(tmp_path), permissionPolicy={"timeout": 0.05, "onTimeout": "allow"})
        turn = await app.say("/permission execute: ls")
        assert turn["text"] == "permission: allow_once"
        (resolved,) = await told(app, "permission.resolved")
        assert resolved["by"] == "timeout"
        late = await app.ask("POST", f"/permissions/{resolved['permissionId']}", {"optionId": "no"})
        assert (late.status, late.json["by"], late.json["optionId"]) == (409, "timeout", "yes")
        await nothing_left(app)
