"""Folders come in and go out as archives: what the wire says, and what is left when something breaks off."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import structlog
import trio

from actors.packing import Item, compressed, listing, tar, zip_archive
from sandbox_actors.archives import ArchiveFormat
from support.daemon import running
from support.processes import eventually
from support.serving import Resources, serving
from support.wire import Answer, Stream, exchange, request_bytes

if TYPE_CHECKING:
    from support.daemon import Daemon

TAR = "application/x-tar"
ITEMS = [Item("folder/", type=tarfile.DIRTYPE, mode=0o755), Item("folder/file", b"content"), Item("other", b"x")]
UNPACKED = {"folder": "/", "folder/file": "content", "other": "x"}

LARGE = 192 << 20
GROWTH = 16 << 20


def upload(path: Path | str) -> str:
    return f"/v1/fs/upload-batch?path={quote(str(path))}"


def download(path: Path | str, format: str = "tar") -> str:
    return f"/v1/fs/archive?path={quote(str(path))}&format={format}"


async def sent(daemon: Daemon, path: Path, content: bytes, media_type: str | None = TAR, chunk: int = 0) -> Answer:
    headers = {**daemon.headers} if media_type is None else {**daemon.headers, "Content-Type": media_type}
    return await exchange(daemon.port, "POST", upload(path), headers, content, chunk=chunk, within=30)


def head_of_upload(path: Path, headers: dict[str, str], length: int) -> bytes:
    """The head of a request whose body is sent by hand."""
    head = request_bytes("POST", upload(path), {**headers, "Content-Type": TAR})
    return head.replace(b"Content-Length: 0", b"Content-Length: %d" % length)


@pytest.mark.parametrize(
    ("media_type", "format"),
    [
        (TAR, ArchiveFormat.TAR),
        ("application/x-tar; charset=binary", ArchiveFormat.TAR),
        ("application/gzip", ArchiveFormat.TAR_GZ),
        ("application/x-gtar+gzip", ArchiveFormat.TAR_GZ),
        ("Application/X-GTar", ArchiveFormat.TAR_GZ),
        ("application/zstd", ArchiveFormat.TAR_ZST),
        ("application/zip", ArchiveFormat.ZIP),
    ],
)
async def test_an_archive_is_unpacked_and_its_paths_are_told(
    tmp_path: Path, media_type: str, format: ArchiveFormat
) -> None:
    content = zip_archive(ITEMS) if format is ArchiveFormat.ZIP else compressed(tar(ITEMS), format)
    async with serving(tmp_path / "home") as daemon:
        for number, chunk in enumerate([0, 100]):
            folder = tmp_path / str(number) / "new"
            answer = await sent(daemon, folder, content, media_type, chunk)
            assert answer.status == 200, answer
            paths = [f"{folder}/folder", f"{folder}/folder/file", f"{folder}/other"]
            assert answer.json == {"paths": paths, "truncated": False}
            assert listing(folder) == UNPACKED


async def test_what_is_no_archive_and_what_is_not_taken_are_told_as_on_the_public_wire(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    long = tar([Item(str(number)) for number in range(1100)])
    async with serving(tmp_path / "home") as daemon:
        for media_type in (None, "application/json", "x-tar"):
            answer = await sent(daemon, tmp_path / "x", tar(ITEMS), media_type)
            assert (answer.status, answer.problem) == (400, "invalid_request")
            assert answer.detail.startswith("invalid request: content-type must be application/x-tar")
        outcomes = {
            "an absolute path": (tar([Item("/x")]), tmp_path / "x", 400, "invalid relative path: /x"),
            "a way up": (tar([Item("a/../../x")]), tmp_path / "x", 400, "invalid relative path: a/../../x"),
            "a link out": (
                tar([Item("l", type=tarfile.SYMTYPE, target="/tmp"), Item("l/x")]), tmp_path / "x", 400, "leads out",
            ),
            "damage": (tar(ITEMS)[:1000], tmp_path / "x", 502, "stream error: the archive is damaged"),
            "a file": (tar(ITEMS), tmp_path / "file", 400, "path is not a directory"),
            "a file above": (tar(ITEMS), tmp_path / "file" / "x", 400, "path is not a directory"),
            "a conflict": (tar([Item("home", b"x")]), tmp_path, 409, "is a folder, and something else"),
            "an empty body": (b"", tmp_path / "empty", 200, '{"paths":[],"truncated":false}'),
            "many": (long, tmp_path / "many", 200, '"truncated":true'),
        }  # fmt: skip
        for what, (content, path, status, said) in outcomes.items():
            answer = await sent(daemon, path, content)
            assert answer.status == status, (what, answer)
            assert said in answer.body.decode(), what
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "home", "many"]
    assert len(os.listdir(tmp_path / "many")) == 1100


async def test_an_archive_that_is_more_than_it_may_be_is_413(tmp_path: Path) -> None:
    bomb = compressed(tar([Item("a")]) + bytes(300 << 20), ArchiveFormat.TAR_ZST)
    async with serving(tmp_path / "home", max_upload=1 << 20) as daemon:
        for content, media_type in ((bomb, "application/zstd"), (tar([Item("a", bytes(2 << 20))]), TAR)):
            answer = await sent(daemon, tmp_path / "x", content, media_type)
            assert (answer.status, answer.problem) == (413, "invalid_request")
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("format", ArchiveFormat)
async def test_a_folder_is_sent_as_an_archive(tmp_path: Path, format: ArchiveFormat) -> None:
    folder = tmp_path / "a folder"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder" / "file").write_text("content")
    (folder / "other").write_text("x")
    async with serving(tmp_path / "home") as daemon:
        answer = await exchange(daemon.port, "GET", download(folder, format.value))
        assert answer.status == 200
        assert answer.complete
        assert answer.headers["content-type"] == format.media_type
        name = f"a%20folder.{format.value}"
        assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
        back = await sent(daemon, tmp_path / "back", answer.body, format.media_type)
        assert back.status == 200
        head = await exchange(daemon.port, "HEAD", download(folder, format.value))
        assert (head.status, head.body) == (200, b"")
    assert listing(tmp_path / "back") == UNPACKED
    if format is ArchiveFormat.ZIP:
        assert zipfile.ZipFile(io.BytesIO(answer.body)).testzip() is None


async def test_what_cannot_be_sent_as_an_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "root").mkdir()
    async with serving(tmp_path / "home", fs_root=tmp_path / "root") as daemon:
        outcomes = {
            "/v1/fs/archive": (400, "missing required"),
            download(tmp_path / "root", "rar"): (400, "expected one of tar, tar.gz, tar.zst, zip"),
            download(tmp_path / "root" / "none"): (400, "path not found"),
            download(tmp_path): (403, "permission denied"),
            download(tmp_path / "root" / ".." / "file"): (403, "permission denied"),
        }
        for target, (status, said) in outcomes.items():
            answer = await exchange(daemon.port, "GET", target)
            assert (answer.status, said in answer.detail) == (status, True), (target, answer)
        answer = await sent(daemon, tmp_path / "outside", tar(ITEMS))
        assert (answer.status, answer.problem) == (403, "permission_denied")
    assert sorted(os.listdir(tmp_path)) == ["file", "home", "root"]


async def test_a_client_that_leaves_in_the_middle_of_an_archive_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    content = tar([Item("first", b"x"), Item("large", bytes(8 << 20))])
    async with serving(tmp_path / "home") as daemon:
        await exchange(daemon.port, "GET", "/v1/health")
        before = Resources.now()
        head = head_of_upload(folder, {}, len(content))
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(head + content[: 4 << 20])
            with trio.fail_after(10):
                await eventually(lambda: os.listdir(folder))
        with trio.fail_after(10):
            await eventually(lambda: not os.listdir(folder))
        await before.back()


async def test_a_client_that_leaves_in_the_middle_of_a_download_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "large").touch()
    os.truncate(folder / "large", 1 << 30)
    async with serving(tmp_path / "home") as daemon:
        await exchange(daemon.port, "GET", "/v1/health")
        before = Resources.now()
        for format in ArchiveFormat:
            async with Stream.open(daemon.port, download(folder, format.value)) as stream:
                assert await stream.more()
        await before.back()


async def test_what_goes_wrong_in_the_middle_of_a_download_cuts_it(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "z" / "/".join("d" * 300)).mkdir(parents=True)
    (folder / "a").write_bytes(os.urandom(1 << 20))
    async with serving(tmp_path / "home") as daemon:
        with structlog.testing.capture_logs() as logs:
            answer = await exchange(daemon.port, "GET", download(folder))
            assert (answer.status, answer.complete) == (200, False)
            with trio.fail_after(10):
                await eventually(lambda: any(entry["event"] == "request" for entry in logs))
    cut, _ = logs
    assert (cut["event"], cut["log_level"]) == ("an answer was cut off", "warning")
    assert cut["why"].startswith("the path is too long")


@pytest.mark.alone
async def test_however_large_an_archive_is_it_takes_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    info = tarfile.TarInfo("large")
    info.size = LARGE
    piece = bytes(1 << 20)
    async with running(tmp_path / "home") as daemon:
        await sent(daemon, tmp_path / "warm", tar(ITEMS))
        await exchange(daemon.port, "GET", download(tmp_path / "warm"), daemon.headers)
        before = _peak(daemon)
        head = head_of_upload(folder, daemon.headers, LARGE + 1536)
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(head + info.tobuf())
            for _ in range(LARGE >> 20):
                await stream.send_all(piece)
            await stream.send_all(bytes(1024))
            answer = b""
            with trio.fail_after(30):
                while not answer.endswith(b'"truncated":false}'):
                    answer += await stream.receive_some(1 << 16)
        assert (folder / "large").stat().st_size == LARGE
        async with Stream.open(daemon.port, download(folder), daemon.headers) as download_stream:
            size = 0
            while more := await download_stream.more():
                size += len(more)
                download_stream.body = b""
        assert size > LARGE
        assert _peak(daemon) - before < GROWTH


def _peak(daemon: Daemon) -> int:
    """The most memory that the daemon ever had."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
