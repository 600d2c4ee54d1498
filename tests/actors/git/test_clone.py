"""Clones, from the disk and from a server on loopback that speaks the smart protocol and asks for a password."""

from __future__ import annotations

import base64
import os
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import h11
import pytest
import trio

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import FileSystem
from sandbox_actors.files.errors import DestinationExists, OutsideRoot
from sandbox_actors.git import GitTimeout, Progress, RemoteFailed, Wish
from sandbox_actors.git.clone import clone, parse_progress
from sandbox_actors.git.runner import Runner, within
from support.processes import processes_with
from support.repositories import GIT, git, new_repository

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sandbox_actors.git import Clone

TOKEN = "t0ken-that-nobody-may-see"


async def cloned(home: Path, wish: Wish, *, root: Path | None = None, told: list[Progress] | None = None) -> Clone:
    environment = {**GIT, "HOME": str(home)}
    runner = Runner(environment, "tests", f"clone{home}", None)
    tell = (told if told is not None else list[Progress]()).append
    with within(wish.seconds, "git clone"):
        return await clone(wish.checked(), runner, FileSystem(home, root), tell)


def left(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name != "origin")


def files_with(text: str, folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file() and text.encode() in each.read_bytes()]


def cookie_of(home: Path) -> str:
    """What the environment of every child of `cloned` has in it."""
    return quote(f"clone{home}", safe="")


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@asynccontextmanager
async def served(repository: Path, *, asked: list[dict[str, str]], token: str | None = None) -> AsyncGenerator[str]:
    """A repository over HTTP, by Git's own CGI program; gives its URL.

    Args:
      asked: takes the headers of every request.
      token: what clients have to send as their password.
    """

    async def serve(stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        body = b""
        request: h11.Request | None = None
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
        assert request is not None
        headers = {name.decode(): value.decode() for name, value in request.headers}
        asked.append(headers)
        expected = "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()
        if token is not None and headers.get("authorization") != expected:
            await answer(stream, http, 401, [("WWW-Authenticate", 'Basic realm="x"')], b"")
            return
        path, _, query = request.target.decode().partition("?")
        environment = {
            **GIT,
            "GIT_PROJECT_ROOT": str(repository.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.method.decode(),
            "CONTENT_TYPE": headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
        }
        done = await trio.run_process(["git", "http-backend"], stdin=body, capture_stdout=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.decode().split(": ", 1) for line in head.split(b"\r\n")]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        await answer(stream, http, status, [(name, value) for name, value in fields if name != "Status"], content)

    async def answer(
        stream: trio.SocketStream, http: h11.Connection, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        headers = [*headers, ("Connection", "close"), ("Content-Length", str(len(body)))]
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            await stream.send_all(http.send(event) or b"")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/{repository.name}"
        nursery.cancel_scope.cancel()


async def test_a_clone_comes_whole_with_progress(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    told: list[Progress] = []
    made = await cloned(tmp_path, Wish(f"file://{origin}", "new/place", 30), told=told)
    assert made.directory == str(tmp_path / "new" / "place")
    assert (made.head.branch, made.head.commit) == ("main", git(origin, "rev-parse", "HEAD").strip())
    assert (tmp_path / "new" / "place" / "a").read_text() == "1\n"
    assert left(tmp_path / "new") == ["place"]
    assert Progress("Receiving objects", 100, 3, 3) in told


def test_progress_is_read_off_gits_own_lines() -> None:
    assert parse_progress("Receiving objects:  45% (9/20), 1.20 MiB | 2.00 MiB/s") == Progress(
        "Receiving objects", 45, 9, 20
    )
    assert parse_progress("remote: Counting objects: 100% (3/3), done.") == Progress("Counting objects", 100, 3, 3)
    assert parse_progress("fatal: Receiving objects: 45% (9/20)") is None
    assert parse_progress("Cloning into 'x'...") is None


async def test_a_branch_and_a_depth_are_heeded(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    git(origin, "switch", "--quiet", "-c", "other")
    git(origin, "commit", "--quiet", "--allow-empty", "--message=second")
    git(origin, "switch", "--quiet", "main")
    made = await cloned(tmp_path, Wish(f"file://{origin}", "r", 30, branch="other", depth=1))
    assert made.head.branch == "other"
    assert git(tmp_path / "r", "rev-list", "--count", "HEAD").strip() == "1"


async def test_an_empty_repository_is_cloned(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin")
    made = await cloned(tmp_path, Wish(f"file://{origin}", "r", 30))
    assert (made.head.branch, made.head.commit) == ("main", None)


async def test_an_empty_directory_is_taken_and_any_other_is_left_alone(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    (tmp_path / "empty").mkdir()
    await cloned(tmp_path, Wish(f"file://{origin}", "empty", 30))
    assert (tmp_path / "empty" / "a").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(DestinationExists):
            await cloned(tmp_path, Wish(f"file://{origin}", name, 30))
    assert left(tmp_path) == ["empty", "file", "full"]
    assert left(tmp_path / "full") == ["mine"]


async def test_what_cannot_be_cloned_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(RemoteFailed, match="git clone: ") as failed:
        await cloned(tmp_path, Wish(f"file://{tmp_path}/none", "r", 30))
    assert failed.value.stderr
    origin = new_repository(tmp_path / "origin", a="1\n")
    with pytest.raises(RemoteFailed, match="Remote branch nope not found"):
        await cloned(tmp_path, Wish(f"file://{origin}", "r", 30, branch="nope"))
    assert left(tmp_path) == ["none"]


async def test_a_token_opens_the_door_and_is_kept_nowhere(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    (tmp_path / ".gitconfig").write_text("[credential]\n\thelper = store\n")
    asked: list[dict[str, str]] = []
    async with served(origin, asked=asked, token=TOKEN) as url:
        with pytest.raises(RemoteFailed, match="could not read Username"):
            await cloned(tmp_path, Wish(url, "r", 30))
        with pytest.raises(RemoteFailed, match="Authentication failed") as failed:
            await cloned(tmp_path, Wish(url, "r", 30, token="wr0ng-" + TOKEN))
        assert TOKEN not in str(failed.value) + repr(failed.value.stderr)
        await cloned(tmp_path, Wish(url, "r", 30, token=TOKEN))
    assert (tmp_path / "r" / "a").read_text() == "1\n"
    assert git(tmp_path / "r", "remote", "get-url", "origin").strip() == url
    assert not (tmp_path / ".git-credentials").exists()
    assert files_with(TOKEN, tmp_path) == []


async def test_a_token_does_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    asked: list[dict[str, str]] = []

    async def redirect(stream: trio.SocketStream) -> None:
        target = (await stream.receive_some(65536)).split()[1]
        where = elsewhere.removesuffix("/origin").encode() + target
        await stream.send_all(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: %b\r\n\r\n" % where
        )

    async with served(origin, asked=asked, token=TOKEN) as elsewhere, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), redirect, 0)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/origin"
        with pytest.raises(RemoteFailed):
            await cloned(tmp_path, Wish(url, "r", 30, token=TOKEN))
        nursery.cancel_scope.cancel()
    assert asked
    assert all("authorization" not in headers for headers in asked)


async def test_no_argument_of_any_process_has_the_token(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        seen.extend(arguments_of(pid) for pid in processes_with(cookie_of(tmp_path)))
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/origin"
        with pytest.raises(RemoteFailed, match="not found"):
            await cloned(tmp_path, Wish(url, "r", 30, token=TOKEN))
        nursery.cancel_scope.cancel()
    assert any(b"clone" in arguments for arguments in seen)
    assert not any(TOKEN.encode() in arguments for arguments in seen)


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_a_clone_that_hangs_ends_with_all_its_processes(tmp_path: Path, how: str) -> None:
    asked = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        asked.set()
        await trio.sleep_forever()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), hang, 0)
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/origin"
            if how == "deadline":
                with pytest.raises(GitTimeout, match=r"within 0\.5 s"):
                    await cloned(tmp_path, Wish(url, "r", 0.5))
            else:
                async with trio.open_nursery() as cloning:
                    cloning.start_soon(cloned, tmp_path, Wish(url, "r", 30))
                    await asked.wait()
                    cloning.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    assert left(tmp_path) == []
    assert processes_with(cookie_of(tmp_path)) == []


BAD_URLS = [
    *["", " ", "-", "--upload-pack=touch x", "/srv/repo", "../repo", "repo", "host:repo", "ext::sh -c touch% x"],
    *["ext::touch", "http::ext::x", "https::foo://x", "ftp://host/x", "HTTPS://host/x", "fd::7", "https://"],
    *["https:///x", "ssh://-oProxyCommand=touch/x", "a@-oProxyCommand=x:y", "a@host:-x", "https://user:secret@host/x"],
    *["https://ho st/x", "https://host/x\n", "https://host:port/x", "https://[::1/x", "file://host/x", "file:x"],
    *["file://relative", "a@b::c"],
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_what_is_no_url_of_a_known_protocol_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidRequest):
        await cloned(tmp_path, Wish(url, "r", 30))
    assert left(tmp_path) == []


GOOD_URLS = [
    "https://host/x.git",
    "https://me@host:8443/x",
    "ssh://git@host/x",
    "git@host.example:x/y.git",
    "git://host/x",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_the_usual_urls_are_taken(url: str) -> None:
    assert Wish(url, "r", 30).checked().url == url


def test_a_token_is_for_http_and_fits_into_a_line() -> None:
    for url, token in (("ssh://host/x", "t"), ("git@host:x", "t"), ("https://host/x", "a\nb"), ("https://host/x", "")):
        with pytest.raises(InvalidRequest, match="token"):
            Wish(url, "r", 30, token=token).checked()
    with pytest.raises(InvalidRequest, match="branch"):
        Wish("https://host/x", "r", 30, branch="--upload-pack=x").checked()


async def test_a_root_holds_for_the_place_and_for_what_is_cloned(tmp_path: Path) -> None:
    outside = new_repository(tmp_path / "origin", a="1\n")
    root = tmp_path / "root"
    inside = new_repository(root / "inside", a="1\n")
    with pytest.raises(OutsideRoot):
        await cloned(tmp_path, Wish(f"file://{outside}", str(root / "r"), 30), root=root)
    with pytest.raises(OutsideRoot):
        await cloned(tmp_path, Wish(f"file://{inside}", str(tmp_path / "r"), 30), root=root)
    await cloned(tmp_path, Wish(f"file://{inside}", "r", 30), root=root)
    assert sorted(os.listdir(root)) == ["inside", "r"]


async def test_hooks_of_the_remote_are_not_ours(tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin", a="1\n")
    hook = origin / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\n")
    hook.chmod(0o755)
    await cloned(tmp_path, Wish(f"file://{origin}", "r", 30))
    assert left(tmp_path) == ["r"]
