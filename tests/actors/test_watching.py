from __future__ import annotations

import os
import shutil
import threading
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from sandbox_actors.files import FileSystem, NotADirectory, OutsideRoot, PathNotFound
from sandbox_actors.watching import Change, Watch, open_watch
from sandbox_actors.watching.changes import Changes
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
"""Notices that the kernel keeps."""


class Listener:
    """Whoever listens, with all that was told so far."""

    def __init__(self, top: Path, watch: Watch) -> None:
        self.watch = watch
        self.heard: list[tuple[str, ...]] = []
        self.lost: list[str] = []
        self.gone = False
        self._top = str(top)

    async def more(self) -> None:
        await self.watch.wait()
        batch = await self.watch.take()
        self.heard += [self._short(change) for change in batch.changes]
        self.gone |= batch.gone
        if batch.lost:
            self.lost.append(batch.lost)

    async def until(self, *last: str) -> list[tuple[str, ...]]:
        """All that was heard, once this was."""
        with trio.fail_after(20):
            while last not in self.heard:
                await self.more()
        return self.heard

    def of(self, path: str) -> list[str]:
        """What was heard of one path."""
        return [kind for kind, name, *_ in self.heard if name == path]

    def _short(self, change: Change) -> tuple[str, ...]:
        path = os.path.relpath(change.path, self._top) + ("/" if change.folder else "")
        source = () if change.source is None else (os.path.relpath(change.source, self._top),)
        return change.kind, path, *source


@asynccontextmanager
async def listening(top: Path, *, recursive: bool = True, root: Path | None = None) -> AsyncGenerator[Listener]:
    watch = await open_watch(FileSystem(top, root), str(top), recursive=recursive)
    with closing(watch):
        yield Listener(top, watch)


async def test_what_happens_in_a_tree_is_told_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("x")
    async with listening(tmp_path) as listener:
        (tmp_path / "new").write_text("x")
        await listener.until("created", "new")
        with (tmp_path / "old" / "file").open("a") as file:
            file.write("more")
        await listener.until("modified", "old/file")
        (tmp_path / "new").rename(tmp_path / "old" / "newer")
        await listener.until("moved", "old/newer", "new")
        (tmp_path / "old" / "newer").chmod(0o600)
        await listener.until("modified", "old/newer")
        (tmp_path / "old" / "newer").unlink()
        await listener.until("deleted", "old/newer")
    assert listener.heard == [
        ("created", "new"),
        ("modified", "old/file"),
        ("moved", "old/newer", "new"),
        ("modified", "old/newer"),
        ("deleted", "old/newer"),
    ]


async def test_what_follows_each_other_closely_is_told_once(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        with (tmp_path / "written").open("w", buffering=1) as file:
            for number in range(100):
                file.write(f"line {number}\n")
        (tmp_path / "short").write_text("x")
        (tmp_path / "short").unlink()
        (tmp_path / "last").write_text("x")
        await listener.until("created", "last")
    assert listener.heard == [
        ("created", "written"),
        ("created", "short"),
        ("deleted", "short"),
        ("created", "last"),
    ]


async def test_what_is_in_a_new_folder_already_is_told_once(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        for number in range(20):
            folder = tmp_path / f"{number}" / "a" / "b"
            folder.mkdir(parents=True)
            (folder / "file").write_text("x")
        (tmp_path / "19" / "a" / "b" / "last").write_text("x")
        await listener.until("created", "19/a/b/last")
        (tmp_path / "7" / "a" / "b" / "later").write_text("x")
        await listener.until("created", "7/a/b/later")
    for number in range(20):
        for path in (f"{number}/", f"{number}/a/", f"{number}/a/b/", f"{number}/a/b/file"):
            assert listener.of(path) == ["created"], path


async def test_a_folder_that_was_moved_is_watched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    async with listening(tmp_path) as listener:
        (tmp_path / "a").rename(tmp_path / "b")
        await listener.until("moved", "b/", "a")
        (tmp_path / "b" / "deep" / "file").write_text("x")
        await listener.until("created", "b/deep/file")
        (tmp_path / "a").mkdir()
        await listener.until("created", "a/")
        (tmp_path / "b" / "deep").rename(tmp_path / "a" / "deeper")
        (tmp_path / "a" / "deeper" / "file").write_text("y")
        await listener.until("modified", "a/deeper/file")
        shutil.rmtree(tmp_path / "a")
        await listener.until("deleted", "a/")
        assert listener.watch.folders == 2  # the top and b
    assert ("moved", "a/deeper/", "b/deep") in listener.heard


async def test_what_is_found_in_a_new_folder_before_its_move_is_heard_of_is_created_there(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    async with listening(tmp_path) as listener:
        (tmp_path / "a").mkdir()
        (tmp_path / "b" / "deep").rename(tmp_path / "a" / "deeper")
        (tmp_path / "a" / "deeper" / "file").write_text("x")
        await listener.until("created", "a/deeper/file")
        (tmp_path / "a" / "deeper" / "file").unlink()
        await listener.until("deleted", "a/deeper/file")
        assert listener.watch.folders == 4
    assert listener.heard == [
        ("created", "a/"),
        ("created", "a/deeper/"),
        ("created", "a/deeper/file"),
        ("deleted", "b/deep/"),
        ("deleted", "a/deeper/file"),
    ]


async def test_what_leaves_the_tree_is_deleted_and_watched_no_longer(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "folder" / "deep").mkdir(parents=True)
    outside.mkdir()
    (outside / "coming").mkdir()
    (outside / "coming" / "file").write_text("x")
    async with listening(top) as listener:
        (top / "folder").rename(outside / "folder")
        await listener.until("deleted", "folder/")
        (outside / "folder" / "deep" / "file").write_text("x")
        (outside / "coming").rename(top / "coming")
        await listener.until("created", "coming/file")
        (outside / "folder").rename(top / "back")
        await listener.until("created", "back/deep/file")
        (top / "back" / "deep" / "file").unlink()
        await listener.until("deleted", "back/deep/file")
        # Out and back before anybody looks:
        (top / "back").rename(outside / "back")
        (outside / "back").rename(top / "again")
        (top / "again" / "deep" / "last").write_text("x")
        await listener.until("created", "again/deep/last")
        (top / "again" / "deep" / "last").unlink()
        await listener.until("deleted", "again/deep/last")
    assert listener.heard == [
        ("deleted", "folder/"),
        ("created", "coming/"),
        ("created", "coming/file"),
        ("created", "back/"),
        ("created", "back/deep/"),
        ("created", "back/deep/file"),
        ("deleted", "back/deep/file"),
        ("deleted", "back/"),
        ("created", "again/"),
        ("created", "again/deep/"),
        ("created", "again/deep/last"),
        ("deleted", "again/deep/last"),
    ]


async def test_without_its_folders_only_the_top_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    async with listening(tmp_path, recursive=False) as listener:
        assert listener.watch.folders == 1
        (tmp_path / "folder" / "file").write_text("x")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").write_text("x")
        (tmp_path / "last").write_text("x")
        await listener.until("created", "last")
    assert listener.heard == [("created", "other/"), ("created", "last")]


async def test_links_are_told_of_and_not_followed(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    top.mkdir()
    outside.mkdir()
    (top / "before").symlink_to(outside)
    async with listening(top, root=top) as listener:
        (top / "link").symlink_to(outside)
        await listener.until("created", "link")
        (outside / "file").write_text("x")
        (top / "last").write_text("x")
        await listener.until("created", "last")
    assert listener.heard == [("created", "link"), ("created", "last")]


@pytest.mark.parametrize("end", ["deleted", "deleted while open", "moved", "deleted with the one above"])
async def test_the_end_of_the_folder_itself_is_told(tmp_path: Path, end: str) -> None:
    top = tmp_path / "above" / "top"
    top.mkdir(parents=True)
    (top / "file").write_text("x")
    opened = os.open(top, os.O_RDONLY) if end == "deleted while open" else None
    async with listening(top) as listener:
        if end == "moved":
            top.rename(tmp_path / "elsewhere")
        elif end == "deleted with the one above":
            shutil.rmtree(top.parent)
        else:
            shutil.rmtree(top)
        with trio.fail_after(10):
            while not listener.gone:
                await listener.more()
    if end != "moved":
        assert listener.heard == [("deleted", "file")]
    if opened is not None:
        os.close(opened)


async def test_names_that_are_no_text_are_told_as_well_as_can_be(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        (tmp_path / os.fsdecode(b"\xff")).mkdir()
        await listener.until("created", "\ufffd/")


async def test_a_thousand_files_appear_change_and_vanish_and_nothing_is_missed(tmp_path: Path) -> None:
    def make_trouble() -> None:
        for number in range(1000):
            folder = tmp_path / f"{number % 10}" / f"{number % 100}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}").write_text("x")
        for number in range(1000):
            with (tmp_path / f"{number % 10}" / f"{number % 100}" / f"{number}").open("a") as file:
                file.write("more")
        for number in range(1000):
            (tmp_path / f"{number % 10}" / f"{number % 100}" / f"{number}").unlink()
        (tmp_path / "last").write_text("x")

    async with listening(tmp_path) as listener:
        trouble = threading.Thread(target=make_trouble)
        trouble.start()
        await listener.until("created", "last")
        trouble.join()
    assert listener.lost == []
    for number in range(1000):
        kinds = listener.of(f"{number % 10}/{number % 100}/{number}")
        assert kinds[0] == "created", number
        assert kinds[-1] == "deleted", number
        assert set(kinds) <= {"created", "modified", "deleted"}
        assert kinds.count("created") == kinds.count("deleted") == 1, (number, kinds)


async def test_who_does_not_listen_is_told_that_something_was_lost_and_hears_all_from_then_on(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        for number in range(QUEUE // 2 + 200):  # two notices each
            path = tmp_path / f"{number}"
            path.touch()
            path.unlink()
        (tmp_path / "unseen").mkdir()
        (tmp_path / "unseen" / "deep").mkdir()
        with trio.fail_after(60):
            while not listener.lost:
                await listener.more()
        assert listener.lost == ["queue"]
        (tmp_path / "unseen" / "deep" / "file").write_text("x")
        await listener.until("created", "unseen/deep/file")
        assert listener.lost == ["queue"]


async def test_a_stopped_watch_wakes_whoever_waits(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.watch.wait)
                await trio.testing.wait_all_tasks_blocked()
                listener.watch.stop()
            assert listener.watch.stopped
            await listener.watch.wait()


async def test_a_closed_watch_holds_nothing_also_where_a_thread_is_at_work(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with listening(tmp_path) as listener:
        (tmp_path / "file").write_text("x")
        await listener.until("created", "file")
        assert len(os.listdir("/proc/self/fd")) == before + 2
    assert len(os.listdir("/proc/self/fd")) == before
    async with listening(tmp_path) as listener:
        with trio.move_on_after(0.2):
            for number in range(3000):
                (tmp_path / f"{number}").mkdir()
            await listener.watch.wait()
            await listener.watch.take()
    with trio.fail_after(10):
        await eventually(lambda: len(os.listdir("/proc/self/fd")) == before)


async def test_what_cannot_be_watched_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "root").mkdir()
    with pytest.raises(NotADirectory):
        await open_watch(FileSystem(tmp_path), "file")
    with pytest.raises(PathNotFound):
        await open_watch(FileSystem(tmp_path), "none")
    with pytest.raises(OutsideRoot):
        await open_watch(FileSystem(tmp_path, tmp_path / "root"), str(tmp_path))


def test_changes_are_merged_only_where_nothing_is_lost_by_it() -> None:
    def kinds(*told: str) -> list[str]:
        changes = Changes()
        for kind in told:
            if kind.startswith("moved"):
                changes.move(Change("moved", "x", False, "y"))
            else:
                changes.add(Change(kind, "x", False))  # type: ignore[arg-type]
        return [change.kind for change in changes.told()]

    assert kinds("created", "modified", "modified") == ["created"]
    assert kinds("modified", "modified", "deleted") == ["modified", "deleted"]
    assert kinds("created", "deleted", "created") == ["created", "deleted", "created"]
    assert kinds("moved", "modified", "deleted") == ["moved", "deleted"]
