"""A root that clients are kept in, with links in it that lead in and out, and what is outside of it."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["OUTSIDE", "SECRET", "Yard", "paths", "swapping"]

RENAME_EXCHANGE = 2
SECRET = "outside: nobody may read this"

NAMES = [
    "..", "..", ".", "", "dir", "dir", "file", "new", "to-out", "to-secret", "absolute-out", "absolute-in", "absolute",
    "up", "up-and-in", "chain", "loop", "dangling", "dangling-out", "secret", "~", "%2e%2e", "..%2f", "\u202e..", "..é",
    "x" * 255, "x" * 256, "\\..\\..", " ..", ".. ", "...", "\x01", "\n", "proc", "self", "root", "etc",
]  # fmt: skip

OUTSIDE = [
    "{outside}",
    "{outside}/secret",
    "{beside}/only-outside",
    "/",
    "/etc/passwd",
    "/etc",
    "{root}/..",
    "{root}/../outside/secret",
    "{root}/dir/../../outside/secret",
    "{root}/to-out/secret",
    "{root}/chain/secret",
    "{root}/to-secret",
    "{root}/absolute-out/secret",
    "{root}/absolute{outside}/secret",
    "{root}/absolute/etc/passwd",
    "{root}/up/outside/secret",
    "to-secret",
    "up/root/file",
]
"""Paths that lead out, to be formatted by a yard's places."""


class Yard:
    """See the module. `before` is what was outside at the start."""

    def __init__(self, place: Path) -> None:
        self.root = place / "root"
        self.outside = place / "outside"
        self.beside = place / "root-beside"  # its name begins like the root's
        for folder in (self.root / "dir", self.outside / "folder", self.beside):
            folder.mkdir(parents=True, exist_ok=True)
        for secret in (self.outside / "secret", self.outside / "folder/secret", self.beside / "only-outside"):
            secret.write_text(SECRET)
        (self.outside / "only-outside").touch()
        self.before = self.seen()

    def fill(self) -> None:
        """Put everything inside back where it was."""
        inside = self.root
        (inside / "dir").mkdir(exist_ok=True)
        (inside / "file").write_text("inside")
        (inside / "dir/file").write_text("inside")
        for name, target in {
            "to-out": "../outside",
            "to-secret": "../outside/secret",
            "absolute-out": str(self.outside),
            "absolute-in": str(inside / "dir"),
            "absolute": "/",
            "up": "..",
            "up-and-in": "../root/dir",
            "chain": "dir/again",
            "dir/again": "../to-out",
            "loop": "loop",
            "dangling": "nowhere",
            "dangling-out": "../outside/new",
        }.items():
            with suppress(FileExistsError):
                (inside / name).symlink_to(target)

    def path(self, template: str) -> str:
        """A path with the yard's places in it."""
        return template.format(root=self.root, outside=self.outside, beside=self.beside)

    def seen(self) -> dict[str, tuple[int, int, bytes]]:
        """What is outside, to the last bit of its modes."""
        return {
            str(path): (path.lstat().st_mode, path.lstat().st_ino, path.read_bytes() if path.is_file() else b"")
            for top in (self.outside, self.beside)
            for path in [top, *sorted(top.rglob("*"))]
        }


def paths() -> st.SearchStrategy[str]:
    """Paths in and out and to nowhere, to be formatted by a yard's places."""
    starts = st.sampled_from(
        ["", "/", "{root}", "{root}/", "{root}/.", "{outside}", "{outside}/", "{beside}", "//{root}//"]
    )
    text = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=5)
    parts = st.lists(st.sampled_from(NAMES) | text, max_size=6)
    ends = st.sampled_from(["", "/", "/.", "/.."])
    return st.builds(
        lambda start, names, end: start + ("/" if start and names else "") + "/".join(names) + end, starts, parts, ends
    )


@contextmanager
def swapping(yard: Yard, *, pause: float = 0) -> Generator[None]:
    """`x` is a folder inside, then a link to the one outside, and so on, as fast as can be, all the while.

    Args:
      pause: seconds between two swaps. Without one, others in this process hardly get a turn.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    x, other = os.fsencode(yard.root / "x"), os.fsencode(yard.root / "other")
    (yard.root / "x/deep").mkdir(parents=True)
    (yard.root / "other").symlink_to("../outside/folder")
    stopped = threading.Event()

    def swap() -> None:
        while not (stopped.wait(pause) if pause else stopped.is_set()):
            # An operation on one of the two has it aside for a moment.
            assert libc.renameat2(-1, x, -1, other, RENAME_EXCHANGE) == 0 or ctypes.get_errno() == errno.ENOENT

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        stopped.set()
        swapper.join()
