"""Which entries of a file this machine's servers stored, and which came there otherwise, say with a cloned repository.

What an entry of `mcp.json` says is carried out when a session is opened: a program is started, a variable of the
daemon's environment sent to a URL. So an entry is used only under a seal, which lies in a file beside: an HMAC-SHA256
over the directory, the name and the entry, by a key that is in the daemons' data directory and nowhere else.

Each entry has a seal of its own. What is stored under one name makes no other entry trusted, whoever edits an entry by
hand breaks its seal, and a copy of the directory has a path for which nothing was sealed. Seals keep out what comes in
files. They do not keep out a program that runs as the daemon's user: it can read the key, as it can do all else.

A change writes the seals of the entry before and after it, then the file, then the seals after it: at any moment the
file has a seal for what it holds, also where the writer is killed. What a power cut mixes up is not trusted.
"""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Generic, TypeAlias, TypeVar

import msgspec

from .errors import InvalidConfigFile
from .file import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Sealer", "Vetted", "key_made", "read_key", "read_seals", "read_with_seals", "seals_file"]

E = TypeVar("E")

SIZE = 32
"""Bytes of the key, and of a seal."""

PURPOSE = "sandbox-agent directory config 1"
"""What is sealed begins with this: a key must not vouch for anything else, should it ever be used for more."""

LOOKS = 20
"""How often file and seals are read until they belong together; a writer changes them every few milliseconds."""

Seal: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SIZE, max_length=SIZE)]

Seals: TypeAlias = dict[str, Annotated[list[Seal], msgspec.Meta(min_length=1, max_length=2)]]
"""Seals by the name of the entry; two where a change is, or was, in the middle."""


@dataclass(frozen=True, slots=True)
class Vetted(Generic[E]):
    """The entries of a directory.

    Attributes:
      stored: those that were stored through a server of this machine.
      foreign: those that came there otherwise, or were changed since.
    """

    stored: Mapping[str, E]
    foreign: Mapping[str, E]


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes and checks the seals of one file.

    Attributes:
      place: the directory, its links resolved, and the name of the file.
    """

    key: bytes = field(repr=False)
    place: tuple[bytes, str]

    @classmethod
    def of(cls, key: bytes, path: Path) -> Sealer:
        """The sealer of `D/.sandbox-agent/config/<kind>.json`."""
        # Links above D make no difference. Those below it do: a repository may bring a link in the place of
        # `.sandbox-agent`, which leads to what was stored for another directory.
        return cls(key, (os.fsencode(os.path.realpath(path.parents[2])), path.name))

    def vet(self, entries: Mapping[str, E], seals: Seals) -> Vetted[E]:
        """Tell entries apart."""
        stored = {name: entry for name, entry in entries.items() if self._fitting(name, entry, seals)}
        return Vetted(stored, {name: entry for name, entry in entries.items() if name not in stored})

    def change(
        self, seals: Seals, before: Mapping[str, object], after: Mapping[str, object], name: str
    ) -> tuple[Seals, Seals]:
        """The seals while one entry is changed, and after that.

        Other entries keep what they have, be it good or not: a daemon with another key may have sealed them.
        """
        others = {kept: found for kept, found in seals.items() if kept in after and kept != name}
        if name not in after:
            return seals, others
        fresh = self._seal(name, after[name])
        fitting = self._fitting(name, before[name], seals) if name in before else None
        return {**others, name: list(dict.fromkeys(filter(None, [fitting, fresh])))}, {**others, name: [fresh]}

    def _fitting(self, name: str, entry: object, seals: Seals) -> bytes | None:
        if name not in seals:
            return None
        expected = self._seal(name, entry)
        return next((seal for seal in seals[name] if hmac.compare_digest(seal, expected)), None)

    def _seal(self, name: str, entry: object) -> bytes:
        text = msgspec.json.encode([PURPOSE, *self.place, name, entry])
        return hmac.digest(self.key, text, "sha256")


def seals_file(path: Path) -> Path:
    """Where the seals of a file are."""
    return path.with_name(f".{path.name}.mac")


def read_with_seals(path: Path) -> tuple[bytes | None, Seals]:
    """The file and the seals that belong to it. Raises what `read_file` raises."""
    before = read_seals(path)
    text, seals = read_file(path), read_seals(path)
    for _ in range(LOOKS):
        if seals == before:
            break
        before = seals
        text, seals = read_file(path), read_seals(path)
    return text, seals


def read_seals(path: Path) -> Seals:
    """The seals beside the file; none where they make no sense, since that vouches for nothing. Raises `OSError`."""
    try:
        text = read_file(seals_file(path))
        return {} if text is None else msgspec.json.decode(text, type=Seals)
    except (InvalidConfigFile, UnicodeDecodeError, RecursionError, msgspec.MsgspecError):
        return {}


def read_key(path: Path) -> bytes | None:
    """The key; None where there is none. Raises what `read_file` raises."""
    key = read_file(path)
    return key if key is not None and len(key) == SIZE else None


def key_made(path: Path, found: bytes | None) -> Iterator[tuple[Path, bytes]]:
    """Makes a key unless there is one: a change for `change_file`, so of several daemons one makes it."""
    if found is None or len(found) != SIZE:
        yield path, secrets.token_bytes(SIZE)
