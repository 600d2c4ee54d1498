"""Who is still alive: processes found by a text in their environment, which no descendant can lose by accident."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["alive", "children_of", "command_of", "eventually", "processes_with", "zombies_of"]

POLL_EVERY = 0.01
"""Seconds between two looks at what announces itself to nobody, such as the end of a process that is not ours."""


def processes_with(marker: str) -> list[int]:
    """The live processes that carry the marker in their environment; this one and zombies left out."""
    # One listing can miss a process: in the middle of an exec its environment looks empty.
    return sorted(set(_bearers(marker)) | set(_bearers(marker)))


def _bearers(marker: str) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        # Others end while we look, or are not ours to see. The environment of a zombie is empty.
        with suppress(OSError):
            if entry.name.isdecimal() and marker.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def alive(pid: int) -> bool:
    """Whether a pid is a process that still runs: neither gone nor a zombie."""
    try:
        return _state_and_parent(pid)[0] not in "ZX"
    except OSError:
        return False


def command_of(pid: int) -> str:
    """Its command line; empty where there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def children_of(parent: int) -> list[int]:
    """The direct children, the ended ones that nobody has collected included."""
    return [pid for pid, _ in _children(parent)]


def zombies_of(parent: int) -> list[int]:
    """The direct children that have ended and that nobody has collected."""
    return [pid for pid, state in _children(parent) if state == "Z"]


def _children(parent: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal():
                state, above = _state_and_parent(int(entry.name))
                if above == parent:
                    found.append((int(entry.name), state))
    return found


def _state_and_parent(pid: int) -> tuple[str, int]:
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition of the world outside, which sends no events; the caller brings the deadline."""
    while not condition():  # noqa: ASYNC110 (see above)
        await trio.sleep(POLL_EVERY)
