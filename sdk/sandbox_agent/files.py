"""The files of the sandbox. Paths are absolute, or below the server's home directory."""

from __future__ import annotations

import errno
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, cast

import anyio
import msgspec
from anyio import to_thread

from .archives import Archives
from .entries import Entry, Stat
from .errors import InvalidRequest, SandboxAgentError, StreamError
from .file_reading import AS_IT_IS, Pieces, open_pieces
from .local_files import FilePieces, place_file
from .searching import Searches
from .watching import Watching

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable

__all__ = ["Files", "Written"]

FILE = "/v1/fs/file"

WRITE_WITHIN = 300.0
"""Seconds of silence: once all has come, it is flushed to the disk, which may be slow."""

MISSING = ("path not found", "(os error 20)")
"""What the server says of a missing path, and of one below a file: the public wire has no status of its own for it."""


class Written(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A file that was written.

    Attributes:
      path: absolute.
      bytes_written: of the body.
      etag: names the new content, for `if_match`.
    """

    path: str
    bytes_written: int
    etag: str = ""


class Files(Archives, Searches):
    """See the module. Reached as `sandbox.files`.

    All methods raise `ApiError` where the server says no (a missing path is an `InvalidRequest`, since the wire has it
    so; what else the system says, such as that something may not be read, is a `StreamError`), and `ConnectionFailed`.
    """

    async def read(self, path: str) -> bytes:
        """All of a file, in memory."""
        response = await self._transport.request("GET", FILE, params={"path": path}, headers=AS_IT_IS)
        return response.content

    async def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """All of a file, as text.

        Raises:
          UnicodeDecodeError: it is in another encoding.
        """
        return (await self.read(path)).decode(encoding)

    @asynccontextmanager
    async def open_read(self, path: str, start: int = 0, end: int | None = None) -> AsyncGenerator[Pieces]:
        """A file of any size: an async iterator over its bytes, with `size` and `etag`.

            async with files.open_read("video.mp4") as pieces:
                async for piece in pieces: ...

        Args:
          start, end: a part, as in a slice, but for negative numbers.

        Raises:
          RangeNotSatisfiable: the file has nothing there.
          SandboxAgentError: it cannot be read in parts, as those of /proc.
          ConnectionFailed: also out of the iteration, where the file breaks off.
        """
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"no part of a file: {start} to {end}")
        part = {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        async with open_pieces(self._transport, FILE, {"path": path}, part) as pieces:
            if part and not pieces.partial:
                raise SandboxAgentError(f"{path} cannot be read in parts")
            yield pieces

    async def write(
        self,
        path: str,
        data: bytes | str | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        append: bool = False,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Written:
        """Write a file: whole, or not at all.

        After a break it is written again where that comes to the same: with bytes or text, and neither to append nor on
        a condition. Else `ConnectionFailed` leaves open whether it was written.

        Args:
          data: text is written as UTF-8; pieces are sent as they come.
          mode: its permissions, such as 0o755; else those of the file that was there.
          append: add to what is there.
          if_match: only if the file's content is still the one with this etag.
          if_none_match: `*`: only if there is no such file.

        Raises:
          PreconditionFailed: the file is not as the condition says.
          InsufficientStorage: the disk is full; the old file is as it was.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if if_match is not None:
            headers["If-Match"] = if_match
        if if_none_match is not None:
            headers["If-None-Match"] = if_none_match
        repeatable = not append and len(headers) == 1
        if isinstance(data, (bytes, str)):
            body = data.encode() if isinstance(data, str) else data
            return await self._put(path, body, mode, append, headers, repeatable)
        pieces = aiter(data)
        if hasattr(pieces, "aclose"):
            # One that is not read to its end must not be left to the garbage collector.
            async with aclosing(cast("AsyncGenerator[bytes]", pieces)):
                return await self._put(path, lambda: pieces, mode, append, headers, False)
        return await self._put(path, lambda: pieces, mode, append, headers, False)

    async def _put(
        self,
        path: str,
        body: bytes | Callable[[], AsyncIterator[bytes]],
        mode: int | None,
        append: bool,
        headers: dict[str, str],
        repeatable: bool,
    ) -> Written:
        params = {"path": path, "mode": None if mode is None else f"{mode:04o}", "append": append or None}
        response = await self._transport.request(
            "PUT", FILE, params=params, content=body, headers=headers, silence=WRITE_WITHIN, retry=repeatable
        )
        written = self._transport.decode(response, Written)
        return msgspec.structs.replace(written, etag=response.headers.get("ETag", ""))

    async def stat(self, path: str) -> Stat:
        """What a path leads to; of a link that leads nowhere, the link."""
        return await self._transport.ask(Stat, "GET", "/v1/fs/stat", params={"path": path})

    async def exists(self, path: str) -> bool:
        """Whether there is something at a path; a link that leads nowhere is something."""
        try:
            await self.stat(path)
        except (InvalidRequest, StreamError) as error:
            if any(words in str(error) for words in MISSING):
                return False
            raise
        return True

    async def list(self, path: str = "", *, limit: int | None = None, after: str | None = None) -> list[Entry]:
        """The entries of a folder, by name.

        Args:
          limit, after: a page of a large folder: so many, behind the last name of the page before.
        """
        params = {"path": path, "limit": limit, "after": after}
        return await self._transport.ask(list[Entry], "GET", "/v1/fs/entries", params=params)

    async def mkdir(self, path: str) -> None:
        """Make a folder, with all above it; one that is there is fine."""
        await self._transport.request("POST", "/v1/fs/mkdir", params={"path": path}, retry=True)

    async def move(self, source: str, destination: str, *, overwrite: bool = False) -> None:
        """Rename a file or folder, also to another file system. Not repeated after a break."""
        told = {"from": source, "to": destination, "overwrite": overwrite}
        await self._transport.request("POST", "/v1/fs/move", json=told)

    async def chmod(self, path: str, mode: int) -> None:
        """Set permissions, such as 0o755."""
        params = {"path": path, "mode": f"{mode:04o}"}
        await self._transport.request("POST", "/v1/fs/chmod", params=params, retry=True)

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a link, or a folder, which has to be empty unless `recursive`. Not repeated after a break."""
        params = {"path": path, "recursive": recursive or None}
        await self._transport.request("DELETE", "/v1/fs/entry", params=params, retry=False)

    async def upload(self, local: str | os.PathLike[str], path: str) -> tuple[str, ...]:
        """A file or folder of this machine into the sandbox, with its permissions; whole, or not at all.

        A folder is merged into one that is there: files of the same name are replaced, the rest stays.

        Returns:
          Names of what was left out of a folder: links that lead out of it, sockets, pipes and devices.

        Raises:
          OSError: of this machine.
          Conflict: something is a folder on one side and something else on the other.
        """
        place = Path(local)
        status = await to_thread.run_sync(place.stat)
        if S_ISDIR(status.st_mode):
            return await self._upload_folder(place, path)
        if not S_ISREG(status.st_mode):  # to open a pipe waits for somebody who writes, and cannot be cancelled
            raise OSError(errno.EINVAL, "neither a file nor a folder", str(place))
        async with await anyio.open_file(place, "rb") as file:
            headers = {"Content-Type": "application/octet-stream"}
            await self._put(path, lambda: FilePieces(file), status.st_mode & 0o777, False, headers, True)
        return ()

    async def download(self, path: str, local: str | os.PathLike[str]) -> tuple[str, ...]:
        """A file or folder of the sandbox to a place of this machine, with its permissions; whole, or not at all.

        A file takes the place of one that is there; for a folder there must be nothing, or an empty one. `local` names
        the thing itself, not the folder that it is to be in.

        Returns:
          Names of what was left out of a folder, since it would lead out of it.

        Raises:
          OSError: of this machine.
          ConnectionFailed: not all has come, and nothing is there.
        """
        place, found = Path(local), await self.stat(path)
        if found.entry_type == "directory":
            return await self._download_folder(path, place)
        async with place_file(place, found.permissions & 0o777) as file, self.open_read(path) as pieces:
            async for piece in pieces:
                await file.write(piece)
        return ()

    def watch(self, path: str, *, recursive: bool = True) -> Watching:
        """What happens in a tree, or in a folder alone.

            async with files.watch("/work") as changes:
                async for change in changes: ...

        Raises:
          InvalidRequest: out of the iteration, where there is no such folder.
        """
        return Watching(self._transport, path, recursive=recursive)
