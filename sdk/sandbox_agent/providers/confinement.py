"""Walls around a program on this machine, by bubblewrap: what it sees of the files, and which processes.

/                       read-only
/home /root /run /tmp   empty, as the directory of all sandboxes and /var/tmp; what the program needs is put back
the sandbox, workspace  writable
processes, IPC, names   its own; the network stays, since the server must be reached
"""

from __future__ import annotations

import importlib.util
import shutil
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["confined"]

HIDDEN = tuple(map(Path, ("/home", "/root", "/run", "/tmp", "/var/tmp")))
"""Where other people's files are, and the sockets of programs that act for whoever asks."""

PACKAGES = ("sandbox_agent", "sandbox_http", "sandbox_actors", "sandbox_supervisor")
"""Ours, which need not be among the installed ones: in an editable install they are elsewhere."""

RESOLVER = Path("/etc/resolv.conf")
"""A link into /run on many machines; without it no name is found."""


def confined(
    command: Sequence[str], *, hidden: Path, writable: Iterable[Path], readable: Iterable[Path]
) -> tuple[str, ...]:
    """A command line that runs this one within walls.

    Args:
      hidden: a further directory to look empty.
      writable, readable: put back over what is hidden. They are there.

    Raises:
      ProviderError: bubblewrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise ProviderError("a confined sandbox needs bubblewrap, which is not installed: apt install bubblewrap")
    walls = [bwrap, "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    # As root, too, it is to have none of root's powers: they would take the walls down again.
    walls += ["--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    # By their real names: /home is a link on some machines.
    covered = sorted({place.resolve() for place in (*HIDDEN, hidden) if place.is_dir()})
    for place in covered:
        walls += ["--tmpfs", str(place)]
    kept = {*_needed(), *(path.resolve() for path in readable)}
    kept = {place for place in kept if any(place.is_relative_to(cover) for cover in covered)}
    for place in sorted(kept):
        if kept.isdisjoint(place.parents):  # else it comes with that one
            walls += ["--ro-bind", str(place), str(place)]
    for place in writable:
        walls += ["--bind", str(place), str(place)]
    return (*walls, "--", *command)


def _needed() -> set[Path]:
    """What this Python and our packages are made of, as far as it is there."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), str(RESOLVER.resolve())}
    if site.ENABLE_USER_SITE:
        places.add(site.getusersitepackages())
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places.update(spec.submodule_search_locations or () if spec is not None else ())
    return {path for path in map(Path, places) if path.exists()}
