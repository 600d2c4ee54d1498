"""Whom a process runs as, where that is somebody else than the daemon."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from ..errors import InvalidRequest
from .errors import UserDenied

__all__ = ["User"]


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str

    @classmethod
    def find(cls, text: str) -> User:
        """By name or number. Blocks.

        Raises:
          InvalidRequest: there is no such user.
          UserDenied: we may not become anybody else.
        """
        if os.geteuid() != 0:
            raise UserDenied(text)
        try:
            entry = pwd.getpwuid(int(text)) if text.isascii() and text.isdigit() else pwd.getpwnam(text)
        except (KeyError, ValueError, OverflowError):
            raise InvalidRequest(f"there is no user {text!r}") from None
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return cls(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir, entry.pw_shell)

    @property
    def environment(self) -> dict[str, str]:
        """What programs take to be their user's."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}
