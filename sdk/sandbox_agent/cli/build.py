"""Which build of the program this is: its version, and a fingerprint of the files that it is made of."""

from __future__ import annotations

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

from .. import __version__

__all__ = ["build_id"]

PACKAGES = ("sandbox_supervisor", "sandbox_actors", "sandbox_http", "sandbox_agent")

DIGITS = 10
"""Of the fingerprint: enough for builds of one machine."""


def build_id() -> str:
    """The build, such as `0.1.0-5f3c9a2b71`.

    An upgrade in place, also one of an editable install, changes it; a copy of the same files elsewhere need not.
    """
    digest = hashlib.sha256(sys.version.encode())
    for package in PACKAGES:
        spec = find_spec(package)
        for root in sorted(spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(root).rglob("*")):
                if path.suffix in (".py", ".toml", ".json"):
                    status = path.lstat()  # an editor's lock may be a link to nothing
                    name = path.relative_to(root).as_posix()
                    digest.update(f"{package}/{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return f"{__version__}-{digest.hexdigest()[:DIGITS]}"
