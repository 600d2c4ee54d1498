# Written by scripts/make-sync from ../files.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.files`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .callbacks import outgoing, outgoing_again
from .file_reading import Pieces
from .watching import Watching

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Literal

    from ..archives import ArchiveFormat, Unpacked
    from ..entries import Entry, Stat
    from ..files import Files as AsyncFiles
    from ..files import Written
    from ..searching import Found, Matches
    from ._line import Line


__all__ = ["Files"]


class Files:
    """See the module. Reached as `sandbox.files`.

    All methods raise `ApiError` where the server says no (a missing path is an `InvalidRequest`, since the wire has it
    so; what else the system says, such as that something may not be read, is a `StreamError`), and `ConnectionFailed`.
    """

    def __init__(self, actual: AsyncFiles, line: Line) -> None:
        self._actual = actual
        self._line = line

    def read(self, path: str) -> bytes:
        """All of a file, in memory."""
        return self._line.call(self._actual.read, path)

    def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """All of a file, as text.

        Raises:
          UnicodeDecodeError: it is in another encoding.
        """
        return self._line.call(self._actual.read_text, path, encoding)

    def open_read(self, path: str, start: int = 0, end: int | None = None) -> AbstractContextManager[Pieces]:
        """A file of any size: an iterator over its bytes, with `size` and `etag`.

            with files.open_read("video.mp4") as pieces:
                for piece in pieces: ...

        Args:
          start, end: a part, as in a slice, but for negative numbers.

        Raises:
          RangeNotSatisfiable: the file has nothing there.
          SandboxAgentError: it cannot be read in parts, as those of /proc.
          ConnectionFailed: also out of the iteration, where the file breaks off.
        """
        return self._line.enter(self._actual.open_read(path, start, end), Pieces)

    def write(
        self,
        path: str,
        data: bytes | str | Iterable[bytes],
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
        return self._line.call(
            self._actual.write,
            path,
            outgoing(data),
            mode=mode,
            append=append,
            if_match=if_match,
            if_none_match=if_none_match,
        )

    def stat(self, path: str) -> Stat:
        """What a path leads to; of a link that leads nowhere, the link."""
        return self._line.call(self._actual.stat, path)

    def exists(self, path: str) -> bool:
        """Whether there is something at a path; a link that leads nowhere is something."""
        return self._line.call(self._actual.exists, path)

    def list(self, path: str = "", *, limit: int | None = None, after: str | None = None) -> list[Entry]:
        """The entries of a folder, by name.

        Args:
          limit, after: a page of a large folder: so many, behind the last name of the page before.
        """
        return self._line.call(self._actual.list, path, limit=limit, after=after)

    def mkdir(self, path: str) -> None:
        """Make a folder, with all above it; one that is there is fine."""
        self._line.call(self._actual.mkdir, path)

    def move(self, source: str, destination: str, *, overwrite: bool = False) -> None:
        """Rename a file or folder, also to another file system. Not repeated after a break."""
        self._line.call(self._actual.move, source, destination, overwrite=overwrite)

    def chmod(self, path: str, mode: int) -> None:
        """Set permissions, such as 0o755."""
        self._line.call(self._actual.chmod, path, mode)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a link, or a folder, which has to be empty unless `recursive`. Not repeated after a break."""
        self._line.call(self._actual.delete, path, recursive=recursive)

    def upload(self, local: str | os.PathLike[str], path: str) -> tuple[str, ...]:
        """A file or folder of this machine into the sandbox, with its permissions; whole, or not at all.

        A folder is merged into one that is there: files of the same name are replaced, the rest stays.

        Returns:
          Names of what was left out of a folder: links that lead out of it, sockets, pipes and devices.

        Raises:
          OSError: of this machine.
          Conflict: something is a folder on one side and something else on the other.
        """
        return self._line.call(self._actual.upload, local, path)

    def download(self, path: str, local: str | os.PathLike[str]) -> tuple[str, ...]:
        """A file or folder of the sandbox to a place of this machine, with its permissions; whole, or not at all.

        A file takes the place of one that is there; for a folder there must be nothing, or an empty one. `local` names
        the thing itself, not the folder that it is to be in.

        Returns:
          Names of what was left out of a folder, since it would lead out of it.

        Raises:
          OSError: of this machine.
          ConnectionFailed: not all has come, and nothing is there.
        """
        return self._line.call(self._actual.download, path, local)

    def watch(self, path: str, *, recursive: bool = True) -> AbstractContextManager[Watching]:
        """What happens in a tree, or in a folder alone.

            with files.watch("/work") as changes:
                for change in changes: ...

        Raises:
          InvalidRequest: out of the iteration, where there is no such folder.
        """
        return self._line.enter(self._actual.watch(path, recursive=recursive), Watching)

    def unpack(self, data: bytes | Callable[[], Iterable[bytes]], path: str, format: ArchiveFormat = "tar") -> Unpacked:
        """Unpack an archive into a folder: all of it or nothing.

        Args:
          data: the archive, or what gives its pieces from the beginning, should it have to be sent again after a break.

        Raises:
          InvalidRequest: it is unsafe or too large, or the path makes no sense.
          StreamError: it is damaged.
          Conflict: something is a folder on one side and something else on the other.
        """
        return self._line.call(self._actual.unpack, outgoing_again(data), path, format)

    def open_archive(self, path: str, format: ArchiveFormat = "tar.gz") -> AbstractContextManager[Pieces]:
        """A folder as one archive: an iterator over its bytes, packed while it is sent.

        Raises:
          ConnectionFailed: also out of the iteration, where the archive breaks off.
        """
        return self._line.enter(self._actual.open_archive(path, format), Pieces)

    def find(
        self,
        path: str,
        *,
        globs: Sequence[str] = (),
        type: Literal["file", "directory"] | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Found:
        """Files and folders by their names. Hidden ones are found, too, and no link is followed.

        Args:
          globs: only these, such as `*.py` or `src/**/*.py`; `!` leaves out; the last one that fits decides.
          limit: 1,000 unless given, up to 10,000.
          timeout: whole seconds, 30 unless given, up to 600. What was found by then is the answer.
        """
        return self._line.call(self._actual.find, path, globs=globs, type=type, limit=limit, timeout=timeout)

    def grep(
        self,
        path: str,
        pattern: str,
        *,
        fixed: bool = False,
        ignore_case: bool = False,
        globs: Sequence[str] = (),
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Matches:
        """Lines of a file, or of all files in a folder but for binary ones.

        Args:
          pattern: a regular expression, of one line; plain text if `fixed`.
          globs, limit, timeout: as of `find`.
        """
        return self._line.call(
            self._actual.grep,
            path,
            pattern,
            fixed=fixed,
            ignore_case=ignore_case,
            globs=globs,
            limit=limit,
            timeout=timeout,
        )
