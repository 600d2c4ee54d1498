"""Command lines, as far as a rule must understand them: whether one is a single plain command, and if not, its parts.

No shell is parsed here. What a plain line may not have is every letter by which a POSIX shell or bash runs a second
command, substitutes the output of one, or writes to a file; also where quotes would make it harmless. So a line that is
called plain is, and some that are plain are not called so.

Its parts are for rules that forbid, so they are many: each part as it is written, and as it is without quotes, without
what leads to the command, and without the folder of that: `X="a b" sudo -n "/bin/rm" -rf /` is `rm -rf /` too.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SHELLS", "commands_of", "is_plain"]

SHELLS = frozenset({"sh", "bash", "zsh", "dash"})

NOT_PLAIN = re.compile(r"[;&|<>`\n\r\0]|\$[({\[']|\$\"|[()]")
SEPARATORS = re.compile(r"[;&|<>`\n\r(){}]|\$\(")
QUOTED = r"\"(?:\\.|[^\"\\])*\"|'[^']*'|\\."
WORD = re.compile(rf"(?s)(?:{QUOTED}|\S)+")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
ASSIGNMENTS = re.compile(rf"(?s)(?<!\w){ASSIGNMENT.pattern}(?:{QUOTED}|[^\s;&|<>`(){{}}])+")
QUOTES = re.compile(r"[\"'\\]")

LEADING = SHELLS | {
    *("!", "if", "elif", "then", "else", "while", "until", "do"),
    *("sudo", "doas", "env", "exec", "eval", "command", "builtin", "nohup", "nice", "time", "xargs"),
}
"""Words after which the command comes that is meant, maybe after options."""

LEADING_LIMIT = 8
"""Leading words after each of which a part counts as one of its own; what is left after all of them always does."""


def is_plain(line: str) -> bool:
    """Whether a command line is one command, that does nothing beside."""
    return NOT_PLAIN.search(line) is None


@lru_cache(maxsize=2)  # all rules of a policy ask in turn about one line, and maybe a title
def commands_of(line: str) -> tuple[str, ...]:
    """The commands in a line, as broadly as it can be read: for rules that forbid."""
    line = line.replace("\\\r\n", "").replace("\\\n", "")
    # Once more without values in quotes: what separates commands elsewhere does not in there.
    lines = dict.fromkeys((line, ASSIGNMENTS.sub(lambda found: "" if QUOTES.search(found[0]) else found[0], line)))
    parts = [part.strip() for text in lines for part in SEPARATORS.split(text)]
    return tuple(dict.fromkeys(reading for part in parts for reading in _readings(part) if reading))


def _readings(part: str) -> Iterator[str]:
    yield part
    written = WORD.findall(part)
    words = [QUOTES.sub("", word) for word in written]
    at = stripped = 0
    while True:
        past = _past_leading(words, at)
        if past == at or stripped < LEADING_LIMIT:
            yield " ".join(written[at:])
            yield from _plainly(words[at:])
        if past == at:
            return
        at, stripped = past, stripped + 1


def _past_leading(words: list[str], at: int) -> int:
    """Where it goes on after a word that only leads to the command, and after its options."""
    if at == len(words):
        return at
    if words[at] and ASSIGNMENT.match(words[at]):
        return at + 1
    if posixpath.basename(words[at]) not in LEADING:
        return at
    at += 1
    while at < len(words) and words[at].startswith("-"):
        at += 1
    return at


def _plainly(words: list[str]) -> Iterator[str]:
    if words:
        yield " ".join(" ".join(words).split())
        yield " ".join(" ".join((posixpath.basename(words[0]), *words[1:])).split())
