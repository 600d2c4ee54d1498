"""Event numbers as clients send them."""

from __future__ import annotations

from .problems import Problem

__all__ = ["LARGEST", "event_number"]

LARGEST = 2**63 - 1
"""What SQLite can hold, and more events than there will ever be."""


def event_number(text: str, name: str) -> int | None:
    """The number in a header or a query parameter; None where it is blank.

    Raises:
      Problem: `invalid_request`, it is no unsigned 64-bit number.
    """
    text = text.strip()
    if not text:
        return None
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20 or int(digits) >= 2**64:
        raise Problem("invalid_request", f"{name} must be a positive integer")
    return min(int(digits), LARGEST)
