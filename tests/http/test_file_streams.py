"""Files of any size go up and down in pieces: memory stays as it is, and nothing is left of what breaks off."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import h11
import httpx
import pytest
import structlog
import trio
import trio.testing

from sandbox_http.bulk import BulkBody
from sandbox_http.problems import Problem
from support.daemon import running
from support.processes import eventually
from support.serving import Resources, serving
from support.wire import Stream, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.daemon import Daemon

LARGE = 256 << 20
GROWTH = 16 << 20
CHUNK = os.urandom(1 << 20)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: it is not the disk that is tested."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def target(path: Path | str, query: str = "") -> str:
    return f"/v1/fs/file?path={quote(str(path))}{query}"


def peak(daemon: Daemon) -> int:
    """The most memory that the daemon had since `forget_peak`."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def forget_peak(daemon: Daemon) -> int:
    """Begin to measure anew; gives what it has now."""
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
    return peak(daemon)


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield CHUNK


async def upload_some(daemon: Daemon, path: Path, *, of: int) -> trio.SocketStream:
    """Send the head of an upload and 1 MiB of it; gives the connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
    lines = [f"PUT {target(path)} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {of}"]
    lines += [f"{name}: {value}" for name, value in daemon.headers.items()]
    await stream.send_all("\r\n".join([*lines, "", ""]).encode() + CHUNK)
    return stream


async def test_a_quarter_of_a_gigabyte_goes_up_and_down_in_constant_memory(tmp_path: Path, place: Path) -> None:
    async with (
        running(tmp_path) as daemon,
        httpx.AsyncClient(base_url=daemon.url, headers=daemon.headers, trust_env=False, timeout=60) as client,
    ):
        for path in ("warm", "file"):
            count = LARGE // len(CHUNK) if path == "file" else 4
            before = forget_peak(daemon)
            answer = await client.put(target(place / path), content=chunks(count))
            assert answer.json()["bytesWritten"] == count * len(CHUNK)
            if path == "file":
                assert peak(daemon) - before < GROWTH
            before = forget_peak(daemon)
            async with client.stream("GET", target(place / path)) as answer:
                at = 0
                async for piece in answer.aiter_bytes(len(CHUNK)):
                    assert piece == CHUNK
                    at += len(piece)
            assert at == count * len(CHUNK)
            if path == "file":
                assert peak(daemon) - before < GROWTH


async def test_readers_that_stop_reading_cost_little_and_hold_up_nobody(tmp_path: Path, place: Path) -> None:
    (place / "file").write_bytes(CHUNK * 64)
    async with serving(tmp_path) as daemon:
        (place / "small").write_bytes(b"x")
        await exchange(daemon.port, "GET", target(place / "small"))
        before = Resources.now()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(partial(_stall, daemon.port, target(place / "file")))
            await trio.testing.wait_all_tasks_blocked(0.2)
            with trio.fail_after(5):
                assert (await exchange(daemon.port, "GET", target(place / "small"))).body == b"x"
            nursery.cancel_scope.cancel()
        await before.back()


async def _stall(port: int, path: str) -> None:
    async with Stream.open(port, path) as stream:
        await stream.more()
        await trio.sleep_forever()


async def test_nothing_is_left_of_an_upload_whose_client_goes(tmp_path: Path, place: Path) -> None:
    (place / "file").write_text("old")
    async with serving(tmp_path) as daemon:
        await exchange(daemon.port, "PUT", target(place / "warm"), body=b"")
        (place / "warm").unlink()
        before = Resources.now()
        for path in (place / "file", place / "new"):
            stream = await upload_some(daemon, path, of=64 << 20)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await stream.aclose()
        await before.back()
    assert os.listdir(place) == ["file"]
    assert (place / "file").read_text() == "old"


async def test_a_daemon_that_is_killed_leaves_nothing_of_an_upload(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with running(tmp_path / "daemon") as daemon, await upload_some(daemon, place / "file", of=1 << 30):
        with trio.fail_after(10):
            await eventually(lambda: _has_open(daemon.pid, place))
        await daemon.kill()
    assert os.listdir(place) == []


def _has_open(pid: int, place: Path) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith(f"{place}/"):
                return True
        except OSError:
            continue
    return False


async def test_chunked_and_empty_bodies_and_many_on_one_connection(tmp_path: Path, place: Path) -> None:
    data = CHUNK * 3
    async with serving(tmp_path) as daemon:
        answer = await exchange(daemon.port, "PUT", target(place / "a"), body=data, chunk=77_777)
        assert answer.json["bytesWritten"] == len(data)
        assert (await exchange(daemon.port, "PUT", target(place / "b"), body=b"")).json["bytesWritten"] == 0
        async with httpx.AsyncClient(base_url=daemon.url, trust_env=False) as client:
            for number in range(20):
                content = CHUNK[: number * 50_000]
                assert (await client.put(target(place / "c"), content=content)).status_code == 200
                assert (await client.get(target(place / "c"))).content == content
    assert (place / "a").read_bytes() == data
    assert (place / "b").read_bytes() == b""


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused_and_the_refusal_can_be_read(
    tmp_path: Path, place: Path, declared: bool
) -> None:
    (place / "file").write_text("old")
    async with serving(tmp_path, max_upload=1 << 20, max_body=10) as daemon:
        put = partial(exchange, daemon.port, "PUT", target(place / "file"), chunk=0 if declared else 60_000)
        for size in ((1 << 20) + 1, 20 << 20):
            answer = await put(body=CHUNK * (size >> 20) + CHUNK[: size & 0xFFFFF])
            assert (answer.status, answer.problem) == (413, "invalid_request")
            assert "--max-upload" in answer.detail
            assert answer.headers["connection"] == "close"
        assert (place / "file").read_text() == "old"
        assert (await put(body=CHUNK)).status == 200
    assert os.listdir(place) == ["file"]


async def test_who_is_refused_and_goes_on_sending_is_cut_off(tmp_path: Path, place: Path) -> None:
    async with serving(tmp_path) as daemon:
        await exchange(daemon.port, "PUT", target(place / "warm"), body=b"")
        before = Resources.now()
        with trio.fail_after(20):
            stream = await upload_some(daemon, place, of=1 << 40)  # onto a directory
            async with stream:
                answer = b""
                while b"\r\n\r\n{" not in answer:
                    answer += await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 502 ")
                with suppress(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(CHUNK)
        await before.back()


async def test_a_sender_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[dict[str, object]](1)
    async with send, receive:
        body = BulkBody(receive.receive, 0, 0)
        await send.send({"type": "http.request", "body": b"x", "more_body": True})
        assert await body.receive_some() == b"x"
        with pytest.raises(Problem) as refused:
            await body.receive_some()
    assert (refused.value.status, trio.current_time() > 29) == (408, True)


async def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(tmp_path: Path, place: Path) -> None:
    (place / "file").write_bytes(CHUNK * 64)
    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path) as daemon, Stream.open(daemon.port, target(place / "file")) as stream:
            await stream.more()
            os.truncate(place / "file", 1 << 20)
            with pytest.raises((h11.RemoteProtocolError, trio.BrokenResourceError)):
                await stream.rest()
            assert len(stream.body) < 64 << 20
    cut, request = logs
    assert (cut["log_level"], cut["why"]) == ("warning", "the file became shorter while it was sent")
    assert request["event"] == "request"


async def test_forty_writes_onto_a_fifo_hold_up_nobody(tmp_path: Path, place: Path) -> None:
    os.mkfifo(place / "fifo")
    statuses: list[int] = []

    async with serving(tmp_path) as daemon:

        async def ask(method: str) -> None:
            answer = await exchange(daemon.port, method, target(place / "fifo"), body=b"x" if method == "PUT" else b"")
            statuses.append(answer.status)

        async with trio.open_nursery() as nursery:
            for method in ["PUT", "GET"] * 20:
                nursery.start_soon(ask, method)
        assert statuses == [400] * 40
        assert (await exchange(daemon.port, "GET", "/v1/health")).status == 200


async def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = await trio.run_process(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_stderr=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        async with serving(tmp_path) as daemon:
            put = partial(exchange, daemon.port, "PUT", target(place / "file"))
            assert (await put(body=CHUNK)).status == 200
            answer = await put(body=CHUNK * 8)
            assert (answer.status, answer.problem) == (507, "insufficient_storage")
            assert (place / "file").read_bytes() == CHUNK
            assert os.listdir(place) == ["file"]
            assert (await put(body=CHUNK * 2)).status == 200
    finally:
        await trio.run_process(["umount", "--lazy", str(place)])


async def test_many_uploads_at_once_are_all_whole(tmp_path: Path, place: Path) -> None:
    async with serving(tmp_path) as daemon:

        async def put(number: int) -> None:
            body = bytes([number]) * (2 << 20)
            answer = await exchange(daemon.port, "PUT", target(place / f"{number % 4}"), body=body)
            assert json.loads(answer.body)["bytesWritten"] == len(body)

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(put, number)
    assert sorted(os.listdir(place)) == list("0123")
    for name in "0123":
        data = (place / name).read_bytes()
        assert data == data[:1] * (2 << 20)
