"""Control groups: a tree of processes held to its limits as a whole, where the kernel lets us make groups.

Groups are made below the daemon's own, in version 1 (a hierarchy a controller) as in version 2 (one for all), so that
what holds the daemon holds its processes as well. In version 2 a group that has processes in it cannot hand its
controllers on: then there are none for us, unless somebody has prepared the group the daemon runs in.

Sources: cgroups(7); Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of Linux.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Cgroups", "Controller", "Group"]

Controller: TypeAlias = Literal["memory", "pids", "cpu"]

CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpu")

CPU_PERIOD = 100_000
"""Microseconds within which a group may have its share of CPU time: the kernel's own default."""

REMOVED_WITHIN = 1.0
"""Seconds for the kernel to let go of processes that were killed."""

PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where groups may be made.

    Attributes:
      parents: the directory below which, by controller.
      unified: whether they are of version 2.
    """

    parents: Mapping[Controller, Path]
    unified: bool = False

    @classmethod
    def none(cls) -> Cgroups:
        return cls({})

    @classmethod
    def detect(cls, proc: Path = Path("/proc/self")) -> Cgroups:
        """What this process may do. Blocks for a few reads."""
        try:
            memberships = (proc / "cgroup").read_text().splitlines()
            mounts = (proc / "mountinfo").read_text().splitlines()
        except OSError:
            return cls.none()
        ours: dict[str, str] = {}
        for membership in memberships:
            _, names, path = membership.split(":", 2)
            ours.update(dict.fromkeys(names.split(","), path))
        legacy: dict[Controller, Path] = {}
        for mount in mounts:
            before, _, after = mount.partition(" - ")
            kind, _, options = after.split(" ", 2)
            root, point = before.split(" ")[3:5]
            if kind == "cgroup2" and (found := _unified(_below(point, root, ours.get("", "/")))):
                return cls(found, unified=True)
            if kind == "cgroup":
                for name in CONTROLLERS:
                    if name in options.split(",") and _usable(place := _below(point, root, ours.get(name, "/"))):
                        legacy[name] = place
        return cls(legacy)

    def make(self, name: str, settings: Mapping[Controller, int | float]) -> Group | None:
        """A group with these limits; None where not one of them can be set. Blocks.

        Args:
          name: unique among those alive.
        """
        places: dict[Path, None] = {}
        held: list[Controller] = []
        for controller, value in settings.items():
            if (parent := self.parents.get(controller)) is None:
                continue
            place = parent / name
            with contextlib.suppress(OSError):
                place.mkdir(exist_ok=True)
                places[place] = None
                for file, text in self._told(controller, value).items():
                    (place / file).write_text(text)
                held.append(controller)
        group = Group(tuple(held), tuple(places), unified=self.unified)
        if not held:
            group.remove()
            return None
        return group

    def _told(self, controller: Controller, value: float) -> dict[str, str]:
        match controller:
            case "pids":
                return {"pids.max": str(int(value))}
            case "memory":
                return {"memory.max" if self.unified else "memory.limit_in_bytes": str(int(value))}
            case "cpu":
                quota = max(1000, int(value * CPU_PERIOD))
                if self.unified:
                    return {"cpu.max": f"{quota} {CPU_PERIOD}"}
                return {"cpu.cfs_period_us": str(CPU_PERIOD), "cpu.cfs_quota_us": str(quota)}


@dataclass(frozen=True, slots=True)
class Group:
    """One tree's group.

    Attributes:
      controllers: what it is held by.
      places: its directories.
    """

    controllers: tuple[Controller, ...]
    places: Sequence[Path]
    unified: bool = False

    @property
    def doors(self) -> list[str]:
        """The files into which a process writes 0 to join."""
        return [str(place / "cgroup.procs") for place in self.places]

    def kill(self) -> None:
        """SIGKILL to all in it; no new ones come meanwhile, where there is a limit for them. Blocks, not for long."""
        for place in self.places:
            with contextlib.suppress(OSError):
                if "pids" in self.controllers and (place / "pids.max").exists():
                    (place / "pids.max").write_text("0")
            with contextlib.suppress(OSError):
                if (place / "cgroup.kill").exists():
                    (place / "cgroup.kill").write_text("1")
            for pid in self.pids(place):
                # It was in the group an instant ago, and the numbers of ended ones are not given out again that soon.
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def pids(self, place: Path) -> list[int]:
        """Who is in it."""
        with contextlib.suppress(OSError):
            return [int(line) for line in (place / "cgroup.procs").read_text().split() if line != "0"]
        return []

    def remove(self) -> None:
        """End whoever is left, and take it away. Blocks, bounded."""
        deadline = time.monotonic() + REMOVED_WITHIN
        for place in self.places:
            while place.exists():
                with contextlib.suppress(OSError):
                    place.rmdir()
                    break
                if time.monotonic() >= deadline:
                    break
                self.kill()
                time.sleep(PAUSE)


def _below(point: str, root: str, path: str) -> Path:
    """Where a group is, given where its hierarchy is mounted, and which part of it."""
    relative = path.removeprefix(root) if root != "/" else path
    return Path(point) / relative.lstrip("/")


def _usable(place: Path) -> bool:
    return (place / "cgroup.procs").exists() and os.access(place, os.W_OK)


def _unified(place: Path) -> dict[Controller, Path]:
    if not _usable(place):
        return {}
    control = place / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        offered = (place / "cgroup.controllers").read_text().split()
        for name in CONTROLLERS:
            with contextlib.suppress(OSError):
                if name in offered:
                    control.write_text(f"+{name}")
        handed_on = control.read_text().split()
        return {name: place for name in CONTROLLERS if name in handed_on}
    return {}
