"""Reading a tar, front to back, one entry in memory at a time.

The standard library's reader keeps every entry it has seen, takes a broken header in the middle for the end, and lets
a map of a sparse file be of any size. An archive that somebody else has sent is read more strictly: what is not
understood in full is refused. Formats: ustar and pax (IEEE Std 1003.1, pax), and GNU's long names.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import adler32

import msgspec

from .counting import COPY_SIZE, HEADER_LIMIT
from .entry import Entry, EntryKind
from .errors import DamagedArchive, UnsafeArchive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .counting import Readable

__all__ = ["read_tar"]

BLOCK = 512
END = bytes(BLOCK)

SMALL = 64 << 10
"""Bytes of a file that is read at once, as most are."""

EXTENDED = {b"x", b"X", b"g", b"L", b"K"}  # more about what follows
FILES = {b"0", b"\0", b"7"}  # 7 is a "contiguous file", of systems long gone
KINDS = {b"1": EntryKind.HARD_LINK, b"2": EntryKind.SYMLINK, b"5": EntryKind.DIRECTORY}
REFUSED = {b"3": "a device", b"4": "a device", b"6": "a named pipe", b"S": "a sparse file"}

NOTHING: dict[str, str] = {}

LATEST = 1 << 40
"""Seconds: a time far beyond what file systems store. What is beyond that is no time."""


class _Content:
    """The bytes of one file that is not small."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self._padding = -size % BLOCK
        self.left = size

    def read(self, size: int, /) -> bytes:
        chunk = self._stream.read(min(size, self.left))
        self.left -= len(chunk)
        if self.left and not chunk:
            raise DamagedArchive("it ends in the middle of a file")
        return chunk

    def skip(self) -> None:
        while self.left:
            self.read(COPY_SIZE)
        if len(self._stream.read(self._padding)) < self._padding:
            raise DamagedArchive("it ends in the middle of a file")


def read_tar(stream: Readable) -> Iterator[Entry]:
    """The entries of a tar. `stream.read(size)` must give less than `size` bytes at the end only.

    Raises:
      DamagedArchive: it is cut off, or no tar.
      UnsafeArchive: it has an entry of a kind that is not taken.
    """
    shared: dict[str, str] = {}  # what a global header says of all that follows
    own: dict[str, str] = {}  # what the headers before an entry say of it alone
    while block := stream.read(BLOCK):
        if block == END:
            break
        header = _checked(block)
        kind = header.kind
        size = _number(header.size, "size")
        if kind in EXTENDED:
            text = _extended(stream, size)
            match kind:
                case b"L":
                    own["path"] = _text(text)
                case b"K":
                    own["linkpath"] = _text(text)
                case b"g":
                    shared |= _records(text)
                case _:
                    own |= _records(text)
            continue
        said, own = ({**shared, **own}, {}) if shared or own else (NOTHING, own)
        name = said.get("path") or header.path
        if kind == b"0" or (kind in FILES and not name.endswith("/")):
            if said:
                size = _said_size(said, size)
            if size <= SMALL:
                yield _entry(header, name, EntryKind.FILE, said, None, _whole(stream, size))
            else:
                content = _Content(stream, size)
                yield _entry(header, name, EntryKind.FILE, said, content)
                content.skip()
        elif kind in FILES or kind in KINDS:
            yield _entry(header, name, KINDS.get(kind, EntryKind.DIRECTORY), said)
        elif kind != b"V":  # the name of the whole tar
            what = REFUSED.get(kind, f"of the unknown kind {kind.decode('latin-1')!r}")
            raise UnsafeArchive(f"{name!r} is {what}")
    if own:
        raise DamagedArchive("it ends in the middle of a header")
    while stream.read(COPY_SIZE):  # padding; and a compressed one has its checksum at the end
        pass


class _Header(msgspec.Struct, gc=False):
    """The fields of a header that say something to us."""

    name: bytes
    mode: bytes
    size: bytes
    mtime: bytes
    checksum: bytes
    kind: bytes
    target: bytes
    magic: bytes
    prefix: bytes

    @property
    def path(self) -> str:
        name = _text(self.name)
        if self.prefix[0] and self.magic == b"ustar\0":
            return f"{_text(self.prefix)}/{name}"
        return name


_FIELDS = struct.Struct("100s 8s 16x 12s 12s 8s 1s 100s 6s 82x 155s 12x")

# The checksum is the sum of the header's bytes, with blanks in its own place. Nothing adds up bytes as quickly as the
# lower half of Adler's checksum, which is one more than their sum, modulo 65521.
_BLANKS = 8 * ord(" ")


def _checked(block: bytes) -> _Header:
    if len(block) < BLOCK:
        raise DamagedArchive("it ends in the middle of a header")
    header = _Header(*_FIELDS.unpack(block))
    checksum = header.checksum
    try:
        total = int(checksum[:6], 8)  # as nearly everybody writes it
    except ValueError:
        total = _number(checksum, "checksum")
    if (total + (adler32(checksum) & 0xFFFF) - _BLANKS) % 65521 != adler32(block) & 0xFFFF:
        raise DamagedArchive("a header is broken, or it is no tar")
    return header


def _entry(
    header: _Header,
    name: str,
    kind: EntryKind,
    said: dict[str, str],
    content: Readable | None = None,
    whole: bytes | None = None,
) -> Entry:
    exact = said.get("mtime")
    mtime = _time(_number(header.mtime, "time")) if exact is None else _exact_time(exact)
    target = "" if kind is EntryKind.FILE else said.get("linkpath") or _text(header.target)
    return Entry(name, kind, _number(header.mode, "mode"), mtime, target, content, whole)


def _whole(stream: Readable, size: int) -> bytes:
    padded = size + -size % BLOCK
    content = stream.read(padded)
    if len(content) < padded:
        raise DamagedArchive("it ends in the middle of a file")
    return content[:size]


@lru_cache(1024)  # of a thousand files most have the mode of the others, and many the time
def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # GNU's: the number itself, where octal digits would not do
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        if field[0] == 0xFF and what == "time":
            return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1))
    try:
        number = int(field.partition(b"\0")[0] or b"0", 8)
    except ValueError:
        number = 0 if not field.strip(b" \0") else -1
    if number < 0:
        raise DamagedArchive(f"the {what} in a header is no number")
    return number


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _extended(stream: Readable, size: int) -> bytes:
    if size > HEADER_LIMIT:
        raise UnsafeArchive(f"it has a header of {size} bytes")
    text = stream.read(size)
    padding = -size % BLOCK
    if len(text) < size or len(stream.read(padding)) < padding:
        raise DamagedArchive("it ends in the middle of a header")
    return text


def _records(text: bytes) -> dict[str, str]:
    """What a pax header says of path, size and time: lines of `length name=value`."""
    found: dict[str, str] = {}
    while text and text[0]:
        length, blank, _ = text.partition(b" ")
        end = int(length) if blank and length.isdigit() and len(length) < 9 else 0
        record = text[len(length) + 1 : end]
        name, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals or end > len(text) or not record.endswith(b"\n"):
            raise DamagedArchive("a header has a record that cannot be read")
        if name.startswith(b"GNU.sparse."):
            raise UnsafeArchive("it has a sparse file")
        if name in (b"path", b"linkpath", b"size", b"mtime"):
            found[name.decode()] = value.decode(errors="surrogateescape")
        text = text[end:]
    return found


def _said_size(said: dict[str, str], size: int) -> int:
    text = said.get("size")
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DamagedArchive("the size in a header is no number")
    return int(text)


def _exact_time(text: str) -> int:
    """Seconds with a fraction, as nanoseconds."""
    whole, _, fraction = text.partition(".")
    sign, digits = (-1, whole[1:]) if whole.startswith("-") else (1, whole)
    if not (digits + fraction).isascii() or not (digits + fraction).isdigit() or len(digits) > 20:
        raise DamagedArchive("the time in a header is no number")
    return _time(sign * int(digits or "0"), sign * int(fraction[:9].ljust(9, "0")))


def _time(seconds: int, nanoseconds: int = 0) -> int:
    if not -LATEST <= seconds <= LATEST:
        seconds = LATEST if seconds > 0 else -LATEST
    return seconds * 1_000_000_000 + nanoseconds
