"""What was answered with "always", and by what a request is known to be the same again.

An agent that was told `allow_always` keeps to that by itself. Some ask again all the same, after a restart or in a new
ACP session: they get the answer that was given. Only the same command line, the same places, or else the same input of
the same tool, is the same request. One that tells nothing of what it is about never is, nor one of which a part cannot
be told: a place that means something else to every program, or a command that may do more than its line says.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from .tool_call import ToolCall

__all__ = ["LIMIT", "recall", "remember", "signature"]

LIMIT = 256
"""Answers that are kept: the newest."""


def signature(call: ToolCall, cwd: str) -> str | None:
    """By it the same request is known again; None where that cannot be told."""
    told = (*call.places(cwd), *call.hints(cwd), *call.surroundings(cwd))
    places = sorted({place for place in told if place is not None})
    if not call.sure or None in told:
        return None
    about: object = call.input if call.command_line is None and not call.written else None
    if call.command_line is None and not call.written and about in (None, {}, [], ""):
        return None
    # Where there are places, the input is left out: what is written to a file may be another text each time.
    text = msgspec.json.encode([call.kind, call.name, call.command_line, places, about], order="sorted")
    return hashlib.sha256(text).hexdigest()[:32]


def remember(answers: dict[str, str], key: str, decision: str) -> None:
    """Keep an answer, the newest last."""
    answers.pop(key, None)
    answers[key] = decision
    while len(answers) > LIMIT:
        del answers[next(iter(answers))]


def recall(answers: dict[str, str], key: str | None) -> str | None:
    """The answer that was given: `allow` or `deny`; None if there was none."""
    return None if key is None else answers.get(key)
