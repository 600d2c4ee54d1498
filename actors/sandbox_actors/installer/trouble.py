"""What goes wrong in an install, said in a sentence for a person and a word for a program.

npm, uv and pip tell what went wrong in text alone; the marks below stand in their messages since years.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..errors import InstallTrouble

__all__ = ["Trouble", "trouble_of_os", "trouble_of_tool", "without_users"]


class Trouble(Exception):
    """The install cannot go on; see `InstallFailed`, which it becomes."""

    def __init__(self, reason: InstallTrouble, message: str, stderr: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reason: InstallTrouble = reason
        self.stderr = tuple(stderr)


# In this order: pip tells of a network that is not there first, and then that it has found no such package.
_MARKS: tuple[tuple[InstallTrouble, re.Pattern[str]], ...] = (
    ("disk_full", re.compile(r"ENOSPC|EDQUOT|No space left|[Qq]uota exceeded", re.ASCII)),
    (
        "network",
        re.compile(
            r"ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EIDLETIMEOUT|ERR_SOCKET"
            r"|CERT_|_CERT\b|_CERTIFICATE|certificate verify failed|invalid peer certificate"
            r"|Failed to establish a new connection"
            r"|client error \(Connect\)|[Dd]ns error|operation timed out|Request failed after|Read timed out"
            r"|ConnectTimeoutError|ProxyError",
            re.ASCII,
        ),
    ),
    (
        "not_found",
        re.compile(
            r"\bE404\b|ETARGET|notarget|No matching (distribution|version)|no version of|there are no versions of"
            r"|was not found in the (package registry|cache|provided)|No solution found",
            re.ASCII,
        ),
    ),
)

_ADVICE: Mapping[InstallTrouble, str] = {
    "disk_full": "the disk is full; free some space, and try again",
    "network": "the package registry cannot be reached; check the network, proxy and certificates, and try again",
    "not_found": "there is no such package or version, or none for this platform; ask for another version",
    "failed": "the last lines of its output say why",
}


def trouble_of_tool(tool: str, what: str, lines: Sequence[str]) -> Trouble:
    """Why a package tool failed, by its last lines.

    Args:
      what: what it was to install.
    """
    text = "\n".join(lines)
    found: list[InstallTrouble] = [reason for reason, mark in _MARKS if mark.search(text)]
    reason = found[0] if found else "failed"
    return Trouble(reason, f"{tool} could not install {what}: {_ADVICE[reason]}", lines)


def trouble_of_os(error: OSError) -> Trouble:
    """What the operating system refuses to us."""
    where = f" ({error.filename})" if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Trouble("disk_full", f"{_ADVICE['disk_full']}{where}")
    return Trouble("failed", f"{error.strerror or error}{where}")


_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")


def without_users(line: str) -> str:
    """A line without the users and passwords of its URLs: those of npm's own configuration are known to nobody else."""
    return _USER_IN_URL.sub("***@", line)
