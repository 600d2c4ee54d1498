"""A tree is watched over HTTP: what is told, and what happens to who listens slowly, leaves, or is left."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trio

from support.daemon import running
from support.serving import Resources, serving
from support.wire import Closed, Json, Stream, WebSocket, exchange, request_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from support.serving import Local

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
"""Notices that the kernel keeps."""


def watch(path: Path, query: str = "") -> str:
    return f"/v1/fs/watch?path={quote(str(path))}{query}"


class Watcher:
    """A client that watches, by either wire."""

    def __init__(self, client: Stream | WebSocket) -> None:
        self._client = client
        self._read = 0
        self.told: list[Json] = []

    async def until(self, type: str, path: Path | None = None) -> Json:
        """Read until this is told."""
        with trio.fail_after(20):
            while True:
                for message in self.told[self._read :]:
                    self._read += 1
                    if message["type"] == type and (path is None or message["path"] == str(path)):
                        return message
                await self._more()

    async def _more(self) -> None:
        if isinstance(self._client, WebSocket):
            self.told.append(await self._client.receive_json())
            return
        assert await self._client.more(), "ended"
        whole = self._client.body.rpartition(b"\n\n")[0]
        self._client.body = self._client.body.removeprefix(whole)
        for event in whole.decode().split("\n\n"):
            if event.strip() and not event.startswith(":"):
                name, data = event.strip().split("\n")
                self.told.append(json.loads(data.removeprefix("data: ")))
                assert name == f"event: {self.told[-1]['type']}"


@asynccontextmanager
async def watching(daemon: Local, path: Path, wire: str, query: str = "") -> AsyncGenerator[Watcher]:
    if wire == "websocket":
        async with WebSocket.open(daemon.port, watch(path, query), daemon.headers) as client:
            yield Watcher(client)
    else:
        async with Stream.open(daemon.port, watch(path, query), daemon.headers) as client:
            assert client.head.headers["content-type"] == "text/event-stream"
            yield Watcher(client)


WIRES = ["events", "websocket"]


@pytest.mark.parametrize("wire", WIRES)
async def test_what_happens_in_a_tree_is_told(tmp_path: Path, wire: str) -> None:
    top = tmp_path / "top"
    (top / "folder").mkdir(parents=True)
    async with serving(tmp_path / "home") as daemon, watching(daemon, top, wire) as watcher:
        assert await watcher.until("ready") == {"type": "ready", "path": str(top), "folders": 2}
        file = top / "folder" / "file"
        file.write_text("x")
        created = await watcher.until("created", file)
        assert created == {"type": "created", "path": str(file), "entryType": "file"}
        file.write_text("y")
        await watcher.until("modified", file)
        file.rename(top / "moved")
        moved = await watcher.until("moved")
        assert moved == {"type": "moved", "path": str(top / "moved"), "entryType": "file", "from": str(file)}
        (top / "folder").rmdir()
        deleted = await watcher.until("deleted")
        assert deleted == {"type": "deleted", "path": str(top / "folder"), "entryType": "directory"}
        shutil.rmtree(top)
        assert await watcher.until("gone") == {"type": "gone", "path": str(top)}


@pytest.mark.parametrize("wire", WIRES)
async def test_a_thousand_files_appear_change_and_vanish_and_nothing_is_missed(tmp_path: Path, wire: str) -> None:
    top = tmp_path / "top"
    top.mkdir()

    def make_trouble() -> None:
        for number in range(1000):
            (top / str(number)).write_text("x")
        for number in range(1000):
            with (top / str(number)).open("a") as file:
                file.write("more")
        for number in range(1000):
            (top / str(number)).unlink()
        (top / "last").touch()

    async with serving(tmp_path / "home") as daemon, watching(daemon, top, wire) as watcher:
        await watcher.until("ready")
        trouble = threading.Thread(target=make_trouble)
        trouble.start()
        await watcher.until("created", top / "last")
        trouble.join()
    assert {message["type"] for message in watcher.told} <= {"ready", "created", "modified", "deleted"}
    told: dict[str, list[str]] = {}
    for message in watcher.told[1:]:
        told.setdefault(message["path"], []).append(message["type"])
    for number in range(1000):
        kinds = told[str(top / str(number))]
        assert (kinds[0], kinds[-1]) == ("created", "deleted"), (number, kinds)


async def test_every_change_of_a_thousand_files_in_new_folders_is_told_once_to_each_listener(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    files = [top / f"{number % 25}" / "inside" / f"{number}" for number in range(1000)]
    async with (
        serving(tmp_path / "home") as daemon,
        watching(daemon, top, "events") as one,
        watching(daemon, top, "websocket") as other,
    ):

        async def happened(kind: str) -> None:
            # A marker behind each kind of change: what is written to as soon as it is made is told as made.
            (top / kind).touch()
            for watcher in (one, other):
                await watcher.until("created", top / kind)

        for watcher in (one, other):
            await watcher.until("ready")
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x")
        await happened("made")
        for file in files:
            with file.open("a") as opened:
                opened.write("more")
        await happened("changed")
        for number in range(25):
            shutil.rmtree(top / f"{number}")
        await happened("gone")
    expected = sorted((kind, str(file)) for kind in ("created", "modified", "deleted") for file in files)
    for watcher in (one, other):
        of_files = [message for message in watcher.told if "/inside/" in message["path"]]
        assert sorted((message["type"], message["path"]) for message in of_files) == expected


async def test_how_it_ends_is_told(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    async with (
        serving(tmp_path / "home") as daemon,
        WebSocket.open(daemon.port, watch(top)) as socket,
        Stream.open(daemon.port, watch(top)) as stream,
    ):
        await socket.until(type="ready")
        await stream.until(b"event: ready")
        top.rmdir()
        with trio.fail_after(10):
            assert await socket.end() == Closed(4404, "the folder is not there any more")
            assert b"event: gone" in await stream.rest()


async def test_watchers_are_told_of_the_shutdown(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "home") as daemon,
        WebSocket.open(daemon.port, watch(tmp_path), daemon.headers) as socket,
        Stream.open(daemon.port, watch(tmp_path), daemon.headers) as stream,
        trio.open_nursery() as nursery,
    ):
        await socket.until(type="ready")
        await stream.until(b"event: ready")
        nursery.start_soon(daemon.stop)
        await socket.until(type="stopping")
        assert await socket.end() == Closed(1001, "the daemon is shutting down")
        assert b"event: stopping" in await stream.rest()


async def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "root").mkdir()
    async with serving(tmp_path / "home", fs_root=tmp_path / "root") as daemon:
        outcomes = {
            "/v1/fs/watch": 400,
            watch(tmp_path / "root" / "none"): 400,
            watch(tmp_path / "root", "&recursive=yes"): 400,
            watch(tmp_path): 403,
        }
        for target, status in outcomes.items():
            assert (await exchange(daemon.port, "GET", target)).status == status, target
            async with WebSocket.open(daemon.port, target) as socket:
                assert socket.refusal is not None
                assert socket.refusal.status == status, target
        head = await exchange(daemon.port, "HEAD", watch(tmp_path / "root"))
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("wire", WIRES)
async def test_a_watcher_that_leaves_is_forgotten(tmp_path: Path, wire: str) -> None:
    top = tmp_path / "top"
    top.mkdir()
    async with serving(tmp_path / "home") as daemon:
        await exchange(daemon.port, "GET", "/v1/health")
        before = Resources.now()
        for _ in range(5):
            async with watching(daemon, top, wire) as watcher:
                await watcher.until("ready")
        await before.back()


async def test_a_watcher_that_does_not_read_is_told_that_it_has_missed_something(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()

    def make_trouble() -> None:
        name = "n" * 200
        for number in range(QUEUE * 3 // 2):
            path = top / f"{name}{number}"
            path.touch()
            path.unlink()

    async with serving(tmp_path / "home") as daemon:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        async with stream:
            await stream.socket.connect(("127.0.0.1", daemon.port))
            await stream.send_all(request_bytes("GET", watch(top)))
            heard = b""
            while b"event: ready" not in heard:
                heard += await stream.receive_some(4096)
            await trio.to_thread.run_sync(make_trouble)
            # Others are served as ever.
            async with watching(daemon, top, "events") as other:
                await other.until("ready")
                (top / "seen").touch()
                await other.until("created", top / "seen")
            with trio.fail_after(60):
                while b"event: overflow" not in heard[-(1 << 20) :]:
                    heard = heard[-(1 << 20) :] + await stream.receive_some(1 << 20)
