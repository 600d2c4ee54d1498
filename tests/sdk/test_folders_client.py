"""Whole folders, changes and searches, against a real daemon."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.errors import ConnectionFailed, InvalidRequest, StreamError
from sandbox_agent.files import Files
from sandbox_agent.tars import unpack
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
    home = tmp_path_factory.mktemp("folders-client")
    with lasting(home, HOME=str(home)) as daemon:
        yield daemon


def seen(folder: Path) -> dict[str, tuple[str, object]]:
    """Everything below a folder: what it is, and what is in it."""
    found: dict[str, tuple[str, object]] = {}
    for path in folder.rglob("*"):
        name, mode = str(path.relative_to(folder)), f"{path.lstat().st_mode & 0o777:o}"
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder", mode)
        else:
            found[name] = (mode, path.read_bytes())
    return found


@BACKENDS
def test_a_folder_goes_up_and_comes_down_as_it_was(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "a" / "deep" / ("long" * 40)).mkdir(parents=True)
    (here / "empty").mkdir()
    (here / "a" / "tool.sh").write_text("#!/bin/sh\n")
    (here / "a" / "tool.sh").chmod(0o755)
    (here / "a" / "deep" / ("long" * 40) / "grüße \u2028.txt").write_bytes(os.urandom(700_000))
    (here / os.fsdecode(b"no-utf8-\xff")).write_bytes(b"1")
    (here / "a" / "up").symlink_to("../empty")
    (here / "a" / "twin").hardlink_to(here / "a" / "tool.sh")
    expected = seen(here)
    (here / "python").symlink_to("/usr/bin/python3")
    (here / "a" / "out").symlink_to("../../elsewhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "socket"))

        async def body(transport: Transport) -> None:
            files = Files(transport)
            left_out = await files.upload(here, f"tree-{backend}")
            assert sorted(left_out) == ["a/out", "python", "socket"]
            assert await files.download(f"tree-{backend}", tmp_path / "back") == ()
            assert seen(tmp_path / "back") == expected
            with pytest.raises(FileExistsError):
                await files.download(f"tree-{backend}", tmp_path / "back")
            assert sorted(os.listdir(tmp_path)) == ["back", "here"]

        under(backend, daemon, body)


async def test_what_leads_out_of_a_folder_does_not_come_down(daemon: Daemon, tmp_path: Path) -> None:
    there = daemon.home / "venv"
    (there / "bin").mkdir(parents=True)
    (there / "bin" / "python").symlink_to("/usr/bin/python3")
    (there / "bin" / "escape").symlink_to("../../../etc")
    (there / "bin" / "pip").write_text("pip")
    async with connected(daemon) as transport:
        left_out = await Files(transport).download("venv", tmp_path / "venv")
    assert sorted(left_out) == ["bin/escape", "bin/python"]
    assert seen(tmp_path / "venv").keys() == {"bin", "bin/pip"}


@BACKENDS
def test_a_large_folder_goes_both_ways_in_constant_memory(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    with (tmp_path / "large" / "zeros").open("wb") as file:
        file.truncate(48 * MIB)

    async def body(transport: Transport) -> None:
        files = Files(transport)
        tracemalloc.start()
        try:
            await files.upload(tmp_path / "large", f"large-{backend}")
            await files.download(f"large-{backend}", tmp_path / "back")
            assert tracemalloc.get_traced_memory()[1] < 16 * MIB
        finally:
            tracemalloc.stop()
        assert (tmp_path / "back" / "zeros").stat().st_size == 48 * MIB
        await files.delete(f"large-{backend}", recursive=True)

    under(backend, daemon, body)


@BACKENDS
def test_a_folder_that_is_not_wanted_any_more_leaves_nothing(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    there = daemon.home / f"wide-{backend}"
    there.mkdir()
    with (there / "zeros").open("wb") as file:
        file.truncate(1 << 30)

    async def body(transport: Transport) -> None:
        files = Files(transport)
        with anyio.move_on_after(0.1) as scope:
            await files.download(there.name, tmp_path / "back")
        assert scope.cancelled_caught
        assert os.listdir(tmp_path) == []
        with anyio.move_on_after(0.1) as scope:
            await files.upload(there, f"up-{backend}")
        assert scope.cancelled_caught
        assert not await files.exists(f"up-{backend}")

    under(backend, daemon, body)


@BACKENDS
def test_a_folder_that_is_cut_off_is_an_error_and_leaves_nothing(backend: str, daemon: Daemon, tmp_path: Path) -> None:
    async def body(transport: Transport) -> None:
        async def cut(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                told = b""
                while b"\r\n\r\n" not in told:
                    told += await stream.receive()
                if b"/v1/fs/stat" in told:
                    answer = b'{"path":"/x","entryType":"directory","size":0,"modified":"","mode":"0755"}'
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(answer)
                    await stream.send(head + answer)
                    return
                tar = io.BytesIO()
                with tarfile.open(fileobj=tar, mode="w") as writing:
                    info = tarfile.TarInfo("whole")
                    info.size = 100_000
                    writing.addfile(info, io.BytesIO(bytes(100_000)))
                half = tar.getvalue()[:50_000]
                await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % 50_000)
                await stream.send(half + b"\r\n")

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, cut)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            transport.endpoint = type(transport.endpoint)(f"http://127.0.0.1:{port}")
            with pytest.raises(ConnectionFailed):
                await Files(transport).download("x", tmp_path / "back")
            tasks.cancel_scope.cancel()
        assert os.listdir(tmp_path) == []

    under(backend, daemon, body)


@BACKENDS
def test_an_archive_without_an_end_is_unpacked_and_no_archive_is_refused(backend: str, tmp_path: Path) -> None:
    async def pieces(data: bytes) -> AsyncGenerator[bytes]:
        yield data

    async def body() -> None:
        tar = tarfile.TarInfo("empty").tobuf()
        with anyio.fail_after(10):
            assert await unpack(pieces(tar), tmp_path) == ()
            assert os.listdir(tmp_path) == ["empty"]
            for data in (b"garbage" * 1000, tar[:100]):
                with pytest.raises(tarfile.ReadError):
                    await unpack(pieces(data), tmp_path)

    anyio.run(body, backend=backend)


async def test_archives_of_other_formats_go_in_and_out(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        await files.write("some/one", b"1")
        async with files.open_archive("some", "zip") as pieces:
            packed = b"".join([piece async for piece in pieces])
        unpacked = await files.unpack(packed, "other", "zip")
        assert [path.rpartition("/")[2] for path in unpacked.paths] == ["one"]
        assert not unpacked.truncated
        assert await files.read("other/one") == b"1"
        with pytest.raises(StreamError):
            await files.unpack(packed[:-10], "third", "zip")
        assert not await files.exists("third")


@BACKENDS
def test_changes_are_told_until_the_folder_is_gone(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        files = Files(transport)
        await files.mkdir(f"watched-{backend}/in")
        told: list[tuple[str, str, str | None]] = []
        async with files.watch(f"watched-{backend}") as changes:
            async for change in changes:
                told.append((change.type, change.path.rpartition("/")[2], change.entry_type))
                match change.type, change.path.rpartition("/")[2]:
                    case "ready", _:
                        await files.mkdir(f"watched-{backend}/in/new")
                    case "created", "new":
                        await files.move(f"watched-{backend}/in/new", f"watched-{backend}/newer")
                    case "moved", "newer":
                        assert change.source is not None
                        assert change.source.endswith("/in/new")
                        await files.delete(f"watched-{backend}", recursive=True)
        assert told[:3] == [
            ("ready", f"watched-{backend}", None),
            ("created", "new", "directory"),
            ("moved", "newer", "directory"),
        ]
        assert told[-1][0] == "gone"

    under(backend, daemon, body)


async def test_what_cannot_be_watched_is_told_on_the_first_step(daemon: Daemon) -> None:
    async with connected(daemon) as transport, Files(transport).watch("nowhere") as changes:
        with pytest.raises(InvalidRequest):
            await anext(changes)


async def test_names_and_lines_are_found(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        files = Files(transport)
        await files.write("code/a.py", "x = 1\nTODO: y + y\n")
        await files.write("code/skip/b.py", "# todo\n")
        await files.write("code/c.txt", "TODO\u2028\n")
        found = await files.find("code", globs=["*.py", "!skip"])
        assert [entry.name for entry in found.entries] == ["a.py"]
        assert (found.truncated, found.reason) == (False, None)
        folders = await files.find("code", type="directory", timeout=5)
        assert [entry.name for entry in folders.entries] == ["skip"]
        matches = await files.grep("code", "y", globs=["*.py"])
        (line,) = matches.matches
        assert (line.line, line.column, line.text) == (2, 7, "TODO: y + y")
        assert [(span.start, span.end) for span in line.matches] == [(6, 7), (10, 11)]
        todo = await files.grep("code", "todo", ignore_case=True, fixed=True)
        assert sorted(line.text for line in todo.matches) == ["# todo", "TODO: y + y", "TODO\u2028"]
        few = await files.grep("code", "todo", ignore_case=True, limit=1)
        assert (len(few.matches), few.truncated, few.reason) == (1, True, "limit")
        with pytest.raises(InvalidRequest):
            await files.grep("code", "(")


def tar_of(*members: tuple[str, bytes, str]) -> bytes:
    """Names, types, and where links lead, or what is in files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as writing:
        for name, kind, said in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                info.size = len(said)
            else:
                info.linkname = said
            writing.addfile(info, io.BytesIO(said.encode()))
    return tar.getvalue()


def longer_than_paths_are() -> bytes:
    """A link whose folder has a short name through other links, and a real one that is too long to be looked up."""
    long, short = "d" * 247, "abcdefghijklmnop"
    members: list[tuple[str, bytes, str]] = []
    above = ""
    for letter in short:
        members += [(above + long, tarfile.DIRTYPE, ""), (above + letter, tarfile.SYMTYPE, long)]
        above += f"{long}/"
    link = "/".join([*short, "l" * 254])
    members += [(link, tarfile.SYMTYPE, "../" * len(short)), ("way", tarfile.SYMTYPE, f"{link}/../outside")]
    return tar_of(*members, ("way/file", tarfile.REGTYPE, "mine"), ("twin", tarfile.LNKTYPE, "way/secret"))


WAYS_OUT = {
    "up": tar_of(("../outside/file", tarfile.REGTYPE, "mine")),
    "a hard link to a link that leads out from there": tar_of(
        ("a", tarfile.DIRTYPE, ""),
        ("outside", tarfile.DIRTYPE, ""),
        ("a/link", tarfile.SYMTYPE, "../outside"),
        ("way", tarfile.LNKTYPE, "a/link"),
    ),
    "a link below a link": tar_of(
        ("a", tarfile.DIRTYPE, ""),
        ("a/b", tarfile.DIRTYPE, ""),
        ("c", tarfile.DIRTYPE, ""),
        ("a/b/link", tarfile.SYMTYPE, "../../c"),
        ("a/b/link/way", tarfile.SYMTYPE, "../../../outside"),
        ("c/way/file", tarfile.REGTYPE, "mine"),
    ),
    "names that are too long": longer_than_paths_are(),
}


@pytest.mark.parametrize("way", WAYS_OUT)
async def test_there_is_no_way_out_of_the_folder_for_an_archive_of_an_enemy(way: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for place in (outside, folder):
        place.mkdir()
    (outside / "secret").write_text("ours")

    async def pieces() -> AsyncGenerator[bytes]:
        yield WAYS_OUT[way]

    assert await unpack(pieces(), folder) != ()
    assert os.listdir(outside) == ["secret"]
    assert all(path.resolve().is_relative_to(folder) for path in folder.iterdir())
    assert not (folder / "twin").exists()
