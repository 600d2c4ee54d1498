"""What a store takes, decided on values: drivers ask here within their transaction, whatever they keep things in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import LeaseLost, PersistenceError
from .store import GapRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Record, SessionKey

__all__ = ["check_owner", "new_records"]


def new_records(key: SessionKey, epoch: str, records: Sequence[Record], seq: int) -> list[Record]:
    """Those records that are not stored yet.

    Args:
      seq: the last number of the epoch that is stored; 0: none is.

    Raises:
      PersistenceError: there is a hole in front of one.
    """
    new: list[Record] = []
    for record in records:
        if not 1 <= record.first <= record.last:
            raise PersistenceError(f"{key}: there are no events {record.first} to {record.last}")
        if record.last <= seq:
            continue
        if record.first > seq + 1:
            raise PersistenceError(f"{key}: event {seq + 1} of epoch {epoch} is missing in front of {record.first}")
        # Of a gap, a part may be there.
        new.append(replace(record, first=seq + 1) if isinstance(record, GapRecord) else record)
        seq = record.last
    return new


def check_owner(key: SessionKey, generation: int | None, newest: int) -> None:
    """See whether who appends is the owner.

    Args:
      newest: the newest generation that was given; 0: none was.

    Raises:
      LeaseLost, PersistenceError: see `Store.append`.
    """
    if generation is None:
        if newest:
            raise PersistenceError(f"{key} has an owner: what is appended needs its generation")
    elif generation < newest:
        raise LeaseLost(f"{key}: generation {generation} is over, the lease is at {newest}")
    elif generation > newest:
        raise PersistenceError(f"{key}: there was never a generation {generation}")
