"""`/v1/git` over HTTP: one walk through all routes, the refusals, and clones as streams."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trio

from support.processes import eventually, processes_with
from support.repositories import git, new_repository
from support.serving import Resources, serving
from support.wire import Stream, exchange, request_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json
    from support.serving import Local
    from support.wire import Answer

JSON = {"Content-Type": "application/json"}
ADA = {"name": "Ada", "email": "ada@example.org"}


async def ask(daemon: Local, method: str, what: str, directory: Path, body: Json = None, query: str = "") -> Answer:
    target = f"/v1/git/{what}?directory={quote(str(directory))}{query}"
    if body is None:
        return await exchange(daemon.port, method, target)
    return await exchange(daemon.port, method, target, JSON, json.dumps(body).encode())


async def test_a_repository_is_changed_and_looked_at_through_every_route(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    (top / "a").write_text("2\n")
    (top / "b").write_text("new\n")
    async with serving(tmp_path / "d") as daemon:
        get, post = partial(ask, daemon, "GET"), partial(ask, daemon, "POST")

        status = (await get("status", top)).json
        assert status["root"] == str(top)
        assert (status["clean"], status["truncated"]) == (False, False)
        assert status["branch"]["head"] == "main"
        assert status["changes"] == [
            {
                "path": "a",
                "kind": "changed",
                "index": ".",
                "worktree": "M",
                "original": None,
                "submodule": False,
            },
            {
                "path": "b",
                "kind": "untracked",
                "index": "?",
                "worktree": "?",
                "original": None,
                "submodule": False,
            },
        ]

        diff = await get("diff", top)
        assert (diff.headers["content-type"], diff.headers["x-truncated"]) == ("text/x-diff", "false")
        assert b"-1\n+2\n" in diff.body
        cut = await get("diff", top, query="&maxBytes=50")
        assert (len(cut.body) <= 50, cut.headers["x-truncated"]) == (True, "true")

        assert (await post("add", top, {"paths": ["a"]})).status == 204
        assert b"+2" in (await get("diff", top, query="&staged=true&path=a")).body
        made = await post("commit", top, {"message": "second", "author": ADA, "all": True})
        assert made.json == {"commit": git(top, "rev-parse", "HEAD").strip()}

        log = (await get("log", top, query="&limit=1")).json
        assert log["truncated"] is True
        assert log["commits"][0]["subject"] == "second"
        assert log["commits"][0]["author"]["name"] == "Ada"
        assert b"b/b" in (await get("diff", top, query="&ref=HEAD~1&to=HEAD")).body

        assert (await post("branches", top, {"name": "side/x", "from": "HEAD~1"})).status == 204
        branches = (await get("branches", top)).json["branches"]
        assert [(branch["name"], branch["current"]) for branch in branches] == [("main", True), ("side/x", False)]
        gone = await post("checkout", top, {"branch": "side/x"})
        assert gone.json["branch"] == "side/x"
        new = await post("checkout", top, {"branch": "third", "create": True, "from": "main"})
        assert new.json == {"branch": "third", "commit": made.json["commit"]}
        assert (await ask(daemon, "DELETE", "branches", top, query=f"&name={quote('side/x')}")).status == 204

        (top / "a").write_text("lost\n")
        assert (await post("checkout", top, {"paths": ["a"]})).status == 200
        assert (top / "a").read_text() == "2\n"
        assert (await post("checkout", top, {"ref": "HEAD~1"})).json["branch"] is None
        assert (await get("status", top)).json["clean"]


async def test_git_failures_carry_its_own_words(tmp_path: Path) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    async with serving(tmp_path / "d") as daemon:
        answer = await ask(daemon, "POST", "branches", top, {"name": "main"})
        assert (answer.status, answer.problem) == (409, "git_failed")
        assert answer.json["exitCode"] == 128
        assert "already exists" in answer.detail
        assert any("already exists" in line for line in answer.json["stderr"])


async def test_what_is_no_repository_is_not_found(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    async with serving(tmp_path / "d") as daemon:
        answer = await ask(daemon, "GET", "status", tmp_path / "bare.git")
        assert (answer.status, answer.problem) == (404, "repository_not_found")
        assert answer.json["directory"] == str(tmp_path / "bare.git")
        missing = await ask(daemon, "GET", "status", tmp_path / "missing")
        assert (missing.status, missing.problem) == (400, "invalid_request")


BAD: list[tuple[str, str, Json, int]] = [
    ("GET", "status?directory=", None, 400),
    ("GET", "status?directory=..", None, 400),
    ("GET", "status?directory=%00", None, 400),
    ("GET", "status?directory=R&limit=0", None, 400),
    ("GET", "diff?directory=R&maxBytes=x", None, 400),
    ("GET", "diff?directory=R&staged=1", None, 400),
    ("GET", "diff?directory=R&to=HEAD", None, 400),
    ("GET", "diff?directory=R&ref=--output%3Dx", None, 400),
    ("GET", "diff?directory=R&path=../x", None, 400),
    ("GET", "log?directory=R&limit=1001", None, 400),
    ("GET", "log?directory=R&skip=-1", None, 400),
    ("GET", "log?directory=R&ref=nope", None, 400),
    ("POST", "branches?directory=R", {}, 422),
    ("POST", "branches?directory=R", {"name": 1}, 422),
    ("POST", "branches?directory=R", {"name": "-d"}, 400),
    ("DELETE", "branches?directory=R", None, 400),
    ("POST", "checkout?directory=R", {}, 400),
    ("POST", "checkout?directory=R", {"branch": "main", "ref": "main"}, 400),
    ("POST", "checkout?directory=R", {"brunch": "main"}, 422),
    ("POST", "commit?directory=R", {"message": ""}, 400),
    ("POST", "commit?directory=R", {"message": "m", "author": {"name": "x"}}, 422),
    ("POST", "clone?directory=x", {"url": "ext::sh"}, 400),
    ("POST", "clone?directory=x", {"url": "https://h/x", "depth": 0}, 422),
    ("POST", "clone?directory=x", {"url": "https://h/x", "timeoutMs": 10**9}, 422),
    ("POST", "clone?directory=x", {"url": "https://h/x", "branch": "-x"}, 400),
    ("POST", "clone", {"url": "https://h/x"}, 400),
]


@pytest.mark.parametrize(("method", "target", "body", "status"), BAD)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, method: str, target: str, body: Json, status: int
) -> None:
    top = new_repository(tmp_path / "r", a="1\n")
    async with serving(tmp_path / "d") as daemon:
        text = b"" if body is None else json.dumps(body).encode()
        answer = await exchange(
            daemon.port, method, f"/v1/git/{target.replace('=R', '=' + quote(str(top)))}", JSON, text
        )
        assert (answer.status, answer.problem) == (status, "invalid_request")


async def test_changes_need_a_body_that_says_that_it_is_json(tmp_path: Path) -> None:
    async with serving(tmp_path / "d") as daemon:
        for what in ("branches", "checkout", "add", "commit", "clone"):
            answer = await exchange(daemon.port, "POST", f"/v1/git/{what}?directory=/", {}, b"{}")
            assert answer.status == 415
            answer = await exchange(daemon.port, "POST", f"/v1/git/{what}?directory=/", JSON, b"{")
            assert (answer.status, answer.problem) == (400, "invalid_request")


async def test_a_clone_is_waited_for_or_streamed(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    head = git(origin, "rev-parse", "HEAD").strip()
    body = json.dumps({"url": f"file://{origin}"}).encode()
    async with serving(tmp_path / "d") as daemon:
        waited = await ask(daemon, "POST", "clone", tmp_path / "one", {"url": f"file://{origin}"})
        assert waited.json == {"directory": str(tmp_path / "one"), "branch": "main", "commit": head}
        again = await ask(daemon, "POST", "clone", tmp_path / "one", {"url": f"file://{origin}"})
        assert (again.status, again.problem) == (400, "invalid_request")

        target = f"/v1/git/clone?directory={tmp_path}/two"
        accept = {**JSON, "Accept": "text/event-stream"}
        with trio.fail_after(20):
            async with Stream.open(daemon.port, target, accept, method="POST", body=body) as stream:
                events = [event for event in (await stream.rest()).decode().split("\n\n") if event.startswith("event")]
        assert events[-1] == "event: cloned\ndata: " + json.dumps(
            {"directory": str(tmp_path / "two"), "branch": "main", "commit": head}, separators=(",", ":")
        )
        with trio.fail_after(20):
            async with Stream.open(daemon.port, target, accept, method="POST", body=body) as stream:
                last = (await stream.rest()).decode().strip().split("\n\n")[-1]
        assert last.startswith("event: failed\n")
        assert json.loads(last.partition("data: ")[2])["detail"].startswith("invalid request: destination already")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_client_that_leaves_ends_its_clone(tmp_path: Path, accept: str) -> None:
    asked = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        asked.set()
        await stream.receive_some(65536)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), hang, 0)
        body = json.dumps({"url": f"http://127.0.0.1:{listener.socket.getsockname()[1]}/x"}).encode()
        async with serving(tmp_path / "d") as daemon:
            await exchange(daemon.port, "GET", "/v1/health")
            before = Resources.now()
            owner = next((tmp_path / "d" / "data" / "daemons").iterdir()).joinpath("owner").read_text()
            with trio.fail_after(20):
                async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as client:
                    target = f"/v1/git/clone?directory={tmp_path}/r"
                    await client.send_all(request_bytes("POST", target, {**JSON, "Accept": accept}, body))
                    await asked.wait()
                await eventually(lambda: not [pid for pid in processes_with(owner) if "git" in _command(pid)])
                await eventually(lambda: sorted(each.name for each in tmp_path.iterdir()) == ["d"])
            await before.back()
        nursery.cancel_scope.cancel()


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read()
    except OSError:
        return ""
