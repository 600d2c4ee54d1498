"""The configuration of directories: `D/.sandbox-agent/config/{mcp,skills}.json`, each a JSON object of named entries.

One per daemon. Files are read anew for each call: people edit them by hand, and other daemons change them.
"""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from ..errors import ConfigNotFound, InvalidRequest
from .errors import ConfigInaccessible, ConfigLocked, InvalidConfigFile, InvalidEntry
from .file import LARGEST, change_file, read_file
from .trust import Sealer, Vetted, key_made, read_key, read_seals, read_with_seals, seals_file

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from ..envelope import Json
    from .entries import Kind

__all__ = ["DirectoryConfig"]

E = TypeVar("E")
T = TypeVar("T")

THREADS = 8
"""How many files are worked on at once. A file system that hangs takes these threads and no others."""

LOCKED_FOR = 10.0
"""Seconds that a change waits for another process to finish its own: a change takes milliseconds."""

LOOK_EVERY = 0.005
"""Seconds between two looks whether the lock of another process is free: the kernel cannot tell Trio."""


class DirectoryConfig:
    """See the module.

    Args:
      environment: the daemon's, for HOME, and for the variables that entries name.
      key_file: of the key that seals entries, made when the first is stored. None: nothing is sealed, and no entry
        counts as stored by us.
      trusting: whether all entries count as stored by us.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, key_file: Path | None = None, *, trusting: bool = False
    ) -> None:
        self.environment: Mapping[str, str] = os.environ if environment is None else environment
        self._key_file = key_file
        self._trusting = trusting
        self._home = Path(self.environment.get("HOME") or "/")
        self._threads = trio.CapacityLimiter(THREADS)
        self._busy: dict[Path, trio.Lock] = {}

    async def entries(self, kind: Kind[E], directory: str) -> dict[str, E]:
        """All entries of a directory by name; none where nothing is stored.

        Raises:
          InvalidRequest: a relative directory leads upwards.
          InvalidConfigFile: the file is broken.
          ConfigInaccessible: it cannot be read.
        """
        path = self._path(kind, directory)
        return await self._in_thread(path, lambda: _entries(kind, path, read_file(path)))

    async def get(self, kind: Kind[E], directory: str, name: str) -> E:
        """One entry. Raises `ConfigNotFound`, and what `entries` raises."""
        try:
            return (await self.entries(kind, directory))[name]
        except KeyError:
            raise ConfigNotFound(kind.name, name) from None

    async def vetted(self, kind: Kind[E], directory: str) -> Vetted[E]:
        """All entries of a sealed kind, told apart by who stored them. Raises what `entries` raises."""
        if self._trusting:
            return Vetted(await self.entries(kind, directory), {})
        path = self._path(kind, directory)
        key = None if self._key_file is None else await self._read_key(self._key_file)

        def vet() -> Vetted[E]:
            text, seals = read_with_seals(path)
            found = _entries(kind, path, text)
            return Vetted({}, found) if key is None else Sealer.of(key, path).vet(found, seals)

        return await self._in_thread(path, vet)

    async def put(self, kind: Kind[E], directory: str, name: str, entry: E) -> None:
        """Store an entry, new or in the place of the one of its name. Once this returns, it is on disk.

        Raises:
          ConfigLocked: another process does not let us.
          And what `entries` raises.
        """
        await self._change(kind, directory, name, lambda entries: {**entries, name: entry})

    async def delete(self, kind: Kind[E], directory: str, name: str) -> None:
        """Remove an entry. One that is not there is fine, and nothing is made for it. Raises what `put` raises."""
        if name in await self.entries(kind, directory):
            await self._change(
                kind, directory, name, lambda entries: {kept: entries[kept] for kept in entries if kept != name}
            )

    async def _change(
        self, kind: Kind[E], directory: str, name: str, change: Callable[[dict[str, E]], dict[str, E]]
    ) -> None:
        path = self._path(kind, directory)
        key = await self._key() if kind.sealed else None

        def changed(text: bytes | None) -> Iterator[tuple[Path, bytes]]:
            before = _entries(kind, path, text)
            after = change(before)
            text = msgspec.json.format(msgspec.json.encode(dict(sorted(after.items()))), indent=2) + b"\n"
            file = path, _bounded(path, text)
            if key is None:
                yield file
                return
            beside = seals_file(path)
            found = read_seals(path)
            meanwhile, afterwards = Sealer.of(key, path).change(found, before, after, name)
            if meanwhile != found:
                yield beside, _bounded(beside, msgspec.json.encode(meanwhile))
            yield file
            if afterwards != meanwhile:
                yield beside, msgspec.json.encode(afterwards)

        await self._change_file(path, changed)

    async def _change_file(self, path: Path, change: Callable[[bytes | None], Iterable[tuple[Path, bytes]]]) -> None:
        async with self._alone(path):
            give_up_at = trio.current_time() + LOCKED_FOR
            while not await self._in_thread(path, lambda: change_file(path, change)):
                if trio.current_time() > give_up_at:
                    raise ConfigLocked(path)
                await trio.sleep(LOOK_EVERY)

    async def _key(self) -> bytes | None:
        """The key, made if there is none yet."""
        if self._key_file is None:
            return None
        while (key := await self._read_key(self._key_file)) is None:
            await self._change_file(self._key_file, partial(key_made, self._key_file))
        return key

    async def _read_key(self, path: Path) -> bytes | None:
        return await self._in_thread(path, lambda: read_key(path))

    def _path(self, kind: Kind[E], directory: str) -> Path:
        given = Path(directory)
        if not given.is_absolute() and ".." in given.parts:
            raise InvalidRequest(f"invalid relative path: {directory}")
        return self._home / given / ".sandbox-agent" / "config" / kind.file

    async def _in_thread(self, path: Path, work: Callable[[], T]) -> T:
        if "\0" in str(path):
            raise ConfigInaccessible(path, errno.EINVAL)
        try:
            # Whoever is cancelled goes at once, even if the disk hangs; what was begun ends by itself, under its lock.
            return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)
        except OSError as error:
            raise ConfigInaccessible(path, error.errno or errno.EIO) from None

    @asynccontextmanager
    async def _alone(self, path: Path) -> AsyncGenerator[None]:
        """One at a time changes a file. The lock on disk would do, but those who wait for it wake for nothing."""
        lock = self._busy.setdefault(path, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._busy.pop(path, None)


def _bounded(path: Path, text: bytes) -> bytes:
    if len(text) > LARGEST:
        raise InvalidRequest(f"{path} would be larger than {LARGEST} bytes")
    return text


def _entries(kind: Kind[E], path: Path, text: bytes | None) -> dict[str, E]:
    if text is None:
        return {}
    try:
        found = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return {name: _entry(kind, path, name, raw) for name, raw in found.items()}
    except RecursionError:
        raise InvalidConfigFile(path, "nested too deeply") from None
    except (UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise InvalidConfigFile(path, str(error)) from None


def _entry(kind: Kind[E], path: Path, name: str, raw: msgspec.Raw) -> E:
    data: Json = msgspec.json.decode(raw)
    try:
        return kind.parse(data)
    except InvalidEntry as error:
        raise InvalidConfigFile(path, f"entry {name!r}: {error}") from None
