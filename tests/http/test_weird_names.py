"""Names that some reader stumbles over, wherever a client may write one: in paths, queries, bodies and frames.

Whatever they are, they are the client's, and the answer says so. What the operating system or another server has
against a name is told as the public wire has it, with 502, and never by a traceback in the log.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from itertools import cycle, islice
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import structlog
import trio

from support.hostile import NAMES
from support.process_client import ProcessClient
from support.repositories import new_repository
from support.serving import TOKEN, routes, serving
from support.wire import UPGRADE, Answer, WebSocket, exchange, exchange_bytes, request_bytes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from support.serving import Local, Route

JSON = {"Content-Type": "application/json"}

AT_ONCE = 8
"""Requests: more would only wait for each other."""

NAMES_EACH = 2
"""Names that are tried at one place. The next place gets the next ones."""

PLACES = {
    "/v1/fs/": ("path=.", "path after glob pattern type mode limit timeout format recursive guess download"),
    "/v1/git/": ("directory=repository", "directory ref ref=HEAD&to path name limit maxBytes skip staged"),
    "/v1/processes": ("", "owner stream tail since follow waitMs killAfterMs"),
    "/v1/ports": ("", "timeoutMs"),
}
"""What goes with every request to such a path, and the parameters that get a name each in turn."""

BODIES = {
    "/v1/fs/move": ['{"from": NAME, "to": "new"}', '{"from": "repository", "to": NAME}'],
    "/v1/processes": ['{"command": NAME}', '{"command": "true", "cwd": NAME}'],
    "/v1/processes/run": [
        '{"command": NAME}',
        '{"command": "true", "args": [NAME]}',
        '{"command": "true", "cwd": NAME}',
        '{"command": "env", "env": {"NAME": NAME}}',
        '{"command": "env", "env": {NAME: "x"}}',
        '{"command": "cat", "stdin": NAME}',
        '{"command": "cat", "stdin": "x", "stdinEncoding": NAME}',
        '{"command": "true", "user": NAME}',
    ],
    "/v1/processes/proc_1/input": ['{"data": NAME, "encoding": "text"}', '{"data": "x", "encoding": NAME}'],
    "/v1/processes/proc_1/signal": ['{"signal": NAME}'],
    "/v1/processes/proc_1/terminal/resize": ['{"cols": NAME, "rows": 1}'],
    "/v1/git/branches": ['{"name": NAME}', '{"name": "a", "from": NAME}'],
    "/v1/git/checkout": [
        '{"branch": NAME}',
        '{"branch": NAME, "create": true}',
        '{"ref": NAME}',
        '{"paths": [NAME]}',
    ],
    "/v1/git/add": ['{"paths": [NAME]}', "{}"],
    "/v1/git/commit": [
        '{"message": NAME, "allowEmpty": true}',
        '{"message": "x", "allowEmpty": true, "author": {"name": NAME, "email": "a@example.org"}}',
        '{"message": "x", "allowEmpty": true, "author": {"name": "a", "email": NAME}}',
        '{"message": "x", "paths": [NAME]}',
    ],
    "/v1/git/clone": [
        '{"url": NAME}',
        '{"url": "https://127.0.0.1:9/x", "branch": NAME}',
        '{"url": "https://127.0.0.1:9/x", "token": NAME}',
        '{"url": "https://127.0.0.1:9/x", "token": "x", "username": NAME}',
    ],
}
"""By target; a name takes the place of each `NAME`, and any will do for a request whose target has a name."""

FRAMES = [
    '{"type": NAME}',
    '{"type": "input", "data": NAME}',
    '{"type": "input", "data": "x", "encoding": NAME}',
    '{"type": "resize", "cols": NAME, "rows": 1}',
]

LITERALS = [json.dumps(name.decode(errors="surrogateescape")) for name in NAMES] + ['"\\ud83d"', '"\\udc00\\ud83d"']
"""The names in JSON, which can say half of a pair as well."""

OTHERS = {"stream_error", "git_remote_failed"}
"""Problems that are nobody's fault here."""


@contextmanager
def nothing_fails() -> Generator[None]:
    """Fails where anything in the block is logged as a failure of ours."""
    with structlog.testing.capture_logs() as logs:
        yield
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical") or "exc_info" in entry] == []


def judge(answer: Answer, what: object) -> None:
    """Fails unless this is a fair answer."""
    assert answer.status < 500 or answer.problem in OTHERS, (what, answer)
    assert answer.status < 400 or not answer.body or answer.problem, (what, answer)


def places(route: Route) -> Iterator[tuple[str, str]]:
    """Where a name can be put into a target of this route: what comes before it, and behind it."""
    fixed, names = next(place for prefix, place in PLACES.items() if route.template.startswith(prefix))
    before, parameter, behind = route.template.partition("<")
    if parameter:
        yield before, behind.partition(">")[2]
    # There is one process, which nobody is to delete.
    path = route.path("1" if "ports" in before else "none" if "DELETE" in route.methods else "proc_1")
    for name in names.split():
        # Of two of the same name the second would not count.
        yield f"{path}?{'' if fixed.startswith(name) else fixed}&{name}=", ""


async def test_names_in_paths_and_queries_are_taken_as_they_are_or_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    new_repository(home / "repository", file="x")
    tried = cycle(NAMES)
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def ask(daemon: Local, method: str, target: str) -> None:
        async with limiter:
            if method:
                headers = {**daemon.headers, "Content-Type": "application/json"}
                body = next(iter(BODIES.get(target.partition("?")[0], ["{}"]))).replace("NAME", '"x"')
                judge(await exchange(daemon.port, method, target, headers, body.encode()), (method, target))
                return
            async with WebSocket.open(daemon.port, target, daemon.headers) as socket:
                if socket.refusal is not None:
                    judge(socket.refusal, target)

    with nothing_fails():
        async with (
            serving(tmp_path / "daemon", token=TOKEN, fs_root=home, environment={"HOME": str(home)}) as daemon,
            trio.open_nursery() as nursery,
        ):
            await ProcessClient(daemon).create("cat", tty=True)
            for route in routes(tmp_path / "none"):
                if route.template.startswith(tuple(PLACES)):
                    for method in [method for method in route.methods if method != "HEAD"] or [""]:
                        for before, behind in places(route):
                            for name in islice(tried, NAMES_EACH):
                                nursery.start_soon(ask, daemon, method, before + quote(name, safe="") + behind)
    assert sorted(os.listdir(tmp_path)) == ["daemon", "home"]


async def test_names_in_bodies_and_frames_are_taken_as_they_are_or_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    new_repository(home / "repository", file="x")
    tried = cycle(LITERALS)
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def ask(daemon: Local, target: str, body: str) -> None:
        async with limiter:
            if target.startswith("/v1/git/"):
                target += "?directory=" + ("clone" if "url" in body else "repository")
            headers = {**daemon.headers, "Content-Type": "application/json"}
            judge(await exchange(daemon.port, "POST", target, headers, body.encode(), within=20), (target, body))

    with nothing_fails():
        async with (
            serving(tmp_path / "daemon", token=TOKEN, fs_root=home, environment={"HOME": str(home)}) as daemon,
            trio.open_nursery() as nursery,
        ):
            id = await ProcessClient(daemon).create("cat", tty=True)
            for target, bodies in BODIES.items():
                for body in bodies:
                    for name in islice(tried, NAMES_EACH):
                        nursery.start_soon(ask, daemon, target, body.replace("NAME", name))
            with trio.fail_after(10):
                async with WebSocket.open(daemon.port, f"/v1/processes/{id}/terminal/ws", daemon.headers) as socket:
                    for frame in FRAMES:
                        for name in LITERALS:
                            await socket.send(frame.replace("NAME", name))
                    await socket.send('{"type": "the last"}')
                    while "the last" not in str(await socket.receive()):
                        pass


async def test_a_query_that_is_no_utf_8_means_no_other_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with serving(tmp_path / "daemon", environment={"HOME": str(home)}) as daemon:
        for target in ("/v1/fs/file?path=%ff", "/v1/fs/file?path=a&%c3=%28"):
            answer = await exchange(daemon.port, "PUT", target, body=b"x")
            assert (answer.status, answer.problem) == (400, "invalid_request")
            assert "UTF-8" in answer.detail
        async with WebSocket.open(daemon.port, "/v1/fs/watch?path=.&x=%ff") as socket:
            assert socket.refusal is not None
            assert (socket.refusal.status, socket.refusal.problem) == (400, "invalid_request")
        assert (await exchange(daemon.port, "GET", "/nowhere?x=%ff")).status == 404
        assert os.listdir(home) == []
        assert (await exchange(daemon.port, "PUT", "/v1/fs/file?path=%25ff%C3%A9", body=b"x")).status == 200
        assert os.listdir(home) == ["%ffé"]


@pytest.mark.parametrize("token", [TOKEN, "tökén", "a+b%20c"])
async def test_a_token_in_the_query_is_the_token_or_is_refused_whatever_its_bytes_are(
    tmp_path: Path, token: str
) -> None:
    right = quote(token, safe="").encode()
    wrong = [*(quote(name, safe="").encode() for name in NAMES if len(name) < 1000), right + b"%00", b"%", b"", b"%FF"]
    with nothing_fails():
        async with serving(tmp_path, token=token) as daemon:
            path = b"/v1/processes/x/terminal/ws?access_token="
            for bytes_, status in [(right, 404), *((one, 401) for one in wrong), (b"\xc3\xa9", 400), (b"\xff", 400)]:
                request = request_bytes("GET", "TARGET", UPGRADE).replace(b"TARGET", path + bytes_)
                answer = await exchange_bytes(daemon.port, request)
                assert answer is not None
                assert answer.status == status, bytes_


async def test_names_on_the_disk_that_are_no_utf_8_are_told_all_the_same(tmp_path: Path) -> None:
    home = tmp_path / "home"
    top = new_repository(home / "repository", file="x")
    name = os.fsdecode(b"\xff\xfe")
    (top / name).mkdir()
    for folder in (top, top / name):
        (folder / f"{name}.txt").write_text("needle")
        (folder / f"{name}.link").symlink_to(name)
        os.mkfifo(folder / f"{name}.fifo")
    (home / "link").symlink_to(top / name)
    asked = [
        *(f"/v1/fs/{what}?path={path}" for what in ("entries", "stat", "find") for path in ("repository", "link")),
        "/v1/fs/grep?path=repository&pattern=needle",
        "/v1/fs/find?path=repository&glob=**/*.txt",
        *(f"/v1/fs/archive?path=repository&format={format}" for format in ("tar", "tar.gz", "tar.zst", "zip")),
        *(f"/v1/git/{what}?directory={path}" for what in ("status", "diff", "log") for path in ("repository", "link")),
        "/v1/ports",
    ]
    with nothing_fails():
        async with serving(tmp_path / "daemon", fs_root=home, environment={"HOME": str(home)}) as daemon:
            add = await exchange(daemon.port, "POST", "/v1/git/add?directory=repository", JSON, b"{}")
            assert add.status == 204
            for target in asked:
                answer = await exchange(daemon.port, "GET", target)
                assert (answer.status, answer.complete) == (200, True), (target, answer)
            assert (await exchange(daemon.port, "PUT", "/v1/fs/file?path=repository", body=b"x")).status == 502
            tar = await exchange(daemon.port, "GET", "/v1/fs/archive?path=repository&format=tar")
            kind = {"Content-Type": "application/x-tar"}
            back = await exchange(daemon.port, "POST", "/v1/fs/upload-batch?path=back", kind, tar.body)
            assert back.status == 200
            again = await exchange(daemon.port, "POST", "/v1/fs/upload-batch?path=back/file", kind, tar.body)
            assert again.status == 400
            (home / "back" / name / f"{name}.txt").unlink()
            (home / "back" / name / f"{name}.txt").mkdir()
            conflict = await exchange(daemon.port, "POST", "/v1/fs/upload-batch?path=back", kind, tar.body)
            assert (conflict.status, conflict.problem) == (409, "conflict")
            async with WebSocket.open(daemon.port, "/v1/fs/watch?path=repository") as socket:
                await socket.until(type="ready")
                (top / name / f"{name}.new").touch()
                assert (await socket.until(type="created"))["path"].endswith(".new")
            deleted = await exchange(daemon.port, "DELETE", "/v1/fs/entry?path=repository&recursive=true")
            assert deleted.status == 200
