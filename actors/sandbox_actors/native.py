"""What a client asked for when it made a session, as opposed to what it says to the agent in it.

It is kept with the session, so that a later incarnation, of the agent or of the daemon, goes on under the same terms. A
session that a client of the raw wire made has one, too: all its defaults.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .catalog.environment import PRIVATE
from .errors import InvalidRequest
from .permissions.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Changes", "ForkedFrom", "Setup", "check_environment", "fingerprint", "new_id"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
"""Base 32 (RFC 4648), in lower case."""

ID_LENGTH = 20
"""Characters, 5 bits each: nobody guesses one, and none is made twice."""


class ForkedFrom(msgspec.Struct, frozen=True):
    """Where a session has begun.

    Attributes:
      id: the session that it is a fork of, which may be gone by now.
      seq: the last event of that one which it knows of.
    """

    id: str
    seq: int


class Setup(msgspec.Struct, rename="camel", omit_defaults=True):
    """See the module.

    Attributes:
      native: the daemon itself opens the ACP session; otherwise clients do.
      cwd: absolute; None is the home directory.
      mcp_servers: in ACP's shape; UNSET: what is stored for the directory.
      env: what the agent's process gets beside what every agent gets. The values are told to nobody.
      config: values of the agent's config options, by their ids.
      idle_limit: seconds; None is the daemon's default, 0: it never hibernates.
      turn_deadline: seconds a turn may take; None is the daemon's default, 0: as long as it likes.
      queue_limit: how many prompts may wait; None is the daemon's default.
      resume: an agent's own session, with which the session goes on.
      forked_from: what that is a fork of, where it is one.
    """

    native: bool = False
    cwd: str | None = None
    mcp_servers: list[Raw] | UnsetType = UNSET
    env: dict[str, str] = {}
    mode: str | None = None
    model: str | None = None
    config: dict[str, str | bool] = {}
    policy: Policy = Policy()
    title: str | None = None
    tags: dict[str, str] = {}
    idle_limit: float | None = None
    turn_deadline: float | None = None
    queue_limit: int | None = None
    resume: str | None = None
    forked_from: ForkedFrom | None = None


class Changes(msgspec.Struct, rename="camel", omit_defaults=True):
    """What is to be different from now on; UNSET is not touched. See `Setup`."""

    mode: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    config: dict[str, str | bool] | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET
    title: str | UnsetType | None = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    idle_limit: float | UnsetType | None = UNSET
    turn_deadline: float | UnsetType | None = UNSET
    queue_limit: int | UnsetType | None = UNSET


def new_id(kind: str) -> str:
    """An id that nobody has: `ses_...`, `turn_...`."""
    return f"{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def fingerprint(parts: Sequence[object]) -> str:
    """By it a request is known again without being kept: equal contents have equal fingerprints."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]


def check_environment(env: Mapping[str, str]) -> None:
    """Raises `InvalidRequest` where a process cannot have such variables, or must not have them from a client."""
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or not name.isprintable():
            raise InvalidRequest(f"env: {name!r} is no name of a variable")
        if PRIVATE.fullmatch(name):
            raise InvalidRequest(f"env: {name} is the daemon's own")
        if "\0" in value or not _is_unicode(value):
            raise InvalidRequest(f"env: the value of {name} holds what no variable can")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
