"""The files of a container that its server alone needs: they get in before it is started, and can be read later.

A container's environment and its command line are shown to whoever inspects it. So the token and the keys are files, of
root, and readable by the group of the server's user: agents can read them as well, and cannot change them.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from ...errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["DIRECTORY", "LARGEST", "archive", "content", "group_of"]

DIRECTORY = "/etc/sandbox-agent"
"""On the container's own file system: what lies in /run or /tmp may be gone after a restart."""

LARGEST = 64 << 10
"""Bytes of an archive that is read: the file in it is the sandbox's, and may be anything."""


def archive(files: Mapping[str, bytes], group: int) -> bytes:
    """A tar archive of our directory with these files, to be unpacked at the root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        folder = tarfile.TarInfo(DIRECTORY.lstrip("/"))
        folder.type, folder.mode, folder.gid = tarfile.DIRTYPE, 0o750, group
        tar.addfile(folder)
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{DIRECTORY.lstrip('/')}/{name}")
            entry.size, entry.mode, entry.gid = len(data), 0o440, group
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def content(chunks: Iterable[bytes], largest: int) -> bytes | None:
    """The first file of an archive; None: the archive is larger than that, or its first entry is no file."""
    packed = bytearray()
    for chunk in chunks:
        packed += chunk
        if len(packed) > largest:
            return None
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            entry = tar.next()
            file = None if entry is None or not entry.isfile() else tar.extractfile(entry)
            return None if file is None else file.read()
    except tarfile.TarError:
        return None


def group_of(user: str, read: Callable[[str], bytes | None]) -> int:
    """The number of the group that a container's user has.

    Args:
      user: as Docker takes it: `user`, `user:group`, each a name or a number; empty for root.
      read: gives what a file of the container holds; None where there is none.

    Raises:
      ProviderError: the image has no such user or group.
    """
    name, _, group = user.partition(":")
    if group:
        return int(group) if group.isdecimal() else _number(_entry("group", group, 0, read), "group", group)
    if not name:
        return 0
    if name.isdecimal():  # one who need not be known: then Docker takes root's group
        entry = _entry("passwd", name, 2, read)
        return 0 if entry is None else _number(entry, "user", name, at=3)
    return _number(_entry("passwd", name, 0, read), "user", name, at=3)


def _entry(file: str, key: str, at: int, read: Callable[[str], bytes | None]) -> list[str] | None:
    """The line of /etc/passwd or /etc/group that has the key in this place."""
    text = (read(f"/etc/{file}") or b"").decode(errors="replace")
    entries = (line.split(":") for line in text.splitlines())
    return next((entry for entry in entries if len(entry) > at and entry[at] == key), None)


def _number(entry: list[str] | None, what: str, name: str, at: int = 2) -> int:
    if entry is None or len(entry) <= at or not entry[at].isdecimal():
        raise ProviderError(f"the image has no {what} {name}")
    return int(entry[at])
