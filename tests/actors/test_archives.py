from __future__ import annotations

import os
import shutil
import stat
import tarfile
import threading
import time
import tracemalloc
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from actors.packing import Item, compressed, listing, packed, tar, unpacked, zip_archive
from sandbox_actors.archives import ArchiveConflict, ArchiveFormat, Archives
from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import FileSystem, NotADirectory, OutsideRoot, PathNotFound
from sandbox_actors.files.errors import FileTrouble

if TYPE_CHECKING:
    from pathlib import Path

FOLDER, LINK, HARD_LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

ITEMS = [
    Item("src/", type=FOLDER, mode=0o750, mtime=1_600_000_000),
    Item("src/main.py", b"print('hello')\n", mode=0o755),
    Item("src/übung.txt", b"x" * 3000, mtime=0),
    Item("empty", b""),
    Item("src/link", type=LINK, target="main.py"),
]
UNPACKED = {
    "empty": "",
    "src": "/",
    "src/link": "-> main.py",
    "src/main.py": "print('hello')\n",
    "src/übung.txt": "x" * 3000,
}


def archive_of(items: list[Item], format: ArchiveFormat) -> bytes:
    return zip_archive(items) if format is ArchiveFormat.ZIP else compressed(tar(items), format)


@pytest.mark.parametrize("format", ArchiveFormat)
@pytest.mark.parametrize("chunk", [1 << 16, 7])
async def test_an_archive_of_any_format_becomes_its_folder(tmp_path: Path, format: ArchiveFormat, chunk: int) -> None:
    folder = tmp_path / "a" / "b"
    told = await unpacked(archive_of(ITEMS, format), folder, format, chunk=chunk)
    assert listing(folder) == UNPACKED
    assert told.paths == [f"{folder}/{item.name.rstrip('/')}" for item in ITEMS]
    assert not told.truncated
    assert stat.S_IMODE((folder / "src").stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "src/main.py").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "empty").stat().st_mode) == 0o644
    assert (folder / "src").stat().st_mtime == 1_600_000_000
    assert (folder / "src/main.py").stat().st_mtime == 1_700_000_000
    assert (folder / "src/übung.txt").stat().st_mtime == 0
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert os.listdir(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_every_kind_of_tar_is_read(tmp_path: Path, format: int) -> None:
    deep = "/".join(["folder" * 6] * 5)
    items = [Item(f"{deep}/file", b"deep"), Item("to", type=LINK, target="down/" * 15), Item("last", b"!")]
    if format != tarfile.USTAR_FORMAT:
        items += [Item("n" * 200, b"long"), Item("far", type=LINK, target="down/" * 60), Item("late", mtime=-1.5)]
    await unpacked(tar(items, format), tmp_path / "x")
    assert (tmp_path / "x" / deep / "file").read_text() == "deep"
    assert os.readlink(tmp_path / "x" / "to") == "down/" * 15
    assert (tmp_path / "x" / "last").read_text() == "!"
    if format != tarfile.USTAR_FORMAT:
        assert (tmp_path / "x" / ("n" * 200)).read_text() == "long"
        assert os.readlink(tmp_path / "x" / "far") == "down/" * 60
    if format == tarfile.PAX_FORMAT:
        assert (tmp_path / "x" / "late").stat().st_mtime == -1.5


async def test_an_empty_body_makes_the_folder(tmp_path: Path) -> None:
    told = await unpacked(b"", tmp_path / "x")
    assert (told.paths, told.truncated) == ([], False)
    assert listing(tmp_path) == {"x": "/"}


async def test_paths_are_told_up_to_a_number_and_unpacked_beyond(tmp_path: Path) -> None:
    items = [Item("./", type=FOLDER), *[Item(f"./{number}") for number in range(1025)], Item("0", b"again")]
    told = await unpacked(tar(items), tmp_path / "x")
    assert len(told.paths) == 1024
    assert told.truncated
    assert len(os.listdir(tmp_path / "x")) == 1025
    assert (tmp_path / "x" / "0").read_text() == "again"
    exactly = await unpacked(tar(items[:1025]), tmp_path / "y")
    assert len(exactly.paths) == 1024
    assert not exactly.truncated


async def test_modes_are_kept_but_for_those_that_would_run_as_somebody_else_or_lock_folders(tmp_path: Path) -> None:
    items = [
        Item("locked", type=FOLDER, mode=0o644),
        Item("locked/inside", mode=0o6755),
        Item("secret", mode=0o600),
        Item("none", type=FOLDER, mode=0),
        Item("none/inside", b"x", mode=0o444),
    ]
    await unpacked(tar(items), tmp_path / "x")
    modes = {name: stat.S_IMODE((tmp_path / "x" / name).stat().st_mode) for name in [item.name for item in items]}
    assert modes == {
        "locked": 0o755,
        "locked/inside": 0o755,
        "secret": 0o600,
        "none": 0o700,
        "none/inside": 0o444,
    }


async def test_a_hard_link_is_a_second_name_of_a_file_of_the_archive(tmp_path: Path) -> None:
    items = [Item("a/one", b"same"), Item("two", type=HARD_LINK, target="a/one"), Item("two", b"other")]
    await unpacked(tar(items[:2]), tmp_path / "x")
    assert (tmp_path / "x/two").stat().st_ino == (tmp_path / "x/a/one").stat().st_ino
    await unpacked(tar(items), tmp_path / "y")
    assert listing(tmp_path / "y") == {"a": "/", "a/one": "same", "two": "other"}


async def test_a_zip_that_tells_no_modes_and_local_times_gets_the_usual(tmp_path: Path) -> None:
    content = zip_archive([Item("file", b"x", mode=0)], utc=False)
    content = content.replace((0o100000 << 16).to_bytes(4, "little"), bytes(4))  # as from a system without modes
    await unpacked(content, tmp_path / "x", ArchiveFormat.ZIP)
    assert (tmp_path / "x/file").stat().st_mode & 0o600 == 0o600
    assert time.localtime((tmp_path / "x/file").stat().st_mtime)[:6] == (2023, 11, 14, 22, 13, 20)


async def test_an_archive_is_merged_into_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "kept").write_text("kept")
    (folder / "src" / "main.py").write_text("old")
    (folder / "empty").symlink_to("/nowhere")
    await unpacked(tar([*ITEMS, Item("new/er", b"new")]), folder)
    assert listing(folder) == {
        **UNPACKED,
        "new": "/",
        "new/er": "new",
        "src/deep": "/",
        "src/kept": "kept",
    }
    assert (folder / "src").stat().st_mtime == 1_600_000_000
    assert stat.S_IMODE((folder / "src").stat().st_mode) == 0o750


@pytest.mark.parametrize(
    ("there", "items", "why"),
    [
        ("folder", [Item("a"), Item("z")], "a is a folder, and something else in the archive"),
        ("file", [Item("a/b"), Item("z")], "a is a folder in the archive, and something else here"),
        ("link", [Item("a/b"), Item("z")], "a is a folder in the archive, and something else here"),
        ("link", [Item("a", type=FOLDER), Item("z")], "a is a folder in the archive, and something else here"),
    ],
)
async def test_what_is_there_of_another_kind_is_a_conflict_and_nothing_changes(
    tmp_path: Path, there: str, items: list[Item], why: str
) -> None:
    folder, elsewhere = tmp_path / "x", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.mkdir()
    match there:
        case "folder":
            (folder / "a").mkdir()
        case "file":
            (folder / "a").write_text("precious")
        case _:
            (folder / "a").symlink_to(elsewhere)
    before = listing(tmp_path)
    with pytest.raises(ArchiveConflict, match=why):
        await unpacked(tar(items), folder)
    assert listing(tmp_path) == before


async def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotADirectory, match=r"path is not a directory: .*/file"):
        await unpacked(tar(ITEMS), tmp_path / "file" / "x")
    with pytest.raises(ArchiveConflict, match="dangling is no folder"):
        await unpacked(tar(ITEMS), tmp_path / "dangling")
    with pytest.raises(InvalidRequest, match="goes up from a folder that is not there"):
        await unpacked(tar(ITEMS), tmp_path / "none" / ".." / "x")
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


async def test_nothing_is_unpacked_outside_of_a_root(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "way").symlink_to(outside)
    for target in (outside, inside / "way", inside / "way" / "new", inside / ".." / "outside"):
        with pytest.raises(OutsideRoot):
            await unpacked(tar(ITEMS), target, root=inside)
    await unpacked(tar(ITEMS), inside / "new", root=inside)
    assert listing(inside / "new") == UNPACKED
    assert os.listdir(outside) == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    class Left(Exception):
        pass

    archives = Archives(FileSystem(tmp_path))
    content = tar([Item("file", os.urandom(1 << 20))])
    sent = iter([content[: 1 << 19]])

    async def leaving() -> bytes:
        for piece in sent:
            return piece
        raise Left

    with pytest.raises(Left):
        await archives.unpack(leaving, ArchiveFormat.TAR, str(tmp_path / "x"))
    assert os.listdir(tmp_path) == []


async def test_a_request_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    archives = Archives(FileSystem(tmp_path))
    content = tar([Item("file", os.urandom(1 << 20))])
    sent = iter([content[: 1 << 19]])
    async with trio.open_nursery() as nursery:

        async def stalling() -> bytes:
            for piece in sent:
                return piece
            assert os.listdir(tmp_path) != []
            nursery.cancel_scope.cancel()
            await trio.sleep_forever()
            return b""

        nursery.start_soon(archives.unpack, stalling, ArchiveFormat.TAR, str(tmp_path / "x"))
    assert os.listdir(tmp_path) == []


async def test_what_was_packed_unpacks_to_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    await unpacked(tar([*ITEMS, Item("big", os.urandom(1 << 20)), Item("d" * 120 + "/" + "f" * 120, b"long")]), folder)
    (folder / "src/none").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "outside").symlink_to("src/../../elsewhere")
    for format in ArchiveFormat:
        content = await packed(folder, format)
        (folder / "outside").unlink(missing_ok=True)
        safe = await packed(folder, format)
        assert len(content) > len(safe)
        back = tmp_path / format.value
        await unpacked(safe, back, format)
        (folder / "pipe").unlink(missing_ok=True)
        assert listing(back) == listing(folder)
        for name in ("src", "src/main.py", "src/übung.txt", "big"):
            assert (back / name).stat().st_mode == (folder / name).stat().st_mode
            assert int((back / name).stat().st_mtime) == int((folder / name).stat().st_mtime)
        (folder / "outside").symlink_to("src/../../elsewhere")


async def test_what_is_packed_others_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    await unpacked(tar(ITEMS), folder)
    name = os.fsdecode(b"not-utf8-\xff")
    (folder / name).write_text("!")
    archive = tmp_path / "archive"
    archive.write_bytes(await packed(folder, ArchiveFormat.TAR_GZ))
    with tarfile.open(archive) as there:
        assert {info.name for info in there} == {*UNPACKED, name}
    archive.write_bytes(await packed(folder, ArchiveFormat.ZIP))
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert "not-utf8-\ufffd" in opened.namelist()
        assert "src/" in opened.namelist()


@pytest.mark.parametrize("format", ArchiveFormat)
async def test_a_file_that_changes_while_it_is_packed_does_not_break_the_archive(
    tmp_path: Path, format: ArchiveFormat
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    size = 4 << 20
    for name in ("a-shrinks", "b-grows"):
        (folder / name).write_bytes(os.urandom(size))
    (folder / "c-last").write_text("last")
    (folder / "d-vanishes").write_text("x")
    pieces: list[bytes] = []
    packing = await Archives(FileSystem(folder)).pack(str(folder), format)
    while piece := await packing.read():
        if not pieces:
            os.truncate(folder / "a-shrinks", 1000)
            with (folder / "b-grows").open("ab") as file:
                file.write(b"more")
            (folder / "d-vanishes").unlink()
        pieces.append(piece)
    await unpacked(b"".join(pieces), tmp_path / "back", format)
    assert (tmp_path / "back/a-shrinks").stat().st_size == size
    assert (tmp_path / "back/b-grows").stat().st_size in (size, size + 4)
    assert (tmp_path / "back/c-last").read_text() == "last"
    assert not (tmp_path / "back/d-vanishes").exists()


async def test_however_large_an_archive_is_it_takes_little_memory(tmp_path: Path) -> None:
    archives = Archives(FileSystem(tmp_path))
    size, names = 32 << 20, 1000
    info = tarfile.TarInfo("zeros")
    info.size = size
    headers = b"".join(tarfile.TarInfo(f"{number % 10}/{number}").tobuf() for number in range(names))
    pieces = iter([info.tobuf(), *[bytes(1 << 16)] * (size >> 16), headers])

    async def receive() -> bytes:
        return next(pieces, b"")

    tracemalloc.start()
    try:
        await archives.unpack(receive, ArchiveFormat.TAR, str(tmp_path / "x"))
        for format in ArchiveFormat:
            length = 0
            packing = await archives.pack(str(tmp_path / "x"), format)
            while piece := await packing.read():
                length += len(piece)
            assert length > 1000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x" / "zeros").stat().st_size == size
    assert peak < 8 << 20


async def test_a_folder_that_is_swapped_for_a_link_leads_nobody_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "folder").mkdir(parents=True)
    (inside / "folder" / "file").write_text("inside")
    outside.mkdir()
    (outside / "file").write_text("SECRET")
    (inside / "link").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        steps = [("folder", "other"), ("link", "folder"), ("folder", "link"), ("other", "folder")]
        while not over.is_set():
            for source, target in steps:
                with suppress(OSError):  # a new folder was unpacked in the meantime
                    (inside / source).rename(inside / target)
            shutil.rmtree(inside / "other", ignore_errors=True)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(100):
            assert b"SECRET" not in await packed(inside)
            try:
                await unpacked(tar([Item("folder/file", b"new")]), inside, root=inside)
            except (ArchiveConflict, FileTrouble, PathNotFound):
                continue
    finally:
        over.set()
        swapping.join()
    assert (outside / "file").read_text() == "SECRET"
    assert os.listdir(outside) == ["file"]


async def test_what_cannot_be_packed_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PathNotFound):
        await packed(tmp_path / "none")
    with pytest.raises(NotADirectory):
        await packed(tmp_path / "file")


async def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("nothing is closed to us")
    with pytest.raises(FileTrouble, match="Permission denied"):
        await unpacked(tar(ITEMS), folder)
