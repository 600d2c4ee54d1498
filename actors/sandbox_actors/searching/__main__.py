"""The program that searches: `python -m sandbox_actors.searching`, in the folder that is to be searched.

It is a process of its own so that it can be ended at any moment: there are expressions that take longer than the
universe has. What is asked for comes as one JSON object by standard input, what is found goes as lines of JSON to
standard output. No link is followed, and what cannot be read is passed over and counted.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, TypedDict, cast

from ..walking import walk
from .excerpt import excerpt
from .globs import Globs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..walking import Found


class Asked(TypedDict):
    """What is asked for; `pattern` None is for the names of files instead of their lines."""

    name: str | None
    pattern: str | None
    ignore_case: bool
    globs: list[str]
    type: str | None


LONGEST_LINE = 1 << 20
"""Bytes of a line that are looked at."""

BINARY_WITHIN = 8 << 10
"""A NUL so close to the beginning makes a file one of no lines."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Searcher:
    """One search.

    Attributes:
      passed_over: how much could not be read.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._globs = Globs(asked["globs"])
        self.passed_over = 0

    def names(self) -> Iterator[dict[str, object]]:
        """The files and folders whose names are wanted."""
        for found in self._walk():
            kind = "directory" if found.is_folder else "file"
            if self._asked["type"] in (None, kind) and self._globs.wants(found.path, folder=found.is_folder):
                target = None
                if stat.S_ISLNK(found.status.st_mode):
                    try:
                        target = _shown(os.readlink(found.name, dir_fd=found.folder))
                    except OSError:  # gone, or no link any more
                        continue
                status = found.status
                yield {
                    "type": "name",
                    "path": _shown(found.path),
                    "mode": status.st_mode,
                    "size": status.st_size,
                    "mtime_ns": status.st_mtime_ns,
                    "target": target,
                }

    def lines(self, pattern: re.Pattern[str]) -> Iterator[dict[str, object]]:
        """The lines that have what is wanted."""
        name = self._asked["name"]
        if name is not None:
            folder = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            yield from self._lines_of(name, name, folder, pattern)
            return
        for found in self._walk():
            if stat.S_ISREG(found.status.st_mode) and self._globs.wants(found.path):
                yield from self._lines_of(found.path, found.name, found.folder, pattern)

    def _walk(self) -> Iterator[Found]:
        top = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return walk(top, enter=lambda found: self._globs.enters(found.path), refused=self._refused)

    def _refused(self, _path: str, _error: OSError) -> None:
        self.passed_over += 1

    def _lines_of(self, path: str, name: str, folder: int, pattern: re.Pattern[str]) -> Iterator[dict[str, object]]:
        try:
            with open(os.open(name, _OPEN, dir_fd=folder), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or b"\0" in file.peek(BINARY_WITHIN):
                    return
                number = 0
                while raw := file.readline(LONGEST_LINE):
                    number += 1
                    line = raw.decode(errors="replace").removesuffix("\n").removesuffix("\r")
                    spans = [match.span() for match in pattern.finditer(line)]
                    if spans:
                        text, inside, cut = excerpt(line, spans)
                        yield {
                            "type": "line",
                            "path": _shown(path),
                            "line": number,
                            "column": spans[0][0] + 1,
                            "text": text,
                            "spans": inside,
                            "cut": cut,
                        }
                    while len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
                        raw = file.readline(LONGEST_LINE)
        except FileNotFoundError:
            return
        except OSError:
            self.passed_over += 1


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")


def main() -> None:
    asked = cast("Asked", json.load(sys.stdin))
    searcher = Searcher(asked)
    if asked["pattern"] is None:
        found = searcher.names()
    else:
        found = searcher.lines(re.compile(asked["pattern"], re.IGNORECASE if asked["ignore_case"] else 0))
    for one in found:
        print(json.dumps(one), flush=True)
    print(json.dumps({"type": "end", "passed_over": searcher.passed_over}), flush=True)


main()
