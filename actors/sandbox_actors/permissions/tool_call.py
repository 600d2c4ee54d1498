"""What an agent says of a tool call that it wants to be permitted, read for the rules of a policy.

Agents say it each in their own way: `kind`, `title` and `locations` are ACP's, but what stands in `rawInput` is the
input of the agent's own tool. So a command line is looked for where agents are known to have it, and places under every
key that is named like one; the more places are found, the stricter a rule that allows. For such a rule also counts what
looks like a place wherever it stands, but for texts.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import msgspec

from .command_line import SHELLS
from .places import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..envelope import Json
    from .places import Place

__all__ = ["ToolCall"]

PLACE_KEY = re.compile(
    r"(?is)(?:.*(?:path|file|file_?name|dir|directory|directories|folder|root|uri)"
    r"|(?:.*_|(?-i:.*[a-z](?=[A-Z])))?(?:source|destination|target|dest|to|from|output|out)"
    r")s?[_-]?\d*"
)
LIKE_A_PLACE = re.compile(r"(?i)[/~]|\.\.(?:/|\Z)|file:")
SURROUNDING_KEYS = ("cwd", "workdir", "workingdirectory", "working_directory", "workingDirectory")
COMMAND_KEYS = ("command", "cmd")
COMMAND_CHANGERS = ("env", "environment", "stdin")
"""What a command does depends on them, and no pattern sees them."""

EMPTY: tuple[Json, ...] = (None, "", [], {})

TEXT_KEYS = frozenset(
    {
        *("content", "contents", "text", "filetext", "inserttext", "newsource", "description", "explanation"),
        *(f"{which}{what}" for which in ("old", "new") for what in ("string", "str", "text")),
    }
)
"""Members that are texts, which may begin as a place does; without `_`, in small letters."""

SHELL_PLACES = frozenset(f"{folder}{shell}" for folder in ("", "/bin/", "/usr/bin/") for shell in SHELLS)
"""A shell as nobody but the system has put it there; a program elsewhere may have the name of one."""

DEPTH_LIMIT = 8
"""Levels of a tool's input that are looked through."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """See the module.

    Attributes:
      kind: `other` where the agent does not say.
      name: the tool's own name, where the agent tells it beside the title.
      command_line: None where there is none.
      written: places as the agent has written them: `locations` and `content` first, then those of the input.
      inputs: how many of `written`, at the end, come from the input.
      hinted: what else in the input looks like a place.
      within: the directories that the input says it is for.
      sure: whether the command line is all that is told of what is run.
      known: whether this is all that was told of it. What is not known is not sure.
      input: the tool's input.
    """

    kind: str = "other"
    title: str | None = None
    name: str | None = None
    command_line: str | None = None
    written: tuple[str, ...] = ()
    inputs: int = 0
    hinted: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    sure: bool = True
    known: bool = True
    input: Json = field(default=None, compare=False)

    @classmethod
    def of(cls, told: dict[str, Json], *, known: bool = True) -> ToolCall:
        """A `toolCall` in ACP's shape. What is not as it should be is as good as not told."""
        kind, title, given = _text(told.get("kind")) or "other", _text(told.get("title")), told.get("rawInput")
        line, sure = _command_line(_object(given))
        if not isinstance(given, dict) and kind == "execute" and title is not None:
            line, sure = _without_ticks(title), False
        placed = [*_locations(told.get("locations")), *_diffs(told.get("content"))]
        within = {key: folder for key in SURROUNDING_KEYS if (folder := _text(_object(given).get(key))) is not None}
        besides = {key: value for key, value in _object(given).items() if key not in within}
        rest: Json = besides if isinstance(given, dict) else given
        inputs = list(_written(rest, DEPTH_LIMIT))
        return cls(
            kind=kind,
            title=title,
            name=_name(told),
            command_line=line,
            written=(*placed, *inputs),
            inputs=len(inputs),
            hinted=tuple(_hinted(rest, DEPTH_LIMIT, besides=COMMAND_KEYS)),
            within=tuple(within.values()),
            sure=sure and known,
            known=known,
            input=given,
        )

    @property
    def runs_something(self) -> bool:
        return self.command_line is not None or self.kind == "execute"

    def places(self, cwd: str) -> list[Place]:
        """The places it touches, seen from the session's directory; those of its input from the input's own."""
        first = len(self.written) - self.inputs
        return [
            *(place_of(written, cwd) for written in self.written[:first]),
            *(place_of(written, self._own(cwd)) for written in self.written[first:]),
        ]

    def hints(self, cwd: str) -> list[Place]:
        """The places that it may touch, by what else stands in its input."""
        return [place_of(hint, self._own(cwd)) for hint in self.hinted]

    def surroundings(self, cwd: str) -> list[Place]:
        """What stands for anything in the directories that it works in."""
        return [place_of(f"{folder}/anything", cwd) for folder in self.within]

    def _own(self, cwd: str) -> str:
        return posixpath.join(cwd, *(self.within[:1]))


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _object(value: Json) -> dict[str, Json]:
    return cast("dict[str, Json]", value) if isinstance(value, dict) else {}


def _list(value: Json) -> Sequence[Json]:
    return cast("Sequence[Json]", value) if isinstance(value, list) else []


def _words(value: Json) -> list[str]:
    """A list of nothing but strings; empty where it is anything else."""
    words = _list(value)
    return [str(word) for word in words] if all(isinstance(word, str) for word in words) else []


def _name(told: dict[str, Json]) -> str | None:
    for extension in _object(told.get("_meta")).values():
        if (name := _text(_object(extension).get("toolName"))) is not None:
            return name
    return None


def _command_line(given: dict[str, Json]) -> tuple[str | None, bool]:
    """The command line of an input, and whether that is all that is told of what is run."""
    commands = [command for key in COMMAND_KEYS if (command := given.get(key)) not in EMPTY]
    arguments = given.get("args")
    sure = len(commands) < 2 and (arguments in EMPTY or bool(_words(arguments)))
    sure = sure and not any(given.get(key) for key in COMMAND_CHANGERS)
    sure = sure and all(isinstance(command, str) or bool(_words(command)) for command in commands)
    return "\n".join(_line(command, arguments) for command in commands) or None, sure


def _line(command: Json, arguments: Json) -> str:
    words = _words(command)
    # What a shell is given to run is the command line that was meant.
    if len(words) == 3 and words[0] in SHELL_PLACES and words[1] in ("-c", "-lc") and arguments in EMPTY:
        return words[2]
    return " ".join(joined for part in (command, arguments) if (joined := _joined(part)))


def _joined(part: Json) -> str:
    """Words as a shell would have to be given them; of anything else, what there is to be read."""
    if part in EMPTY:
        return ""
    if isinstance(part, str):
        return part
    words = _words(part)
    return shlex.join(words) if words else msgspec.json.encode(part).decode()


def _without_ticks(title: str) -> str:
    """Some agents show a command as Markdown does."""
    return title[1:-1] if len(title) > 2 and title[0] == title[-1] == "`" else title


def _locations(locations: Json) -> Iterator[str]:
    for location in _list(locations):
        if (path := _object(location).get("path")) is not None:
            yield _text(path) or ""


def _diffs(content: Json) -> Iterator[str]:
    for item in _list(content):
        if _object(item).get("type") == "diff":
            yield _text(_object(item).get("path")) or ""


def _written(value: Json, depth: int, within: bool = False) -> Iterator[str]:
    """What stands at any depth under keys that are named like a place; `within`: so it is here."""
    if isinstance(value, str) and within:
        yield value
    if not isinstance(value, (dict, list)):
        return
    if depth == 0:
        yield ""  # nobody knows what is further below, and that fits no pattern
        return
    for item in _list(value):
        yield from _written(item, depth - 1, within)
    members = _object(value)
    # Where a place is named beside it, a text is what is to be there.
    named = any(PLACE_KEY.fullmatch(key) is not None and not _is_text(key) for key in members)
    for key, member in members.items():
        if within and "/" in key:
            yield key
        if key == "changes":
            yield from _object(member)  # patches by path
        is_place = within or PLACE_KEY.fullmatch(key) is not None
        is_text = _is_text(key) and (named or not within)
        yield from _written(member, depth - 1, is_place and not is_text)


def _hinted(value: Json, depth: int, *, is_text: bool = False, besides: Sequence[str] = ()) -> Iterator[str]:
    """What looks like a place, but for texts; what is too deep, `_written` has told of."""
    if isinstance(value, str):
        if not is_text and LIKE_A_PLACE.match(value) is not None:
            yield value
    elif depth > 0:
        for item in _list(value):
            yield from _hinted(item, depth - 1, is_text=is_text)
        for key, member in _object(value).items():
            if key not in besides:
                yield from (key,) if LIKE_A_PLACE.match(key) is not None else ()
                yield from _hinted(member, depth - 1, is_text=_is_text(key))


def _is_text(key: str) -> bool:
    return key.replace("_", "").lower() in TEXT_KEYS
