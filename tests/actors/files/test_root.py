"""Nothing leads out of a root: no path, no link, and no race."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from sandbox_actors.errors import Refusal
from sandbox_actors.files import FileSystem, NotADirectory, OutsideRoot, PathNotFound
from sandbox_actors.files.errors import FileTrouble
from support.yard import OUTSIDE, SECRET, Yard, paths, swapping

CORPUS = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    yard.fill()
    return yard


@pytest.fixture
async def confined(yard: Yard, modern: bool) -> FileSystem:
    return FileSystem("/nowhere", yard.root, modern=modern)


async def read(files: FileSystem, path: str) -> str:
    return ((await files.open(path)).whole or b"").decode()


async def write(files: FileSystem, path: str, *, append: bool = False) -> None:
    async with files.writing(path, append=append) as upload:
        await upload.write(b"from inside")
        await upload.finish()


async def everything(files: FileSystem, path: str) -> list[str]:
    """Do all that can be done with a path, and give what was read."""
    found: list[str] = []
    with suppress(Refusal):
        found.append(await read(files, path))
    with suppress(Refusal):
        found += [str(entry.name) for entry in await files.entries(path)]
    for call in (
        partial(files.stat, path),
        partial(files.directory, path),
        partial(files.directory, path, make=True),
        partial(files.set_mode, path, 0o777),
        partial(write, files, path),
        partial(write, files, path, append=True),
        partial(files.move, "file", path),
        partial(files.move, "file", path, overwrite=True),
        partial(files.move, path, "moved"),
        partial(files.make_directory, path),
        partial(files.delete, path),
        partial(files.delete, path, recursive=True),
    ):
        with suppress(Refusal):
            await call()
    with suppress(Refusal):
        found.append(await read(files, "moved"))
    return found


@CORPUS
@given(path=paths())
async def test_no_path_leads_out(tmp_path: Path, modern: bool, path: str) -> None:
    yard = Yard(tmp_path)
    yard.fill()
    files = FileSystem(yard.root / "dir", yard.root, modern=modern)
    found = await everything(files, yard.path(path))
    assert not [text for text in found if SECRET in text or text == "only-outside"]
    assert yard.seen() == yard.before


@pytest.mark.parametrize("path", OUTSIDE)
async def test_what_leads_out_is_told_so(confined: FileSystem, yard: Yard, path: str) -> None:
    path = yard.path(path)
    with pytest.raises(OutsideRoot, match=r"^the path is outside of the root: "):
        await confined.open(path)
    with pytest.raises(OutsideRoot):
        await confined.stat(f"{path}/.")
    assert yard.seen() == yard.before


async def test_links_are_followed_as_long_as_they_stay_inside(confined: FileSystem, yard: Yard) -> None:
    (yard.root / "dir/back").symlink_to("../file")
    (yard.root / "dir/self").symlink_to(f"{yard.root}")
    for path in ("dir/back", f"{yard.root}/dir/../file", "absolute-in/file", "dir/self/absolute-in/self/file"):
        assert await read(confined, path) == "inside"
    with pytest.raises(OutsideRoot):
        await read(confined, "up-and-in/file")  # it comes back, but it has been out
    with pytest.raises(FileTrouble, match="Too many levels of symbolic links"):
        await confined.open("loop")
    assert (await confined.stat("dangling")).dangling


async def test_links_that_lead_out_can_be_seen_moved_and_deleted_as_links(confined: FileSystem, yard: Yard) -> None:
    shown = {entry.name: entry.target for entry in await confined.entries("")}
    assert shown["to-out"] == "../outside"
    await confined.move("to-out", "moved")
    assert (yard.root / "moved").is_symlink()
    for name in ("moved", "to-secret", "absolute-out", "dangling-out"):
        await confined.delete(name, recursive=True)
    assert yard.seen() == yard.before


async def test_what_is_written_through_a_link_that_leads_out_is_not_written(confined: FileSystem, yard: Yard) -> None:
    for path in ("to-secret", "dangling-out", "to-out/new", "chain/new"):
        for append in (False, True):
            with pytest.raises(OutsideRoot):
                await write(confined, path, append=append)
    await write(confined, "dangling")
    assert (yard.root / "nowhere").read_text() == "from inside"
    assert yard.seen() == yard.before


async def test_magic_links_lead_nowhere(modern: bool) -> None:
    files = FileSystem("/", Path("/proc/self"), modern=modern)
    for path in ("root/etc/passwd", "cwd", "fd/0", "exe"):
        with pytest.raises((OutsideRoot, FileTrouble, PathNotFound, NotADirectory)):
            await files.open(path)
        with pytest.raises((OutsideRoot, FileTrouble, PathNotFound, NotADirectory)):
            await files.entries(path)


async def test_relative_paths_are_below_home_if_that_is_inside(yard: Yard, modern: bool) -> None:
    assert FileSystem(yard.root / "dir", yard.root, modern=modern).located("x") == f"{yard.root}/dir/x"
    for home in (yard.outside, yard.beside, "/", "relative"):
        files = FileSystem(home, yard.root, modern=modern)
        assert files.located("x") == f"{yard.root}/x"
        assert await read(files, "file") == "inside"


async def test_a_root_goes_by_the_name_it_was_given_too(yard: Yard, modern: bool, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to("root")
    files = FileSystem("/", tmp_path / "alias", modern=modern)
    assert await read(files, f"{tmp_path}/alias/file") == "inside"
    assert await read(files, f"{yard.root}/file") == "inside"
    assert await read(files, "absolute-in/file") == "inside"
    with pytest.raises(OutsideRoot):
        await read(files, f"{tmp_path}/alias/../outside/secret")


async def test_a_root_stays_the_directory_that_it_was(confined: FileSystem, yard: Yard) -> None:
    yard.root.rename(yard.root.with_name("renamed"))
    yard.root.symlink_to(yard.outside)
    assert await read(confined, "file") == "inside"
    with pytest.raises(PathNotFound):
        await confined.open("secret")


async def test_the_whole_file_system_may_be_the_root(yard: Yard, modern: bool) -> None:
    files = FileSystem(yard.root, Path("/"), modern=modern)
    assert await read(files, "absolute-out/secret") == SECRET
    assert await read(files, f"{yard.root}/../outside/secret") == SECRET
    with pytest.raises(OutsideRoot):
        await files.stat("/../etc/passwd")


async def test_there_has_to_be_a_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        with pytest.raises(OSError, match=r"No such file or directory|Not a directory"):
            FileSystem("/", tmp_path / name)


async def test_a_link_that_is_swapped_in_while_a_path_is_resolved_does_not_lead_out(
    confined: FileSystem, yard: Yard
) -> None:
    ways = {True: 0, False: 0}
    with swapping(yard):
        for number in range(300):
            for call in (
                partial(write, confined, "x/secret"),
                partial(confined.set_mode, "x/secret", 0o640),
                partial(confined.move, "x/secret", "stolen", overwrite=True),
                partial(confined.move, "stolen", "x/secret", overwrite=True),
                partial(write, confined, f"{yard.root}/x/deep/../new-{number}", append=True),
                partial(confined.make_directory, f"x/made-{number}/in"),
                partial(confined.delete, "x/secret"),
                partial(confined.delete, f"{yard.root}/x/deep/../../x/folder", recursive=True),
            ):
                try:
                    await call()
                except (PathNotFound, NotADirectory, FileTrouble):
                    continue  # it was a link by the time it was opened
                except OutsideRoot:
                    ways[False] += 1
                else:
                    ways[True] += 1
            with suppress(Refusal):
                assert await read(confined, "x/secret") == "from inside"
    assert all(ways.values()), "it was swapped all the while"
    assert yard.seen() == yard.before
