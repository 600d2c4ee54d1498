"""`Files`, against a real daemon: what is written is read, and what breaks off is an error."""

from __future__ import annotations

import os
import resource
import tracemalloc
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from sandbox_agent.errors import (
    ApiError,
    BadRequest,
    ConnectionFailed,
    InvalidRequest,
    PreconditionFailed,
    RangeNotSatisfiable,
    SandboxAgentError,
)
from sandbox_agent.files import Files
from support.transports import connected, lasting, under

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from sandbox_agent.transport import Transport
    from support.daemon import Daemon

MIB = 1 << 20

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = tmp_path_factory.mktemp("files-client")
    with lasting(home, "--max-upload", str(96 * MIB), HOME=str(home)) as daemon:
        yield daemon


async def zeros(count: int) -> AsyncGenerator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


@BACKENDS
def test_what_is_written_is_read(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        files = Files(transport)
        written = await files.write(f"{backend}/deep/grüße.txt", "hällo\u2028", mode=0o600)
        assert written.bytes_written == 9
        assert written.etag.startswith('"')
        assert await files.read_text(f"{backend}/deep/grüße.txt") == "hällo\u2028"
        told = await files.stat(written.path)
        assert (told.entry_type, told.size, told.permissions) == ("file", 9, 0o600)
        await files.write(written.path, b" there", append=True)
        assert await files.read(written.path) == "hällo\u2028 there".encode()
        await files.chmod(written.path, 0o640)
        assert [(one.name, one.permissions) for one in await files.list(f"{backend}/deep")] == [("grüße.txt", 0o640)]
        await files.move(written.path, f"{backend}/moved.txt")
        assert not await files.exists(written.path)
        assert await files.exists(f"{backend}/moved.txt")
        await files.mkdir(f"{backend}/deep/er/still")
        await files.mkdir(f"{backend}/deep/er/still")
        with pytest.raises(ApiError):
            await files.delete(f"{backend}/deep")
        await files.delete(f"{backend}/deep", recursive=True)
        assert [one.name for one in await files.list(backend)] == ["moved.txt"]

    under(backend, daemon, body)


async def test_a_missing_file_is_an_invalid_request_and_does_not_exist(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        await files.write("plain", b"")
        with pytest.raises(InvalidRequest, match="path not found") as caught:
            await files.read("nowhere")
        assert caught.value.status == 400
        assert not await files.exists("nowhere")
        assert not await files.exists("plain/below")
        with pytest.raises(InvalidRequest):
            await files.exists("a\0b")


async def test_a_condition_that_does_not_hold_changes_nothing(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        first = await files.write("conditional", b"1", if_none_match="*")
        with pytest.raises(PreconditionFailed):
            await files.write("conditional", b"2", if_none_match="*")
        second = await files.write("conditional", b"3", if_match=first.etag)
        with pytest.raises(PreconditionFailed):
            await files.write("conditional", b"4", if_match=first.etag)
        async with files.open_read("conditional") as pieces:
            assert (pieces.size, pieces.etag) == (1, second.etag)
            assert [piece async for piece in pieces] == [b"3"]


async def test_a_part_of_a_file_is_that_part(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        await files.write("digits", b"0123456789")
        for start, end, expected in ((3, 5, b"34"), (7, None, b"789"), (0, 1, b"0"), (8, 99, b"89")):
            async with files.open_read("digits", start, end) as pieces:
                assert pieces.size == 10
                assert b"".join([piece async for piece in pieces]) == expected
        with pytest.raises(RangeNotSatisfiable):
            async with files.open_read("digits", 10):
                pass
        with pytest.raises(ValueError, match="no part"):
            async with files.open_read("digits", 5, 5):
                pass
        with pytest.raises(SandboxAgentError, match="in parts"):
            async with files.open_read("/proc/version", 1):
                pass


async def test_a_large_list_comes_in_pages(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        for number in range(5):
            await files.write(f"pages/{number}", b"")
        first = await files.list("pages", limit=3)
        assert [one.name for one in first] == ["0", "1", "2"]
        assert [one.name for one in await files.list("pages", limit=3, after=first[-1].name)] == ["3", "4"]


@BACKENDS
def test_a_large_file_goes_both_ways_in_constant_memory(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        files = Files(transport)
        tracemalloc.start()
        try:
            await files.write(f"large-{backend}", zeros(64))
            read = 0
            async with files.open_read(f"large-{backend}") as pieces:
                assert pieces.size == 64 * MIB
                async for piece in pieces:
                    read += len(piece)
            assert read == 64 * MIB
            assert tracemalloc.get_traced_memory()[1] < 16 * MIB
        finally:
            tracemalloc.stop()
        await files.delete(f"large-{backend}")

    under(backend, daemon, body)


async def test_a_body_that_is_too_large_is_refused_while_it_is_sent(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        with pytest.raises(BadRequest) as caught:
            await Files(transport).write("huge", zeros(200))
        assert caught.value.status == 413
        assert not await Files(transport).exists("huge")


@BACKENDS
def test_a_sender_that_fails_leaves_nothing(backend: str, daemon: Daemon) -> None:
    ended: list[str] = []

    async def failing() -> AsyncGenerator[bytes]:
        try:
            yield bytes(MIB)
            raise RuntimeError("no more")
        finally:
            await anyio.lowlevel.checkpoint()
            ended.append(backend)

    async def body(transport: Transport) -> None:
        files = Files(transport)
        with pytest.raises(RuntimeError, match="no more"):
            await files.write(f"half-{backend}", failing())
        assert not await files.exists(f"half-{backend}")
        assert ended == [backend]

    under(backend, daemon, body)


async def test_a_download_that_is_cut_off_is_an_error_and_no_short_file(daemon: Daemon, tmp_path: Path) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        shrinking = daemon.home / "shrinking"
        shrinking.write_bytes(bytes(64 * MIB))
        read = 0
        async with files.open_read("shrinking") as pieces:
            with pytest.raises(ConnectionFailed, match="cut off"):  # noqa: PT012  # somewhere in the loop
                async for piece in pieces:
                    read += len(piece)
                    os.truncate(shrinking, MIB)
        assert MIB <= read < 64 * MIB
        assert await files.read("shrinking") == bytes(MIB)  # the transport is as good as before


@BACKENDS
def test_a_file_goes_up_and_comes_down_with_its_permissions(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    async def body(transport: Transport) -> None:
        files = Files(transport)
        content = os.urandom(3 * MIB + 1)
        (tmp_path / "tool").write_bytes(content)
        (tmp_path / "tool").chmod(0o750)
        assert await files.upload(tmp_path / "tool", f"up-{backend}/tool") == ()
        assert (await files.stat(f"up-{backend}/tool")).permissions == 0o750
        (tmp_path / "back").write_bytes(b"older")
        assert await files.download(f"up-{backend}/tool", tmp_path / "back") == ()
        assert (tmp_path / "back").read_bytes() == content
        assert (tmp_path / "back").stat().st_mode & 0o777 == 0o750
        with pytest.raises(FileNotFoundError):
            await files.upload(tmp_path / "nothing", "nothing")
        with pytest.raises(InvalidRequest):
            await files.download("nowhere", tmp_path / "nowhere")
        assert sorted(os.listdir(tmp_path)) == ["back", "tool"]

    under(backend, daemon, body)


async def test_leaving_a_download_early_leaves_the_transport_usable(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        await files.write("left", zeros(8))
        async with files.open_read("left") as pieces:
            assert await anext(pieces)
        with pytest.raises(KeyError):
            async with files.open_read("left") as pieces:
                raise KeyError
        with anyio.move_on_after(0.01):
            await files.read("left")
        assert len(await files.read("left")) == 8 * MIB


@BACKENDS
def test_what_is_no_file_here_is_told_at_once(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    async def body(transport: Transport) -> None:
        files = Files(transport)
        with pytest.raises(OSError, match="neither a file nor a folder"):
            await files.upload(tmp_path / "pipe", f"piped-{backend}")
        assert not await files.exists(f"piped-{backend}")
        await files.write("some.txt", "some")
        for place in (tmp_path, ".", "..", "/"):
            with pytest.raises(IsADirectoryError):
                await files.download("some.txt", place)
        await files.mkdir("some")
        with pytest.raises(OSError, match=r"a name of its own|is no empty folder"):
            await files.download("some", ".")
        assert os.listdir(tmp_path) == ["pipe"]

    under(backend, daemon, body)


async def test_nobody_else_may_read_what_is_being_downloaded(daemon: Daemon, tmp_path: Path) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        await files.write("secret", zeros(32), mode=0o600)
        modes: set[int] = set()

        async def look() -> None:
            while True:
                modes.update(entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await files.download("secret", tmp_path / "secret")
            tasks.cancel_scope.cancel()
        assert modes == {0o600}


@BACKENDS
def test_a_download_to_a_full_disk_says_so_and_leaves_nothing(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    async def body(transport: Transport) -> None:
        files = Files(transport)
        await files.write(f"full-{backend}/large", zeros(2))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                await files.download(f"full-{backend}/large", tmp_path / "file")
            with pytest.raises(OSError, match="File too large"):
                await files.download(f"full-{backend}", tmp_path / "folder")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert os.listdir(tmp_path) == []

    under(backend, daemon, body)
