"""Writes: seen as a whole or not at all, and nothing left of one that was given up."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.files import FileSystem, NotAFile, PreconditionFailed, StorageFull
from sandbox_actors.files.errors import FileTrouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sandbox_actors.files.writing import Written


async def put(
    files: FileSystem,
    path: str,
    data: bytes,
    condition: Callable[[str | None], bool] | None = None,
    *,
    append: bool = False,
    mode: int | None = None,
) -> Written:
    judge = condition or (lambda _etag: True)
    async with files.writing(path, judge, append=append, mode=mode) as upload:
        for start in range(0, len(data), 60_000):
            await upload.write(data[start : start + 60_000])
        return await upload.finish()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("size", [0, 1, 500_000, 3_000_000])
async def test_what_is_written_is_what_is_there(files: FileSystem, home: Path, size: int) -> None:
    data = os.urandom(size)
    written = await put(files, "a/b/file", data)
    assert written.bytes == size
    assert (home / "a/b/file").read_bytes() == data
    assert os.listdir(home / "a/b") == ["file"]
    assert (await files.open("a/b/file")).etag == written.etag


async def test_thousands_of_tiny_pieces_are_one_file(files: FileSystem, home: Path) -> None:
    async with files.writing("file") as upload:
        for number in range(5000):
            await upload.write(b"%d," % number)
        await upload.finish()
    assert (home / "file").read_bytes() == b"".join(b"%d," % number for number in range(5000))


async def test_nothing_is_seen_before_the_end(files: FileSystem, home: Path) -> None:
    (home / "file").write_text("old")
    async with files.writing("file") as upload:
        await upload.write(b"x" * 2_000_000)
        assert (home / "file").read_text() == "old"
        await upload.finish()
    assert (home / "file").stat().st_size == 2_000_000


@pytest.mark.parametrize("append", [False, True])
async def test_nothing_is_left_of_a_write_that_is_given_up(files: FileSystem, home: Path, append: bool) -> None:
    (home / "file").write_text("old")
    with trio.CancelScope() as scope:
        async with files.writing("file", append=append) as upload:
            await upload.write(b"x" * 2_000_000)
            scope.cancel()
            await upload.finish()
    with suppress(ZeroDivisionError):
        async with files.writing("new", append=append) as upload:
            await upload.write(b"x" * 2_000_000)
            raise ZeroDivisionError
    assert os.listdir(home) == ["file"]
    assert (home / "file").read_text() == "old"


async def test_a_draft_has_no_name_where_the_file_system_can_do_that(
    files: FileSystem, home: Path, modern: bool
) -> None:
    async with files.writing("file") as upload:
        await upload.write(b"x" * 2_000_000)
        assert len(os.listdir(home)) == (0 if modern else 1)


async def test_mode_and_owner_are_kept(files: FileSystem, home: Path) -> None:
    (home / "file").write_text("old")
    (home / "file").chmod(0o741)
    if os.geteuid() == 0:
        os.chown(home / "file", 1234, 5678)
    await put(files, "file", b"new")
    assert mode_of(home / "file") == 0o741
    if os.geteuid() == 0:
        status = (home / "file").stat()
        assert (status.st_uid, status.st_gid) == (1234, 5678)


async def test_new_files_have_the_usual_mode_or_the_one_that_is_asked_for(files: FileSystem, home: Path) -> None:
    (home / "usual").touch()
    await put(files, "new", b"")
    assert mode_of(home / "new") == mode_of(home / "usual")
    await put(files, "private", b"", mode=0o600)
    await put(files, "usual", b"", mode=0o755)
    await put(files, "appended", b"", mode=0o600, append=True)
    assert [mode_of(home / name) for name in ("private", "usual", "appended")] == [0o600, 0o755, 0o600]


async def test_a_link_is_followed_and_stays_a_link(files: FileSystem, home: Path) -> None:
    (home / "dir").mkdir()
    (home / "dir/target").write_text("old")
    (home / "link").symlink_to("again")
    (home / "again").symlink_to("dir/target")
    (home / "dangling").symlink_to(home / "dir/made")
    (home / "loop").symlink_to("loop")
    await put(files, "link", b"new")
    await put(files, "dangling", b"made")
    assert (home / "link").is_symlink()
    assert (home / "dir/target").read_text() == "new"
    assert (home / "dir/made").read_text() == "made"
    assert sorted(os.listdir(home / "dir")) == ["made", "target"]
    with pytest.raises(FileTrouble, match="Too many levels of symbolic links"):
        await put(files, "loop", b"")


async def test_only_regular_files_are_written(files: FileSystem, home: Path) -> None:
    (home / "dir").mkdir()
    (home / "link").symlink_to("dir")
    (home / "file").write_text("")
    os.mkfifo(home / "fifo")
    for path in ("dir", "link", f"{home}/new/", "", "/"):
        with pytest.raises(FileTrouble, match=r"^Is a directory \(os error 21\)$"):
            await put(files, path, b"")
    for path in ("fifo", "/dev/null"):
        with trio.fail_after(5), pytest.raises(NotAFile):
            await put(files, path, b"")
    with pytest.raises(FileTrouble, match="Not a directory"):
        await put(files, "file/x", b"")
    assert sorted(os.listdir(home)) == ["dir", "fifo", "file", "link"]


async def test_preconditions_are_checked_before_and_after_the_body(files: FileSystem, home: Path) -> None:
    with pytest.raises(PreconditionFailed):
        await put(files, "made/file", b"", lambda etag: etag is not None)
    assert os.listdir(home) == []
    first = await put(files, "file", b"one", lambda etag: etag is None)
    with pytest.raises(PreconditionFailed):
        await put(files, "file", b"two", lambda etag: etag is None)
    second = await put(files, "file", b"two", lambda etag: etag == first.etag)
    assert second.etag != first.etag
    async with files.writing("file", lambda etag: etag == second.etag) as upload:
        (home / "file").write_text("somebody else's")
        with pytest.raises(PreconditionFailed):
            await upload.finish()
    assert (home / "file").read_text() == "somebody else's"
    assert os.listdir(home) == ["file"]


async def test_a_change_in_place_with_the_old_time_is_noticed_all_the_same(files: FileSystem, home: Path) -> None:
    written = await put(files, "file", b"one")
    status = (home / "file").stat()
    (home / "file").write_bytes(b"two")
    os.utime(home / "file", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (await files.open("file")).etag != written.etag


async def test_of_many_that_want_to_be_first_one_is(files: FileSystem, home: Path) -> None:
    won: list[int] = []

    async def race(number: int, condition: Callable[[str | None], bool]) -> None:
        try:
            await put(files, "file", b"%d" % number, condition)
        except PreconditionFailed:
            return
        won.append(number)

    for _ in range(5):
        etag = (await files.open("file")).etag if (home / "file").exists() else None
        won.clear()
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(race, number, lambda found, etag=etag: found == etag)
        assert len(won) == 1
        assert (home / "file").read_text() == str(won[0])


async def test_many_writers_leave_the_file_of_one_of_them(files: FileSystem, home: Path) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(put, files, "file", b"%02d" % number * 500_000)
    data = (home / "file").read_bytes()
    assert data == data[:2] * 500_000
    assert os.listdir(home) == ["file"]


async def test_what_is_appended_is_there_in_whole_pieces(files: FileSystem, home: Path) -> None:
    async def append(letter: bytes) -> None:
        written = await put(files, "file", letter * 2_000_000, append=True)
        assert written.bytes == 2_000_000

    async with trio.open_nursery() as nursery:
        for letter in (b"a", b"b", b"c", b"d"):
            nursery.start_soon(append, letter)
    data = (home / "file").read_bytes()
    assert sorted(data[start : start + 2_000_000] for start in range(0, len(data), 2_000_000)) == [
        letter * 2_000_000 for letter in (b"a", b"b", b"c", b"d")
    ]
    written = await put(files, "file", b"end", append=True)
    assert (await files.open("file")).etag == written.etag


@pytest.mark.parametrize("append", [False, True])
async def test_a_full_disk_costs_the_write_and_nothing_that_was_there(
    small_disk: Path, modern: bool, append: bool
) -> None:
    files = FileSystem(small_disk, modern=modern)
    await put(files, "file", b"old" * 500_000)
    with pytest.raises(StorageFull):
        await put(files, "file", b"x" * 3_000_000, append=append)
    with pytest.raises(StorageFull):
        await put(files, "new", b"x" * 6_000_000, append=append)
    assert (small_disk / "file").read_bytes() == b"old" * 500_000
    assert [name for name in os.listdir(small_disk) if (small_disk / name).stat().st_size] == ["file"]
    await put(files, "file", b"new")
    assert (small_disk / "file").read_bytes() == b"new"


@pytest.mark.usefixtures("mounted")
async def test_a_file_that_something_is_mounted_on_is_written_in_place(files: FileSystem, home: Path) -> None:
    (home / "file").write_text("before, and longer")
    await put(files, "file", b"new")
    await put(files, "file", b"er", append=True)
    assert (home / "file").read_text() == "newer"
    assert (home / "under").read_text() == "newer"
    assert sorted(os.listdir(home)) == ["file", "under"]


async def test_a_file_in_a_folder_that_takes_no_new_ones_is_written_in_place(
    files: FileSystem, shared: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    for name, mode in (("file", 0o666), ("read-only", 0o444)):
        (shared / name).write_text("old and longer")
        (shared / name).chmod(mode)
    with as_nobody():  # in whose folder it is not
        await put(files, f"{shared}/file", b"new")
        await put(files, f"{shared}/file", b"er", append=True)
        for name in ("read-only", "new"):
            with pytest.raises(FileTrouble, match="Permission denied"):
                await put(files, f"{shared}/{name}", b"")
    assert (shared / "file").read_text() == "newer"
    assert (shared / "read-only").read_text() == "old and longer"
