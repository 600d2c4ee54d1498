"""The supervision tree, visible: what runs, since when, in which incarnation, and how often it crashed.

Nodes are bookkeeping, not ownership: nurseries own tasks, nodes only tell about them. A node is entered where the thing
it names is started and left where that ends, so the tree is the nesting of the program.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["Node", "Snapshot"]

Detail = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One node as it was at one moment.

    Attributes:
      name: unique among its siblings.
      kind: what it is, e.g. `session`.
      state: the domain's word for what it does now, e.g. `running`.
      incarnation: which run this is, from 1; 0 before the first.
      crashes: how many there were since it was entered.
      since_ms: when it took on its present state, in milliseconds of Unix time.
      mailbox: how many messages wait; None where it has no mailbox.
      details: what else the domain tells.
      children: in order of entry.
    """

    name: str
    kind: str
    state: str
    incarnation: int
    crashes: int
    since_ms: int
    mailbox: int | None
    details: Mapping[str, Detail]
    children: tuple[Snapshot, ...]


@dataclass(slots=True, eq=False)
class Node:
    """A place in the tree."""

    name: str
    kind: str
    mailbox_depth: Callable[[], int] | None = None
    details: dict[str, Detail] = field(default_factory=dict[str, Detail])
    incarnation: int = 0
    crashes: int = 0
    _state: str = "running"
    _since: float = field(default_factory=time.time)
    _children: list[Node] = field(default_factory=list["Node"])

    @property
    def state(self) -> str:
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._since = time.time()

    def started(self, incarnation: int) -> None:
        """A new incarnation runs."""
        self.incarnation = incarnation
        self._state = ""  # a new run is news even where the word for it is the same
        self.state = "running"

    def crashed(self, state: str) -> None:
        """The incarnation crashed; `state` is what comes of it."""
        self.crashes += 1
        self.state = state

    @contextmanager
    def child(self, name: str, kind: str) -> Generator[Node]:
        """A new node below this one, for as long as the block runs."""
        with self.attached(Node(name, kind)) as node:
            yield node

    @contextmanager
    def attached(self, node: Node) -> Generator[Node]:
        """A node that was made before, below this one for as long as the block runs."""
        self._children.append(node)
        try:
            yield node
        finally:
            self._children.remove(node)

    def snapshot(self) -> Snapshot:
        """This node and all below it, now."""
        return Snapshot(
            name=self.name,
            kind=self.kind,
            state=self._state,
            incarnation=self.incarnation,
            crashes=self.crashes,
            since_ms=int(self._since * 1000),
            mailbox=self.mailbox_depth() if self.mailbox_depth is not None else None,
            details=dict(self.details),
            children=tuple(child.snapshot() for child in self._children),
        )
