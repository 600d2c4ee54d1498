"""Searching a tree, by names or by lines, in a process that ends when nobody wants to know any more.

ripgrep searches lines where it is on PATH and clients may see the whole file system. Within a root it is not used: it
opens files by their paths, and a folder that is swapped for a link at the right moment would lead it out.
"""

from __future__ import annotations

import shutil
import stat
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from os import fstat
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import trio

from sandbox_supervisor import Cookie, SpawnFailed, StopLadder, open_process

from ..errors import Refusal
from ..files import Descriptor, NotADirectory, NotAFile
from ..files.root import Everything, parent
from ..framing import LineSplitter, TooLong
from .query import BadPattern
from .records import End, Line, Name, Record
from .ripgrep import command, read_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sandbox_supervisor import ChildProcess, Reaper

    from ..files import FileSystem, Root
    from .query import Query

__all__ = ["Engine", "Finds", "Search", "SearchFailed", "Searches", "TooManySearches"]

Engine: TypeAlias = Literal["ripgrep", "python"]

MOST_AT_ONCE = 16
"""Searches at the same time: each is a process that reads as fast as it can."""

READ_SIZE = 64 << 10

LONGEST_LINE = 4 << 20
"""Bytes of what is told of one line, ours or ripgrep's."""

AT_ONCE = StopLadder(stdin=0.0, term=0.0)
"""There is nothing to finish: a search that is over, or given up, is killed."""

_read = msgspec.json.Decoder(Record).decode


class TooManySearches(Refusal):
    name = "overloaded"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__(f"{MOST_AT_ONCE} searches are under way already")


class SearchFailed(Refusal):
    """The program that searches cannot be started, or has failed."""

    name = "stream_error"

    def __init__(self, why: str) -> None:
        super().__init__(f"the search failed: {why}")


@dataclass(frozen=True, slots=True)
class Search:
    """A search that can begin.

    Attributes:
      path: where, absolute.
      engine: who will search.
    """

    path: str
    engine: Engine
    folder: Descriptor
    file: str | None
    argv: list[str]
    stdin: bytes


class Searches:
    """See the module.

    Args:
      environment: where the PATH is.
      owner, run: of the cookie that every process carries.
    """

    def __init__(
        self, files: FileSystem, environment: Mapping[str, str], owner: str, run: str, reaper: Reaper | None = None
    ) -> None:
        self._files = files
        self._environment = environment
        self._owner = owner
        self._run = run
        self._reaper = reaper
        self._numbers = count(1)
        self._under_way = 0

    async def prepare(self, path: str, query: Query) -> Search:
        """Find out where and how to search.

        Args:
          path: a folder or, for lines, a file.

        Raises:
          InvalidRequest, NotADirectory, NotAFile, PathNotFound, OutsideRoot, FileTrouble: the path, or the query,
            makes no sense. `BadPattern` is one of them.
        """
        query.checked()

        def look(root: Root, located: str) -> tuple[Descriptor, str | None, str | None]:
            program = shutil.which("rg", path=self._environment.get("PATH", "")) if query.pattern else None
            return *_place(root, located, lines=query.pattern is not None), program if _is_all(root) else None

        folder, file, program = await self._files.run(path, look)
        located = self._files.located(path)
        if program is None:
            asked = {
                "name": file,
                "pattern": query.expression(),
                "ignore_case": query.ignore_case,
                "globs": query.globs,
                "type": query.type,
            }
            argv = [sys.executable, "-I", "-m", "sandbox_actors.searching"]
            return Search(located, "python", folder, file, argv, msgspec.json.encode(asked))
        await self._check_pattern(program, query)
        return Search(located, "ripgrep", folder, file, command(program, query, f"./{file or ''}"), b"")

    @asynccontextmanager
    async def searching(self, search: Search) -> AsyncGenerator[Finds]:
        """Search, for as long as the block runs.

        Raises:
          TooManySearches, SearchFailed.
        """
        async with self._process(search.argv, search.folder) as process:
            await _write(process, search.stdin)
            yield Finds(process, search.engine)

    async def _check_pattern(self, program: str, query: Query) -> None:
        """Have ripgrep read the pattern, before anything is answered. Raises `BadPattern`."""
        async with self._process(command(program, query, "/dev/null"), None) as process:
            await process.stdin.aclose()
            said = b"".join([chunk async for chunk in process.stderr])
            if (await process.wait()).code == 2:
                raise BadPattern(said.decode(errors="replace").strip())

    @asynccontextmanager
    async def _process(self, argv: list[str], folder: Descriptor | None) -> AsyncGenerator[ChildProcess]:
        if self._under_way >= MOST_AT_ONCE:
            raise TooManySearches
        self._under_way += 1
        try:
            async with open_process(
                argv,
                cookie=Cookie(self._owner, self._run, f"search-{next(self._numbers)}"),
                env={"PATH": self._environment.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                # Of the child's own: it is there until the child has gone where it leads.
                cwd=None if folder is None else folder.path,
                ladder=AT_ONCE,
                reaper=self._reaper,
            ) as process:
                yield process
        except SpawnFailed as error:
            raise SearchFailed(str(error)) from None
        finally:
            self._under_way -= 1


class Finds:
    """What a search finds, as it does.

    Attributes:
      passed_over: what could not be read, or told.
    """

    def __init__(self, process: ChildProcess, engine: Engine) -> None:
        self.passed_over = 0
        self._process = process
        self._engine = engine
        self._lines = LineSplitter(LONGEST_LINE)

    async def read(self) -> list[Name | Line] | None:
        """Some more; None at the end. May give none without being at the end.

        Raises:
          SearchFailed
        """
        chunk = await self._process.stdout.receive_some(READ_SIZE)
        if chunk:
            return self._found(self._lines.feed(chunk))
        status = await self._process.wait()
        # ripgrep says 1 where nothing was found, 2 where some files could not be read.
        if status.code not in ((0,) if self._engine == "python" else (0, 1, 2)):
            raise SearchFailed("the program that searches has failed")
        self.passed_over += status.code == 2
        return None

    def _found(self, lines: list[bytes | TooLong]) -> list[Name | Line]:
        found: list[Name | Line] = []
        for line in lines:
            one = None
            if isinstance(line, TooLong):
                self.passed_over += 1
            elif self._engine == "ripgrep":
                one = read_line(line)
            else:
                one = _read(line)
            if isinstance(one, End):
                self.passed_over += one.passed_over
            elif one is not None:
                found.append(one)
        return found


def _is_all(root: Root) -> bool:
    return isinstance(root, Everything)


def _place(root: Root, path: str, *, lines: bool) -> tuple[Descriptor, str | None]:
    """The folder to search, and the name in it where it is one file. Blocks."""
    place = root.resolve(path)
    mode = fstat(place.number).st_mode
    if stat.S_ISDIR(mode):
        return place, None
    if not lines:
        raise NotADirectory(path)
    folder, name = parent(root, path)
    with root.resolve(path, follow=False) as itself:
        if not stat.S_ISREG(fstat(itself.number).st_mode):
            raise NotAFile(path)
    return folder, name


async def _write(process: ChildProcess, text: bytes) -> None:
    try:
        await process.stdin.send_all(text)
        await process.stdin.aclose()
    except trio.BrokenResourceError:
        return  # it has failed, and says so by its status
