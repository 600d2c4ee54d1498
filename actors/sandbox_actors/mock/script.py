"""The script: what a prompt asks for, as steps to take in order.

The last text block is the script: lines that begin with a command are steps, and the lines between them are echoed.
Text blocks before it, and a transcript behind it, are context and are never obeyed: a transcript that is handed to a
new session may quote ``/crash``, and must not crash it again. Everything else in a prompt is acknowledged by a note.
"""

from __future__ import annotations

import math
import re

from .params import invalid, members, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from .wire import Json, Object

    # A command's name, or "" for text to echo, and its argument.
    Step: TypeAlias = "tuple[str, str]"

TRANSCRIPT_END = "[end of the transcript]"
"""How a text ends that the daemon adds to a prompt for an agent that has lost the conversation."""

_COMMAND = re.compile(r"/([a-z][a-z-]*\??)(?:[ \t]+(.*))?", re.DOTALL)


class Misuse(Exception):
    """The argument of a command cannot be understood."""


class Words:
    """The argument of a command, taken apart word by word."""

    def __init__(self, argument: str) -> None:
        self._rest = argument.strip()

    def word(self, default: str | None = None) -> str:
        if not self._rest:
            if default is None:
                raise Misuse("something is missing")
            return default
        word, *rest = self._rest.split(maxsplit=1)
        self._rest = rest[0] if rest else ""
        return word

    def whole(self, default: int | None = None) -> int:
        """A whole number, not negative."""
        word = self.word(None if default is None else str(default))
        if not (word.isascii() and word.isdigit() and len(word) <= 18):
            raise Misuse(f"{word!r} is no whole number")
        return int(word)

    def number(self, default: float) -> float:
        """A number, not negative."""
        word = self.word(str(default))
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise Misuse(f"{word!r} is no number")
        return number

    def last_whole(self, default: int) -> int:
        """The last of several words, if it is a number; what comes before it stays."""
        before, _, last = self._rest.rpartition(" ")
        if before and last.isascii() and last.isdigit():
            self._rest = before
            return int(last)
        return default

    def rest(self, default: str | None = None) -> str:
        """All that is left, as one text."""
        rest, self._rest = self._rest, ""
        if not rest and default is None:
            raise Misuse("something is missing")
        return rest or str(default)


class Prompt:
    """The blocks of a `session/prompt`: a script, the context before it, and notes on what is no text."""

    def __init__(self, blocks: list[Json]) -> None:
        texts: list[str] = []
        self.notes: list[str] = []
        self.context: list[str] = []
        for item in blocks:
            block = members(item, "prompt[]")
            match text(block, "type"):
                case "text":
                    texts.append(text(block, "text"))
                case "image" | "audio" as kind:
                    size = len(text(block, "data")) * 3 // 4
                    self.notes.append(f"[{kind} {text(block, 'mimeType')}, about {size} bytes]")
                case "resource_link":
                    self.notes.append(f"[resource_link {text(block, 'name')} {text(block, 'uri')}]")
                case "resource":
                    self._embed(members(block.get("resource"), "resource"))
                case kind:
                    raise invalid(f"no such content block: {kind!r}")
        told = [words for words in texts if words.endswith(TRANSCRIPT_END)]
        *before, self.script = [words for words in texts if words not in told] or [""]
        self.context[:0] = told
        self.context[:0] = before

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        plain: list[str] = []
        for line in self.script.split("\n"):
            if command := _COMMAND.fullmatch(line.removesuffix("\r")):
                _echo_into(steps, plain)
                steps.append((command[1], command[2] or ""))
            else:
                plain.append(line)
        if not steps:
            plain += self.notes
        _echo_into(steps, plain)
        return steps

    def _embed(self, resource: Object) -> None:
        self.notes.append(f"[resource {text(resource, 'uri')}]")
        if "text" in resource:
            self.context.append(text(resource, "text"))


def _echo_into(steps: list[Step], plain: list[str]) -> None:
    if spoken := "\n".join(plain).strip("\n"):
        steps.append(("", spoken))
    plain.clear()
