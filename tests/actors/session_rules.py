"""What must hold of a session's events, whatever clients do to it and whatever befalls it.

    events        are numbered from 1 without a gap
    a turn        is queued once, started at most once after that, and ends once; one runs at a time
    a prompt      of anybody's is answered once
    a permission  is asked once, and resolved once after that
    after close   nothing begins

The rules know nothing of the session but its events, as any client sees them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox_actors.journal import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.talking import Told

__all__ = ["Rules"]

DECIDERS = ("client", "policy:", "remembered", "timeout", "cancel", "turn_ended", "crash", "close", "agent", "replaced")


@dataclass(slots=True)
class Rules:
    """A reader of all events of a session, in order, that fails at the first which must not be.

    Attributes:
      outcomes: of the turns that have ended.
      running: the turn that runs.
    """

    last: int = 0
    queued: set[str] = field(default_factory=set[str])
    running: str | None = None
    outcomes: dict[str, str] = field(default_factory=dict[str, str])
    asked: set[str] = field(default_factory=set[str])
    resolved: set[str] = field(default_factory=set[str])
    prompted: set[str] = field(default_factory=set[str])
    answered: set[str] = field(default_factory=set[str])
    closed: bool = False

    def read(self, events: Iterable[Told]) -> None:
        for event in events:
            assert event.seq == self.last + 1
            self.last = event.seq
            if event.origin is Origin.NOTICE and event.method.startswith("_sandboxagent/"):
                self._notice(event.method.removeprefix("_sandboxagent/"), event)
            elif event.origin is Origin.CLIENT and event.method == "session/prompt":
                assert not self.closed
                self.prompted.add(_id(event))
            elif event.origin is not Origin.CLIENT and "method" not in event.message and _id(event) in self.prompted:
                assert _id(event) not in self.answered, event
                self.answered.add(_id(event))

    def _notice(self, name: str, event: Told) -> None:
        params = event.params
        match name:
            case "turn/queued":
                assert not self.closed
                assert params["turnId"] not in self.queued
                self.queued.add(params["turnId"])
            case "turn/started":
                turn = params["turnId"]
                assert not self.closed
                assert self.running is None, (self.running, event)
                assert turn in self.queued
                assert turn not in self.outcomes
                self.running = turn
            case "turn/ended":
                turn = params["turnId"]
                assert turn in self.queued
                assert turn not in self.outcomes, event
                assert params["outcome"] in ("completed", "cancelled", "failed")
                assert params["outcome"] != "failed" or params["error"]["type"]
                self.outcomes[turn] = params["outcome"]
                if turn == self.running:
                    self.running = None
            case "permission/requested":
                assert params["permissionId"] not in self.asked
                self.asked.add(params["permissionId"])
            case "permission/resolved":
                assert params["permissionId"] in self.asked
                assert params["permissionId"] not in self.resolved, event
                assert params["by"].startswith(DECIDERS), event
                self.resolved.add(params["permissionId"])
            case "session/closed":
                self.closed = True
            case _:
                return

    def check_settled(self) -> None:
        """Everything that was begun has ended."""
        assert self.running is None
        assert self.outcomes.keys() == self.queued
        assert self.resolved == self.asked
        assert self.prompted - self.answered == set()


def _id(event: Told) -> str:
    return json.dumps(event.message.get("id"))
