"""Downloads: streamed to a file, checked while they come, and from nowhere but where the definition points.

https, or http on loopback, where nobody can change what passes; file for mirrors within the machine. A redirect is held
to the same rule.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import httpx
import trio

from ..catalog.entry import BAD_PROXY, is_loopback
from .trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from ..errors import InstallTrouble

__all__ = ["DOWNLOAD_LIMIT", "download"]

DOWNLOAD_LIMIT = 2 << 30
"""Bytes of the largest archive; agents' own are below 300 MB."""

CHUNK = 1 << 20
REDIRECTS = 5
IDLE = 30.0
"""Seconds to wait for a connection, and for the next bytes."""

PAUSES = (1.0, 4.0)
"""Seconds before each further try, where the network or the host fails: as many as npm has."""


async def download(
    url: str,
    file: Path,
    *,
    sha256: str | None,
    told: Callable[[int, int | None], None],
    limit: int = DOWNLOAD_LIMIT,
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Write what is at a URL to a file.

    Args:
      sha256: what it must have, in hexadecimal.
      told: takes the bytes so far, and all of them where that is known.

    Raises:
      Trouble: it is not there, is another one, is too large, or the network fails. What was written is left.
      OSError: it cannot be written.
    """
    tries = iter(pauses)
    while True:
        try:
            found = await _once(url, file, told, limit)
            break
        except Trouble as trouble:
            if trouble.reason != "network" or (pause := next(tries, None)) is None:
                raise
        await trio.sleep(pause)
    if sha256 is not None and found != sha256.lower():
        raise Trouble(
            "checksum",
            f"what {_shown(url)} serves is not what it should be: its SHA-256 is {found[:12]}…, and the definition"
            f" says {sha256.lower()[:12]}…; nothing was unpacked",
        )


async def _once(url: str, file: Path, told: Callable[[int, int | None], None], limit: int) -> str:
    """Try it; gives the SHA-256 of what has come."""
    with file.open("wb") as out:
        sink = _Sink(out, told, limit)
        if urlsplit(url).scheme == "file":
            await _copy(url, sink)
        else:
            await _fetch(url, sink)
    return sink.digest.hexdigest()


class _Digest(Protocol):
    """A hash under way; the standard library's own name for it is private."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True, eq=False)
class _Sink:
    """The file, and what is known of it so far."""

    out: BinaryIO
    told: Callable[[int, int | None], None]
    limit: int
    total: int | None = None
    done: int = 0
    digest: _Digest = field(default_factory=hashlib.sha256)

    def expect(self, total: int | None) -> None:
        self.total = total
        self._check(total or 0)
        self.told(0, total)

    async def take(self, chunk: bytes) -> None:
        self._check(self.done + len(chunk))
        await trio.to_thread.run_sync(self._write, chunk)
        self.done += len(chunk)
        self.told(self.done, self.total)

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise Trouble("failed", f"the archive is larger than {self.limit >> 20} MB: no agent is")

    def _write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.out.write(chunk)


async def _copy(url: str, sink: _Sink) -> None:
    path = trio.Path(unquote(urlsplit(url).path))
    if not await path.is_file():  # a pipe would be waited for, and nothing could stop that
        raise Trouble("not_found", f"there is no file {path}")
    async with await path.open("rb") as file:
        sink.expect((await path.stat()).st_size)
        while chunk := await file.read(CHUNK):
            await sink.take(chunk)


async def _fetch(url: str, sink: _Sink) -> None:
    for _ in range(REDIRECTS + 1):
        _check_origin(url)
        try:
            async with (
                _client(url) as client,
                # Compressed once more on its way it would be another file.
                client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
            ):
                if answer.next_request is None:
                    await _receive(url, answer, sink)
                    return
                url = str(answer.next_request.url)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            message = f"{_shown(url)} cannot be downloaded ({said}); check the network, and try again"
            raise Trouble("network", message) from None
    raise Trouble("failed", f"{_shown(url)} redirects too often")


def _client(url: str) -> httpx.AsyncClient:
    try:
        # A proxy of the environment is for other machines, and would stand between us and this one.
        return httpx.AsyncClient(timeout=IDLE, trust_env=not is_loopback(urlsplit(url).hostname))
    except (ImportError, ValueError):
        raise Trouble("failed", BAD_PROXY) from None


async def _receive(url: str, answer: httpx.Response, sink: _Sink) -> None:
    if not answer.is_success:
        raise Trouble(_reason(answer.status_code), f"{_shown(url)} answered with status {answer.status_code}")
    length = answer.headers.get("Content-Length", "")
    sink.expect(int(length) if length.isdecimal() else None)
    trouble: Trouble | OSError | None = None
    # httpx reads through generators of generators, and only what is raised innermost closes them all: a cancellation.
    with trio.CancelScope() as reading:
        async for chunk in answer.aiter_raw(CHUNK):
            try:
                if trouble is None:
                    await sink.take(chunk)
            except (Trouble, OSError) as error:
                trouble = error
                reading.cancel()
    if trouble is not None:
        raise trouble


def _reason(status: int) -> InstallTrouble:
    if status in (403, 404, 410):
        return "not_found"
    return "network" if status >= 500 or status in (408, 429) else "failed"  # some of these pass


def _check_origin(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise Trouble("failed", f"{_shown(url)} is not taken: an archive's URL must be https, or http on this machine")


def _shown(url: str) -> str:
    """The URL without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
