"""Events as a session has them, written down by hand: what folds over events is tested with."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from sandbox_actors.journal import Event, Origin

__all__ = ["AT", "Story"]

Json: TypeAlias = Any

AT = 1_700_000_000_000
"""Every event's moment."""


class Story:
    """A growing list of events, in the words of those who say them."""

    def __init__(self, session: str = "s1") -> None:
        self.events: list[Event] = []
        self.session = session

    def say(self, origin: Origin, envelope: Json) -> None:
        text = envelope if isinstance(envelope, bytes) else json.dumps({"jsonrpc": "2.0", **envelope}).encode()
        self.events.append(Event(len(self.events) + 1, AT, 1, origin, text))

    def notice(self, name: str, **params: Json) -> None:
        self.say(Origin.NOTICE, {"method": f"_sandboxagent/{name}", "params": params})

    def update(self, what: str, /, *, session: str | None = None, **members: Json) -> None:
        params = {"sessionId": session or self.session, "update": {"sessionUpdate": what, **members}}
        self.say(Origin.AGENT, {"method": "session/update", "params": params})

    def chunk(self, text: str, role: str = "agent_message", *, session: str | None = None, **members: Json) -> None:
        self.update(f"{role}_chunk", session=session, content={"type": "text", "text": text}, **members)

    def prompt(self, id: Json, text: str, *, session: str | None = None) -> None:
        params = {"sessionId": session or self.session, "prompt": [{"type": "text", "text": text}]}
        self.say(Origin.CLIENT, {"id": id, "method": "session/prompt", "params": params})

    def answer(self, id: Json, **result: Json) -> None:
        self.say(Origin.AGENT, {"id": id, "result": {"stopReason": "end_turn", **result}})

    def begin(self, turn: str, text: str, *, session: str | None = None) -> None:
        """A native turn: queued, sent under its own id, started."""
        self.notice("turn/queued", turnId=turn, waiting=0)
        self.prompt(turn, text, session=session)
        self.notice("turn/started", turnId=turn, requestId=turn, sessionId=session or self.session)

    def end(self, turn: str, outcome: str = "completed", **result: Json) -> None:
        self.answer(turn, **result)
        self.notice("turn/ended", turnId=turn, outcome=outcome, stopReason="end_turn")
