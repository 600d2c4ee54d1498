"""A document of the ACP registry: which agents it has, and how each is had.

Members that we do not know are passed over. What we use is looked at closely, since it ends in the command line of npm,
in a shell script or in a path: one bad entry is left out and told, and a document of another shape is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import Raw

from .entry import AGENT_ID, BadCatalog, Binary, Distribution, Npx, Uvx
from .pins import VERSION, npm_pin, pypi_pin
from .platforms import registry_platform

__all__ = ["MAX_DOCUMENT", "Entry", "Registry", "Skipped", "parse_registry"]

MAX_DOCUMENT = 16 << 20
"""Bytes. The public document has less than a hundredth of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent of a registry; `distribution` has only what can be used on this machine."""

    id: str
    name: str
    version: str | None
    description: str
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that cannot be used, by its id or its place in the document, and why."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Registry:
    """What is usable of a document, and what is not."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


class _Document(msgspec.Struct):
    agents: list[Raw]


class _Package(msgspec.Struct):
    package: str
    args: list[str] = []
    env: dict[str, str] = {}


class _Archive(msgspec.Struct):
    archive: str
    cmd: str
    args: list[str] = []
    env: dict[str, str] = {}
    sha256: str | None = None


class _Distribution(msgspec.Struct):
    npx: _Package | None = None
    uvx: _Package | None = None
    binary: dict[str, _Archive] = {}


class _Entry(msgspec.Struct):
    id: str
    distribution: _Distribution
    name: str = ""
    version: str | None = None
    description: str = ""


class _Named(msgspec.Struct):
    id: str


class _Unusable(Exception):
    """The entry cannot be used. The message is the reason."""


def parse_registry(document: bytes, told: str) -> Registry:
    """Read a registry document.

    Args:
      told: what the document is called in messages.

    Raises:
      BadCatalog: it is no registry document.
    """
    try:
        agents = msgspec.json.decode(document, type=_Document).agents
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadCatalog(f"{told} is not valid: {error}") from None
    entries: dict[str, Entry] = {}
    skipped: list[Skipped] = []
    for place, raw in enumerate(agents):
        try:
            entry = _read_entry(raw)
            if entry.id in entries:
                raise _Unusable("there is another entry of this id before it")
            entries[entry.id] = entry
        except _Unusable as reason:
            skipped.append(Skipped(_id_of(raw) or f"entry {place}", str(reason)))
    return Registry(tuple(entries.values()), tuple(skipped))


def _read_entry(raw: Raw) -> Entry:
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
        if not AGENT_ID.fullmatch(entry.id):
            raise _Unusable("its id must have lower case letters, digits, '.', '_' and '-' only")
        distribution = _distribution(entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _Unusable(str(error)) from None
    return Entry(entry.id, entry.name or entry.id, entry.version, entry.description, distribution)


def _distribution(entry: _Entry) -> Distribution:
    given, platform = entry.distribution, registry_platform()
    npx = uvx = None
    binary: dict[str, Binary] = {}
    # Whoever edits a registry must not be able to make npm or uv take a URL or a folder for a package.
    if given.npx is not None:
        if (pin := npm_pin(given.npx.package)) is None:
            raise _Unusable(f"npx has {given.npx.package!r}, which is no npm package")
        package = f"{pin.name}@{version}" if (version := pin.version or _version(entry)) else pin.name
        npx = Npx(package, given.npx.args, given.npx.env)
    if given.uvx is not None:
        if (pin := pypi_pin(given.uvx.package)) is None:
            raise _Unusable(f"uvx has {given.uvx.package!r}, which is no PyPI package")
        package = f"{pin.name}=={version}" if (version := pin.version or _version(entry)) else pin.name
        uvx = Uvx(package, given.uvx.args, given.uvx.env)
    if (build := given.binary.get(platform)) is not None:
        binary[platform] = Binary(build.archive, build.cmd, build.args, build.env, build.sha256)
    if npx is None and uvx is None and not binary:
        there = f"only for {', '.join(sorted(given.binary))}" if given.binary else "nor an npm or PyPI package"
        raise _Unusable(f"it has no build for {platform}, {there}")
    return Distribution(npx, uvx, binary)


def _version(entry: _Entry) -> str | None:
    return entry.version if entry.version is not None and VERSION.fullmatch(entry.version) else None


def _id_of(raw: Raw) -> str | None:
    """The id of an entry whose other members may be anything."""
    try:
        return msgspec.json.decode(raw, type=_Named).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
