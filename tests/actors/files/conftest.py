"""A file system in the folder of a test."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox_actors.files import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager


@pytest.fixture(params=[True, False], ids=["modern", "old"])
def modern(request: pytest.FixtureRequest) -> bool:
    """Whether kernel and file system know what the younger ones do."""
    known: bool = request.param
    return known


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
async def files(home: Path, modern: bool) -> FileSystem:
    """The whole file system, with a home of its own."""
    return FileSystem(home, modern=modern)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; skips the test where we may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    with _mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)):
        yield place


@pytest.fixture
def mounted(home: Path) -> Iterator[None]:
    """`under` is mounted on `file`, as containers have it; skips the test where we may not mount anything."""
    for name in ("under", "file"):
        (home / name).write_text("")
    with _mounted("--bind", str(home / "under"), str(home / "file")):
        yield


@contextmanager
def _mounted(*arguments: str) -> Generator[None]:
    mounted = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount anything here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody on this machine may look into: those of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@contextmanager
def nobody() -> Generator[None]:
    """Not to be root for the file system, where we are: permissions count then."""
    if os.geteuid():
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """A block in which permissions count."""
    return nobody
