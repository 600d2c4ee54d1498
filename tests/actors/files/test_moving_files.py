"""Names are changed and taken away, and nothing that is to be kept is lost by it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import FileSystem, PathNotFound, StorageFull
from sandbox_actors.files.errors import DestinationExists, FileTrouble
from sandbox_actors.files.system_calls import rename_new
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def tree(folder: Path) -> dict[str, str]:
    """All there is below a folder, with what is in it."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}"
        if path.is_symlink()
        else "/"
        if path.is_dir()
        else path.read_text()
        for path in sorted(folder.rglob("*"))
    }


async def test_files_links_and_folders_are_moved_and_parents_made(files: FileSystem, home: Path) -> None:
    (home / "file").write_text("x")
    (home / "dir").mkdir()
    (home / "dir/inner").write_text("y")
    (home / "link").symlink_to("nowhere")
    await files.move("file", "a/b/file")
    await files.move("dir", "a/dir")
    await files.move("link", f"{home}/a/link/")
    assert tree(home) == {
        "a": "/",
        "a/b": "/",
        "a/b/file": "x",
        "a/dir": "/",
        "a/dir/inner": "y",
        "a/link": "-> nowhere",
    }


async def test_what_is_there_is_only_replaced_if_so_asked(files: FileSystem, home: Path) -> None:
    (home / "new").write_text("new")
    for name in ("old", "dangling"):
        if name == "dangling":
            (home / name).symlink_to("nowhere")
        else:
            (home / name).write_text("old")
        with pytest.raises(DestinationExists, match=f"^destination already exists: {home}/{name}$"):
            await files.move("new", name)
    assert tree(home) == {"dangling": "-> nowhere", "new": "new", "old": "old"}
    await files.move("new", "old", overwrite=True)
    await files.move("old", "dangling", overwrite=True)
    assert tree(home) == {"dangling": "new"}


async def test_a_folder_a_file_and_a_link_can_replace_each_other(files: FileSystem, home: Path) -> None:
    def make(kind: str) -> None:
        if kind == "dir":
            (home / kind).mkdir()
            (home / kind / "inner").write_text("y")
        elif kind == "file":
            (home / kind).write_text("x")
        else:
            (home / kind).symlink_to("/")

    shown = {"dir": {"to": "/", "to/inner": "y"}, "file": {"to": "x"}, "link": {"to": "-> /"}}
    for old in shown:
        for new in shown:
            make(old)
            (home / old).rename(home / "to")
            make(new)
            await files.move(new, "to", overwrite=True)
            assert tree(home) == shown[new], (old, new)
            await files.delete("to", recursive=True)


async def test_nothing_is_overwritten_by_what_is_not_there(files: FileSystem, home: Path) -> None:
    (home / "old").write_text("old")
    for source in ("missing", "missing/too", f"{home}/missing/"):
        with pytest.raises(PathNotFound, match=r"^path not found: .*missing"):
            await files.move(source, "old", overwrite=True)
        with pytest.raises(PathNotFound):
            await files.move(source, "made/for/nothing")
    assert tree(home) == {"old": "old"}


async def test_a_move_onto_itself_changes_nothing(files: FileSystem, home: Path) -> None:
    (home / "dir").mkdir()
    (home / "dir/file").write_text("x")
    (home / "alias").symlink_to("dir")
    for source, destination in (("dir/file", "dir/file"), ("dir/file", "alias/file"), ("dir", "dir"), ("dir", "dir/.")):
        if destination == "dir/.":
            destination = f"{home}/dir//"
        await files.move(source, destination, overwrite=True)
        assert tree(home) == {"alias": "-> dir", "dir": "/", "dir/file": "x"}
        with pytest.raises(DestinationExists):
            await files.move(source, destination)


async def test_of_two_names_of_one_file_the_new_one_stays(files: FileSystem, home: Path) -> None:
    (home / "one").write_text("x")
    os.link(home / "one", home / "two")
    await files.move("one", "two", overwrite=True)
    assert tree(home) == {"two": "x"}


async def test_a_folder_can_not_be_moved_into_itself(files: FileSystem, home: Path) -> None:
    (home / "dir/inner").mkdir(parents=True)
    (home / "dir/file").write_text("x")
    before = tree(home)
    for overwrite in (False, True):
        for destination in ("dir/inner/dir", "dir/inner"):
            with pytest.raises((FileTrouble, DestinationExists)):
                await files.move("dir", destination, overwrite=overwrite)
    assert tree(home) == before
    await files.move("dir/inner", "dir", overwrite=True)
    assert tree(home) == {"dir": "/"}


@pytest.mark.parametrize("path", ["/", "", ".", "/tmp/..", "/tmp/."])
async def test_paths_without_a_name_are_neither_moved_nor_deleted(files: FileSystem, home: Path, path: str) -> None:
    (home / "file").write_text("x")
    if path in ("", "."):
        await files.move("file", "dir/file")
        path = "/proc/self/cwd/."
    with pytest.raises(InvalidRequest, match="does not end in a name"):
        await files.delete(path, recursive=True)
    with pytest.raises(InvalidRequest, match="does not end in a name"):
        await files.move(path, "x")
    with pytest.raises(InvalidRequest, match="does not end in a name"):
        await files.move("dir/file" if path.startswith("/proc") else "file", path)


async def test_a_tree_is_moved_to_another_file_system_as_it_is(files: FileSystem, home: Path, elsewhere: Path) -> None:
    (home / "tree/deep/er").mkdir(parents=True)
    (home / "tree/deep/er/file").write_bytes(b"x" * 20_000_000)
    (home / "tree/deep/er/file").chmod(0o4751)
    (home / "tree/link").symlink_to("/nowhere")
    (home / "tree/deep").chmod(0o500)
    os.mkfifo(home / "tree/fifo")
    for path in (home / "tree/deep/er/file", home / "tree/deep"):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    await files.move("tree", f"{elsewhere}/a/tree")
    assert os.listdir(home) == []
    moved = elsewhere / "a/tree"
    assert os.listdir(elsewhere / "a") == ["tree"]
    assert (moved / "deep/er/file").read_bytes() == b"x" * 20_000_000
    assert stat.S_IMODE((moved / "deep/er/file").stat().st_mode) == 0o4751
    assert stat.S_IMODE((moved / "deep").stat().st_mode) == 0o500
    assert (moved / "link").readlink() == Path("/nowhere")
    assert stat.S_ISFIFO((moved / "fifo").stat().st_mode)
    for path in (moved / "deep/er/file", moved / "deep"):
        assert path.stat().st_mtime_ns == 1_600_000_000_123_456_789


async def test_overwriting_works_across_file_systems_too(files: FileSystem, home: Path, elsewhere: Path) -> None:
    (home / "new").write_text("new")
    (elsewhere / "old").mkdir()
    (elsewhere / "old/file").write_text("old")
    with pytest.raises(DestinationExists):
        await files.move("new", f"{elsewhere}/old")
    assert tree(elsewhere) == {"old": "/", "old/file": "old"}
    await files.move("new", f"{elsewhere}/old", overwrite=True)
    assert tree(elsewhere) == {"old": "new"}
    assert tree(home) == {}


async def test_a_move_to_a_full_disk_leaves_everything_where_it_was(
    files: FileSystem, home: Path, small_disk: Path
) -> None:
    (home / "dir").mkdir()
    (home / "dir/small").write_text("x")
    (home / "dir/large").write_bytes(b"x" * 6_000_000)
    (small_disk / "old").write_text("old")
    with pytest.raises(StorageFull):
        await files.move("dir", f"{small_disk}/old", overwrite=True)
    assert sorted(os.listdir(home / "dir")) == ["large", "small"]
    assert tree(small_disk) == {"old": "old"}


async def test_a_move_that_is_given_up_leaves_no_copy(files: FileSystem, home: Path, elsewhere: Path) -> None:
    (home / "dir").mkdir()
    for number in range(300):
        (home / f"dir/{number}").write_bytes(b"x" * 100_000)

    with trio.CancelScope() as scope:
        scope.cancel()
        await files.move("dir", f"{elsewhere}/dir")
    with trio.fail_after(10):  # whichever way it went, it goes all of it
        await eventually(lambda: sorted(os.listdir(elsewhere)) in ([], ["dir"]))
    here, there = (home / "dir").exists(), (elsewhere / "dir").exists()
    assert here or there
    assert len(os.listdir(home / "dir" if here else elsewhere / "dir")) == 300


async def test_links_are_deleted_themselves(files: FileSystem, home: Path) -> None:
    (home / "dir").mkdir()
    (home / "dir/file").write_text("x")
    for name, target in (("dangling", "nowhere"), ("to-dir", "dir"), ("to-file", "dir/file"), ("loop", "loop")):
        (home / name).symlink_to(target)
    for name in ("dangling", "loop", "to-file"):
        await files.delete(name)
    await files.delete("to-dir", recursive=True)
    (home / "to-dir").symlink_to("dir")
    await files.delete(f"{home}/to-dir/")
    assert tree(home) == {"dir": "/", "dir/file": "x"}


async def test_a_folder_is_deleted_with_what_is_in_it_only_if_so_asked(files: FileSystem, home: Path) -> None:
    (home / "empty").mkdir()
    (home / "full/deep").mkdir(parents=True)
    (home / "full/deep/file").write_text("x")
    (home / "kept").write_text("")
    (home / "full/out").symlink_to("..")
    os.mkfifo(home / "full/fifo")
    await files.delete("empty")
    with pytest.raises(FileTrouble, match=r"^Directory not empty \(os error 39\)$"):
        await files.delete("full")
    await files.delete("full", recursive=True)
    assert os.listdir(home) == ["kept"]
    with pytest.raises(PathNotFound, match=f"^path not found: {home}/full$"):
        await files.delete("full")


async def test_a_tree_is_deleted_however_deep_it_is(files: FileSystem, home: Path) -> None:
    depth = 3000  # deeper than Python recurses, and than a path is long
    here = os.open(home, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if number % 50 == 0:
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    await files.delete("d", recursive=True)
    assert os.listdir(home) == []


async def test_a_rename_that_must_not_replace_does_not(home: Path) -> None:
    (home / "a").write_text("a")
    (home / "b").write_text("b")
    folder = os.open(home, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            rename_new("a", "b", src_dir_fd=folder, dst_dir_fd=folder)
        rename_new("a", "c", src_dir_fd=folder, dst_dir_fd=folder)
        with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
            rename_new("a", "d", src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
    assert tree(home) == {"b": "b", "c": "a"}
