"""What a client asks for when it makes a native session, looked through before anything is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import trio

from .errors import InvalidRequest
from .native import check_environment

if TYPE_CHECKING:
    from .catalog import Catalog
    from .native import Setup

__all__ = ["check_id", "checked"]

ID_LIMIT = 256
"""Characters of a session's id: it is part of URLs and of log lines."""


def check_id(id: str) -> None:
    """Raises `InvalidRequest` for an id that could not be named in a URL."""
    if not id or len(id) > ID_LIMIT or not id.isprintable() or "/" in id or id in (".", ".."):
        raise InvalidRequest(f"id: between 1 and {ID_LIMIT} printable characters, without a slash")


async def checked(setup: Setup, catalog: Catalog) -> Setup:
    """The setup of a native session, with its directory.

    Raises:
      InvalidRequest: there cannot be such a session.
    """
    check_environment(setup.env)
    cwd = setup.cwd if setup.cwd is not None else catalog.environment.get("HOME") or "/"
    if not os.path.isabs(cwd) or "\0" in cwd:
        raise InvalidRequest("cwd: must be an absolute path")
    try:
        there = await trio.Path(cwd).is_dir()
    except (OSError, ValueError):
        there = False
    if not there:
        raise InvalidRequest(f"cwd: there is no directory {cwd}")
    return msgspec.structs.replace(setup, native=True, cwd=cwd)
