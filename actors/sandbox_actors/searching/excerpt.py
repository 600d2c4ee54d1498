"""What is shown of a line: all of it, or what is round the first match."""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["MOST_SPANS", "Span", "excerpt"]

Span: TypeAlias = tuple[int, int]
"""Where a match begins and ends, in characters."""

LONGEST = 1000
"""Characters of a line. Some files are one line of megabytes."""

BEFORE = 100
"""Characters in front of the first match of a line that is too long."""

MOST_SPANS = 100
"""Matches in one line that are told."""


def excerpt(line: str, spans: list[Span]) -> tuple[str, list[Span], bool]:
    """The text that is shown, where the matches are in it, and whether something is left out."""
    if len(line) <= LONGEST:
        return line, spans[:MOST_SPANS], len(spans) > MOST_SPANS
    start = max(0, min(spans[0][0] - BEFORE, len(line) - LONGEST)) if spans else 0
    text = line[start : start + LONGEST]
    inside = [(begin - start, min(end - start, LONGEST)) for begin, end in spans if begin - start <= LONGEST]
    return text, inside[:MOST_SPANS], True
