"""What a daemon that was killed has left on its way: the next one deletes it, and nothing else."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
import structlog
import trio

from sandbox_actors.files import FileSystem, Leftovers
from sandbox_actors.files.tree import temporary_name

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, sys, trio
from pathlib import Path
from sandbox_actors.files import FileSystem

async def main(home, records):
    files = FileSystem(home, modern=False, records=records)
    async with files.writing("folder/file") as upload:
        await upload.write(b"x" * (2 << 20))
        await upload.write(b"x")
        os.kill(os.getpid(), 9)

trio.run(main, *map(Path, sys.argv[1:]))
"""


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


def left_in(folder: Path, records: Path, name: str | None = None) -> Path:
    """A folder with something in it that an earlier daemon has left, recorded as being in another one if need be."""
    name = name or temporary_name()
    (folder / name / "tree").mkdir(parents=True)
    (folder / name / "tree/file").touch()
    records.mkdir(exist_ok=True)
    (records / name).write_bytes(os.fsencode(folder))
    return folder / name


async def cleared(home: Path, records: Path, root: Path | None = None) -> list[str]:
    """Do as the next daemon does; gives the warnings of its log."""
    with structlog.testing.capture_logs() as logs:
        await FileSystem(home, root, records=records).delete_leftovers()
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


async def test_a_draft_with_a_name_is_deleted_after_a_kill(home: Path, records: Path) -> None:
    (home / "other").write_text("other")
    died = await trio.run_process([sys.executable, "-c", KILLED, str(home), str(records)], check=False)
    assert died.returncode == -9
    (name,) = os.listdir(home / "folder")
    assert os.listdir(records) == [name]
    assert await cleared(home, records) == []
    assert os.listdir(home / "folder") == []
    assert os.listdir(records) == []
    assert (home / "other").read_text() == "other"


async def test_what_ends_well_leaves_no_record(home: Path, records: Path, modern: bool) -> None:
    files = FileSystem(home, modern=modern, records=records)
    for _ in range(2):
        async with files.writing("file") as upload:
            await upload.write(b"x" * (2 << 20))
            await upload.write(b"x")
            assert (os.listdir(records) == []) == modern
            await upload.finish()
    async with files.writing("file") as upload:
        await upload.write(b"given up")
    await files.make_directory("full/inside")
    await files.move("file", "full", overwrite=True)
    assert sorted(os.listdir(home)) == ["full"]
    assert os.listdir(records) == []


async def test_a_folder_with_links_in_it_is_deleted_and_not_what_they_lead_to(
    tmp_path: Path, home: Path, records: Path
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    left = left_in(home, records)
    (left / "tree/link").symlink_to(tmp_path / "kept")
    assert await cleared(home, records) == []
    assert os.listdir(home) == os.listdir(records) == []
    assert os.listdir(tmp_path / "kept") == ["file"]


async def test_only_what_is_just_there_is_deleted(tmp_path: Path, home: Path, records: Path) -> None:
    name = temporary_name()
    elsewhere = left_in(tmp_path / "elsewhere", records)
    (home / "link").symlink_to(elsewhere.parent)
    (home / "folder").mkdir()
    (home / "folder" / name).symlink_to(elsewhere)
    records_of = {
        elsewhere.name: home / "link",  # the folder is another one now
        name: home / "folder",  # it is a link itself
        temporary_name(): home / "gone",
        temporary_name(): home,  # it was never made
        temporary_name(): home / "link" / "..",
    }
    for one, folder in records_of.items():
        (records / one).write_bytes(os.fsencode(folder))
    (records / temporary_name()).touch()  # killed before it was written
    (records / "notes").write_text("no record")
    assert await cleared(home, records) == []
    assert os.listdir(elsewhere) == ["tree"]
    assert (home / "folder" / name).is_symlink()
    assert os.listdir(records) == ["notes"]


async def test_what_is_another_users_is_left_alone(home: Path, records: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make a folder somebody else's")
    left = left_in(home, records)
    os.chown(left, 65534, 65534)
    assert await cleared(home, records) == []
    assert os.listdir(left) == ["tree"]


async def test_a_name_that_is_none_of_ours_is_no_record(home: Path, records: Path) -> None:
    names = ["precious", ".sandbox-agent-x", f"{temporary_name()}x", temporary_name().upper()]
    for name in names:
        left_in(home, records, name)
    assert await cleared(home, records) == []
    assert sorted(os.listdir(home)) == sorted(names)


async def test_nothing_is_deleted_outside_of_the_root_and_the_record_stays(
    tmp_path: Path, home: Path, records: Path
) -> None:
    (tmp_path / "root").mkdir()
    outside, inside = left_in(home, records), left_in(tmp_path / "root", records)
    assert await cleared(home, records, tmp_path / "root") == ["cannot delete what an earlier daemon left behind"]
    assert outside.is_dir()
    assert not inside.exists()
    assert os.listdir(records) == [outside.name]
    assert await cleared(home, records) == []
    assert os.listdir(home) == []


async def test_what_is_begun_after_the_start_is_not_deleted(home: Path, records: Path) -> None:
    files = FileSystem(home, modern=False, records=records)
    async with files.writing("file") as upload:
        await files.delete_leftovers()
        await upload.write(b"x")
        await upload.finish()
    assert (home / "file").read_bytes() == b"x"


async def test_without_a_place_for_records_all_goes_on(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").touch()
    with structlog.testing.capture_logs() as logs:
        files = FileSystem(home, modern=False, records=tmp_path / "file" / "records")
        assert files.leftovers.found == []
        async with files.writing("file") as upload:
            await upload.finish()
    assert {entry["event"] for entry in logs} == {"temporary names cannot be recorded"}
    assert os.listdir(home) == ["file"]
    assert Leftovers(None).found == []
