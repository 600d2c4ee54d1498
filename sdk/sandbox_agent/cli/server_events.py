"""Server-sent events, read one by one from a response (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ServerEvent", "server_events"]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `name` is `message` where the server gives none."""

    name: str
    data: bytes


def server_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """The events of a body, each as soon as it is complete. One that the end of the body cuts is none."""
    name, data = b"", list[bytes]()
    for line in _lines(chunks):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                yield ServerEvent(name.decode(errors="replace") or "message", b"\n".join(data))
            name, data = b"", []
        elif field == b"event":
            name = value
        elif field == b"data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # Only at LF: `str.splitlines`, and with it httpx, would also break at U+2028 in the middle of a JSON text.
    pieces: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        for other in others:
            yield b"".join(pieces).removesuffix(b"\r")
            pieces = [other]
