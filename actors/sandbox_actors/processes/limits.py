"""What a process may use, and what holds it to that.

A resource limit of the kernel (setrlimit(2)) holds each process of the tree by itself; a control group holds the tree
as a whole, where the daemon may make one. `processes` counts all processes of a user where no group holds it, and does
not hold root at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

    from .cgroups import Controller

__all__ = ["Holder", "Limits"]

Holder: TypeAlias = Literal["rlimit", "cgroup"]


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit of ours.

    Attributes:
      cpu_seconds: of CPU time; then SIGXCPU, and SIGKILL a second later.
      memory_bytes: of memory of its own.
      file_bytes: of the largest file it may write.
      open_files: descriptors.
      processes: and threads.
      cpus: of how many CPUs it may have the time.
    """

    cpu_seconds: int | None = None
    memory_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    cpus: float | None = None

    @property
    def any(self) -> bool:
        return self != Limits()

    def rlimits(self) -> dict[str, tuple[int, int]]:
        """Soft and hard limits by the names of the kernel."""
        asked = {
            "RLIMIT_CPU": self.cpu_seconds,
            # Not RLIMIT_AS: JavaScript and Go engines reserve far more addresses than they ever use.
            "RLIMIT_DATA": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_NPROC": self.processes,
        }
        return {name: (value, value + (name == "RLIMIT_CPU")) for name, value in asked.items() if value is not None}

    def settings(self) -> dict[Controller, int | float]:
        """What a control group is to be told."""
        asked: dict[Controller, int | float | None] = {
            "memory": self.memory_bytes,
            "pids": self.processes,
            "cpu": self.cpus,
        }
        return {controller: value for controller, value in asked.items() if value is not None}

    def held(self, controllers: Collection[Controller], *, root: bool | None = None) -> dict[str, list[Holder]]:
        """By what each limit that was asked for is held; a limit that nothing holds has an empty list.

        Args:
          controllers: what the control group of this tree has.
          root: whether it runs as root; as we do, by default.
        """
        root = os.geteuid() == 0 if root is None else root
        holders: dict[str, list[Holder]] = {}
        for name, controller, each in (
            ("cpu_seconds", None, True),
            ("memory_bytes", "memory", True),
            ("file_bytes", None, True),
            ("open_files", None, True),
            ("processes", "pids", not root),
            ("cpus", "cpu", False),
        ):
            if getattr(self, name) is not None:
                holders[name] = ["rlimit"] if each else []
                if controller in controllers:
                    holders[name].append("cgroup")
        return holders
