"""Tars of folders of this machine: packed while they are sent, unpacked while they come in, in constant memory.

Whatever leads out of the folder is left out on both ways, and told by name: links that are absolute or go up too far,
and what is neither file, folder nor link. One such link, as in every virtual environment, is no reason to have nothing.

What comes in may be made by an agent that wants out of its sandbox. Nothing is made below a link, and no link leads
out: so there is no way out, whatever the names are. `tarfile` by itself has been wrong about very long ones.
"""

from __future__ import annotations

import io
import os
import tarfile
from typing import IO, TYPE_CHECKING, cast

import anyio
from anyio import from_thread, to_thread

from .scope import open_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from pathlib import Path

    from anyio.streams.memory import MemoryObjectReceiveStream

__all__ = ["Packing", "unpack"]

PIECE = 256 << 10
"""Bytes that are packed or unpacked at once: with each of them a thread is entered."""


class Packing:
    """An async iterator over the tar of a folder.

    Attributes:
      left_out: names of what is not in it, once all was read.
    """

    def __init__(self, folder: Path) -> None:
        self.left_out: list[str] = []
        self._pieces = _pieces(folder, self.left_out)

    def __aiter__(self) -> Packing:
        return self

    async def __anext__(self) -> bytes:
        if piece := await to_thread.run_sync(self._next):
            return piece
        raise StopAsyncIteration

    def close(self) -> None:
        """Close the file that is packed at present. Not while a piece is asked for."""
        self._pieces.close()

    def _next(self) -> bytes:
        """Some small pieces together, or a large one."""
        gathered = bytearray()
        for piece in self._pieces:
            gathered += piece
            if len(gathered) >= PIECE:
                break
        return bytes(gathered)


async def unpack(pieces: AsyncIterator[bytes], folder: Path) -> tuple[str, ...]:
    """Unpack a tar as it comes in; gives the names of what was left out.

    Raises:
      tarfile.TarError: it is none.
      OSError, and whatever the pieces raise.
    """
    send, receive = anyio.create_memory_object_stream[bytes](0)

    async def bring() -> None:
        try:
            async for piece in pieces:
                await send.send(piece)
            await send.send(b"")
        finally:
            send.close()

    # Under asyncio a thread that waits for us does not hear of a cancellation: it hears that no more is brought.
    async with send, receive, open_tasks() as tasks:
        tasks.start_soon(bring)
        try:
            return await to_thread.run_sync(_unpack, _Brought(receive), folder)
        except anyio.EndOfStream:
            await anyio.sleep_forever()  # the pieces have raised, or we are cancelled: that is what comes out
            raise


def _pieces(folder: Path, left_out: list[str]) -> Generator[bytes]:
    """The archive, in pieces of a header or some of a content."""
    # A `TarFile` copies a file whole. So it only describes, and the archive is put together here.
    with tarfile.TarFile(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as tar:
        waiting = [""]
        while waiting:
            above = waiting.pop()
            with os.scandir(folder / above) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                name = os.path.join(above, entry.name)
                if entry.is_symlink():
                    if _leads_out(name, os.readlink(entry.path)):
                        left_out.append(name)
                    else:
                        yield _header(tar.gettarinfo(entry.path, name))
                elif entry.is_dir():
                    yield _header(tar.gettarinfo(entry.path, name))
                    waiting.append(name)
                elif entry.is_file():
                    with open(entry.path, "rb") as file:
                        info = tar.gettarinfo(arcname=name, fileobj=file)
                        yield _header(info)
                        if info.isreg():
                            yield from _content(file, info.size)
                else:
                    left_out.append(name)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    # Who we are here says nothing there.
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(file: IO[bytes], size: int) -> Iterator[bytes]:
    """So many bytes, as the header says: what a file has lost meanwhile is zeros, what it has won is not told."""
    left = size
    while left > 0:
        piece = file.read(min(PIECE, left)) or bytes(min(PIECE, left))
        left -= len(piece)
        yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


def _leads_out(name: str, target: str) -> bool:
    """Whether the server would take it so: a link may go up first, not above the folder, and then down."""
    steps = [step for step in target.split("/") if step not in ("", ".")]
    up = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    return target.startswith("/") or up > name.count("/") or ".." in steps[up:]


def _stays_inside(member: tarfile.TarInfo, folder: Path) -> bool:
    """Whether it is a thing of the folder, by a name that goes down through folders alone."""
    steps = [step for step in member.name.split("/") if step not in ("", ".")]
    if ".." in steps or member.islnk():  # the server sends no hard links: one of a link would be that link elsewhere
        return False
    if member.issym() and _leads_out("/".join(steps), member.linkname):
        return False
    above = folder
    for step in steps[:-1]:
        above /= step
        if above.is_symlink():
            return False
    return True


class _Brought:
    """What `tarfile` reads from, in a thread. Raises `EndOfStream` where the pieces end without an empty one."""

    def __init__(self, receive: MemoryObjectReceiveStream[bytes]) -> None:
        self._receive = receive
        self._held = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        if not self._held and not self._ended:
            self._held = from_thread.run(self._receive.receive)
            self._ended = not self._held
        given, self._held = self._held[:size], self._held[size:]
        return given


def _unpack(brought: _Brought, folder: Path) -> tuple[str, ...]:
    left_out: list[str] = []

    def kept(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
        try:
            taken = tarfile.data_filter(member, place) if _stays_inside(member, folder) else None
        except tarfile.FilterError:
            taken = None
        if taken is None:
            left_out.append(member.name)
        return taken

    with tarfile.open(fileobj=cast("IO[bytes]", brought), mode="r|", bufsize=PIECE) as tar:
        tar.extractall(folder, filter=kept)
    while brought.read(PIECE):
        continue  # behind the end of the archive: what breaks off there has broken off, too
    return tuple(left_out)
