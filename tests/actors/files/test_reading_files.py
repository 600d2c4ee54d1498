"""What there is, and what is in it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import PIECE, FileSystem, NotADirectory, NotAFile, PathNotFound
from sandbox_actors.files.errors import FileTrouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


async def content(files: FileSystem, path: str) -> bytes:
    opened = await files.open(path)
    if opened.whole is not None and opened.size is not None:
        return opened.whole
    found = b"" if opened.size is not None else opened.whole or b""
    while piece := await files.read(opened, None if opened.size is None else len(found), 1 << 16):
        found += piece
    return found


@pytest.mark.parametrize(
    ("path", "located"),
    [
        ("", "{home}/"),
        (".", "{home}/"),
        ("./", "{home}/"),
        ("a", "{home}/a"),
        ("./a//b/./c/", "{home}/a/b/c"),
        ("~", "{home}/~"),
        ("/", "/"),
        ("/a/../b", "/a/../b"),
        ("//a/./b/", "//a/./b/"),
        ("ä/\u202e", "{home}/ä/\u202e"),
    ],
)
async def test_relative_paths_are_below_home_and_absolute_ones_as_they_are(
    files: FileSystem, home: Path, path: str, located: str
) -> None:
    assert files.located(path) == located.format(home=home)


@pytest.mark.parametrize(
    "path", ["..", "a/..", "a/../../b", "../", "a\0b", "/a\0", "/" + "a/" * 2048, "\ud800", "/\ud83d"]
)
async def test_what_can_be_no_path_is_refused_before_anything_is_looked_at(files: FileSystem, path: str) -> None:
    for call in (files.stat, files.entries, files.open, files.delete, files.make_directory):
        with pytest.raises(InvalidRequest, match=r"^invalid (relative )?path"):
            await call(path)


async def test_a_name_that_is_too_long_is_the_clients_mistake(files: FileSystem) -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        await files.stat("a" * 256)


async def test_entries_are_sorted_and_links_are_told_as_links(files: FileSystem, home: Path) -> None:
    (home / "b").mkdir(mode=0o750)
    (home / "a").write_text("12345")
    (home / ".hidden").write_text("")
    (home / "link").symlink_to("a")
    (home / "up").symlink_to("..")
    (home / "dangling").symlink_to("/nowhere/ä")
    os.utime(home / "a", ns=(0, 1_700_000_000_000_000_000))
    os.utime(home / "b", ns=(0, 1_700_000_000_120_000_000))
    entries = await files.entries("")
    assert [entry.name for entry in entries] == [".hidden", "a", "b", "dangling", "link", "up"]
    by_name = {entry.name: entry for entry in entries}
    assert by_name["a"].path == f"{home}/a"
    assert (by_name["a"].entry_type, by_name["a"].size) == ("file", 5)
    assert by_name["a"].modified == "2023-11-14T22:13:20+00:00"
    assert by_name["b"].modified == "2023-11-14T22:13:20.120+00:00"
    assert (by_name["b"].entry_type, by_name["b"].mode) == ("directory", "0750")
    assert not by_name["b"].symlink
    for name, target in (("link", "a"), ("up", ".."), ("dangling", "/nowhere/ä")):
        entry = by_name[name]
        assert (entry.entry_type, entry.symlink, entry.target) == ("file", True, target)
        assert entry.size == len(os.fsencode(target))


@pytest.mark.parametrize(
    ("nanoseconds", "told"),
    [
        (1, "1970-01-01T00:00:00.000000001+00:00"),
        (1_000, "1970-01-01T00:00:00.000001+00:00"),
        (-1, "1969-12-31T23:59:59.999999999+00:00"),
        (400_000_000_000 * 10**9, "9999-12-31T23:59:59+00:00"),
    ],
)
async def test_times_have_as_many_digits_as_they_need(tmp_path: Path, nanoseconds: int, told: str) -> None:
    shared = Path("/dev/shm") if nanoseconds > 2**62 else tmp_path  # ext4 ends in 2446
    place = shared / f"sandbox-agent-test-{os.getpid()}"
    place.mkdir()
    try:
        (place / "x").write_text("")
        os.utime(place / "x", ns=(0, nanoseconds))
        assert (await FileSystem(place).entries(""))[0].modified == told
        assert (await FileSystem(place).stat("x")).modified == told
    finally:
        (place / "x").unlink()
        place.rmdir()


async def test_a_large_directory_is_read_in_pages(files: FileSystem, home: Path) -> None:
    names = [f"file-{number:03}" for number in range(25)]
    for name in reversed(names):
        (home / name).write_text("")
    seen: list[str] = []
    while page := await files.entries("", after=seen[-1] if seen else "", limit=10):
        assert len(page) <= 10
        seen += [entry.name for entry in page]
    assert seen == names
    assert [entry.name for entry in await files.entries("", after="file-0205")] == names[21:]


async def test_names_that_are_no_utf8_can_be_told(files: FileSystem, home: Path) -> None:
    (home / "\udcffx").write_text("")
    assert [entry.name for entry in await files.entries("")] == ["\N{REPLACEMENT CHARACTER}x"]


async def test_only_directories_have_entries(files: FileSystem, home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(NotADirectory, match=f"^path is not a directory: {home}/file$"):
        await files.entries("file")
    with pytest.raises(PathNotFound, match=f"^path not found: {home}/missing$"):
        await files.entries("missing")


async def test_stat_follows_links_and_tells_of_those_that_lead_nowhere(files: FileSystem, home: Path) -> None:
    (home / "dir").mkdir()
    (home / "link").symlink_to("dir")
    (home / "dangling").symlink_to("missing")
    (home / "loop").symlink_to("loop")
    (home / "file").write_text("abc")
    (home / "through").symlink_to("file/x")
    plain = await files.stat("file")
    assert (plain.path, plain.entry_type, plain.size, plain.symlink) == (f"{home}/file", "file", 3, False)
    link = await files.stat("link")
    assert (link.entry_type, link.symlink, link.target, link.dangling) == ("directory", True, "dir", False)
    for name in ("dangling", "loop", "through"):
        found = await files.stat(name)
        assert (found.entry_type, found.symlink, found.dangling) == ("file", True, True)
    assert (await files.stat("/dev/null")).entry_type == "file"
    with pytest.raises(PathNotFound):
        await files.stat("missing")
    with pytest.raises(FileTrouble, match=r"^Not a directory \(os error 20\)$"):
        await files.stat("file/x")


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 3 * PIECE + 7])
async def test_files_of_any_size_are_read_as_they_are(files: FileSystem, home: Path, size: int) -> None:
    data = os.urandom(size)
    (home / "file").write_bytes(data)
    (home / "link").symlink_to("file")
    opened = await files.open("file")
    assert opened.size == size
    assert await content(files, "link") == data


async def test_files_that_do_not_say_how_long_they_are_are_read_to_their_end(files: FileSystem) -> None:
    for path in ("/proc/version", "/proc/self/status", "/proc/cpuinfo"):
        assert len(await content(files, path)) > 20
        assert (await files.open(path)).etag is None


@pytest.mark.skipif(not os.path.exists("/proc/kallsyms"), reason="the kernel does not list its symbols")
async def test_a_long_file_that_does_not_say_how_long_it_is_comes_in_pieces(files: FileSystem) -> None:
    opened = await files.open("/proc/kallsyms")
    assert opened.size is None
    assert (await content(files, "/proc/kallsyms")).count(b"\n") > 10_000


async def test_what_is_no_regular_file_is_not_opened(files: FileSystem, home: Path) -> None:
    os.mkfifo(home / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "socket"))
    (home / "dir").mkdir()
    for path in ("fifo", "socket", "dir", "/dev/null", "/dev/tty", "/dev/zero"):
        with trio.fail_after(5), pytest.raises(NotAFile, match=r"^path is not a file: "):
            await files.open(path)


async def test_a_hundred_fifos_hold_up_nobody(files: FileSystem, home: Path) -> None:
    os.mkfifo(home / "fifo")
    refused: list[str] = []

    async def try_it(number: int) -> None:
        try:
            if number % 2:
                await files.open("fifo")
            else:
                async with files.writing("fifo"):
                    pass
        except NotAFile as error:
            refused.append(str(error))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(try_it, number)
    assert len(refused) == 100


async def test_a_file_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened(
    files: FileSystem, home: Path
) -> None:
    (home / "file").write_bytes(b"a" * (1 << 20))
    opened = await files.open("file")
    async with files.writing("file") as upload:
        await upload.write(b"b")
        await upload.finish()
    assert await files.read(opened, (1 << 20) - 5, 10) == b"aaaaa"
    assert await content(files, "file") == b"b"


async def test_what_permissions_forbid_is_told_in_the_systems_words(
    files: FileSystem, shared: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    (shared / "file").write_text("")
    (shared / "dir").mkdir()
    for name in ("file", "dir"):
        (shared / name).chmod(0)
    with as_nobody():
        for call, name in ((files.open, "file"), (files.entries, "dir"), (files.stat, "dir/x"), (files.delete, "file")):
            with pytest.raises(FileTrouble, match=r"^Permission denied \(os error 13\)$"):
                await call(f"{shared}/{name}")


async def test_directories_are_made_with_all_above_them(files: FileSystem, home: Path) -> None:
    await files.make_directory("a/b/c")
    await files.make_directory("a/b/c")
    await files.make_directory(f"{home}/x/y/../z/")
    assert (home / "a/b/c").is_dir()
    assert sorted(os.listdir(home / "x")) == ["y", "z"]
    (home / "file").write_text("")
    (home / "dangling").symlink_to("nowhere")
    for path, says in (
        ("file", "File exists (os error 17)"),
        ("dangling", "File exists (os error 17)"),
        ("file/x", "Not a directory (os error 20)"),
    ):
        with pytest.raises(FileTrouble) as refused:
            await files.make_directory(path)
        assert str(refused.value) == says
    await files.make_directory("/".join("d" * 300))
    assert (home / "/".join("d" * 300)).is_dir()


async def test_modes_are_set_on_what_a_link_leads_to(files: FileSystem, home: Path) -> None:
    (home / "file").write_text("")
    (home / "link").symlink_to("file")
    await files.set_mode("link", 0o640)
    assert stat.S_IMODE((home / "file").stat().st_mode) == 0o640
    (home / "dir").mkdir()
    await files.set_mode("dir", 0o711)
    assert stat.S_IMODE((home / "dir").stat().st_mode) == 0o711
    with pytest.raises(PathNotFound):
        await files.set_mode("missing", 0o600)


async def test_a_directory_can_be_held_whatever_becomes_of_its_path(files: FileSystem, home: Path) -> None:
    held = await files.directory("a/b", make=True)
    (home / "a").rename(home / "c")
    (Path(held.path) / "file").write_text("x")
    assert (home / "c/b/file").read_text() == "x"
    with pytest.raises(PathNotFound):
        await files.directory("a/b")


async def test_descriptors_are_closed_when_nobody_holds_them(files: FileSystem, home: Path) -> None:
    (home / "file").write_bytes(b"x" * (1 << 20))
    before: list[str] = []
    for round_ in range(20):
        if round_ == 1:  # by now there is what stays
            before = os.listdir("/proc/self/fd")
        await files.open("file")
        await files.directory("")
        await files.entries("")
        await files.stat("file")
        async with files.writing("new"):
            pass
    assert len(os.listdir("/proc/self/fd")) <= len(before)
