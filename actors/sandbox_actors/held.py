"""What clients say while an incarnation of the agent is still brought back to its sessions: it waits, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .envelope import decode, id_text
from .errors import AgentBusy
from .outbox import BYTES_LIMIT

if TYPE_CHECKING:
    from .messages import Say

__all__ = ["HELD_LIMIT", "Held"]

HELD_LIMIT = 256
"""Envelopes that wait for an incarnation to have its sessions back."""


class Held:
    def __init__(self) -> None:
        self._said: list[Say] = []
        self._bytes = 0

    def check(self) -> None:
        """Raises `AgentBusy` if nothing more fits."""
        if len(self._said) >= HELD_LIMIT or self._bytes >= BYTES_LIMIT:
            raise AgentBusy

    def add(self, said: Say) -> None:
        self._said.append(said)
        self._bytes += len(said.envelope)

    def requests(self) -> frozenset[bytes]:
        """The ids, as text, of the requests that wait."""
        ids = [decode(said.envelope).request_id for said in self._said]
        return frozenset(id_text(id) for id in ids if id is not None)

    def take(self) -> list[Say]:
        """All that waits, in order; from now on nothing does."""
        said, self._said, self._bytes = self._said, [], 0
        return said
