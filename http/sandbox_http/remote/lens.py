"""What a connection sees of a session's log: answers to its own requests, and what happens in its ACP sessions.

Each event is looked at once, in order, and becomes a `Sight` or nothing. Ids are translated on the way: answers get
back the client's own id, questions get one that tells where they came from (see `labels`).

Three things need a memory of what was just read. What an agent says in an ACP session before it has answered the
`session/new` that makes it is kept back until its id is known to the client. What an agent replays because another
connection loads an ACP session is not told again to those who follow it already. And the directory for which sessions
are listed stands in the request, not in the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw

from sandbox_actors.envelope import InvalidEnvelope, decode, id_text, members_of, notification, replace_members
from sandbox_actors.journal import Origin

from .labels import label_of, question_id
from .scope import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_actors.envelope import Head
    from sandbox_actors.journal import Event

    from .attachment import Attachment
    from .connection import Connection
    from .labels import Label
    from .scope import Scope

__all__ = ["Lens", "Sight"]

UPDATE = b'{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"'
"""How most agents begin an update. Another order of the keys is as good, and costs a look."""

PLAIN = re.compile(r"[\w-]+", re.ASCII)
"""An id that every JSON encoder writes in the same way."""

EARLY_LIMIT = 256 << 10
"""Bytes that are kept of what is said in ACP sessions whose id the client does not know yet."""


@dataclass(frozen=True, slots=True)
class Sight:
    """An envelope for the client.

    Attributes:
      seq: the number of the event; None where it is none.
      session: the ACP session on whose stream it belongs; None for the connection's own.
      behind: the ACP session whose stream is to be this far before it is told.
    """

    seq: int | None
    session: str | None
    envelope: bytes
    behind: str | None = None


class Lens:
    """See the module. Each reader of a log has its own.

    Args:
      scope: what the reader wants. Of what it does not, some is still told; it saves most of the looking.
    """

    def __init__(self, connection: Connection, attachment: Attachment, scope: Scope) -> None:
        self._connection = connection
        self._attachment = attachment
        self._scope = scope
        self._making = 0
        self._early: list[Sight] = []
        self._early_size = 0
        self._directories: dict[int, str | None] = {}
        self._prompts: dict[bytes, str] = {}
        self._replays: dict[bytes, str] = {}

    def look(self, event: Event) -> Iterator[Sight]:
        """What the client is told of an event: mostly nothing, or one envelope."""
        if event.envelope.startswith(UPDATE) and self._concerns_others(event.envelope):
            return
        try:
            head = decode(event.envelope)
        except InvalidEnvelope:
            return  # of an earlier version of this program; what an agent writes is told in a notice
        if event.origin is Origin.CLIENT:
            yield from self._asked(head)
        elif event.origin is Origin.DAEMON:
            return
        elif head.is_response:
            yield from self._answered(event, head)
        else:
            yield from self._told(event, head)

    def _concerns_others(self, update: bytes) -> bool:
        """Whether an update of the agent's is certainly none that is wanted: of ten events nine are updates."""
        if self._scope is None:
            return True
        return (
            self._scope is not ALL and PLAIN.fullmatch(self._scope) is not None and self._scope.encode() not in update
        )

    def _asked(self, head: Head) -> Iterator[Sight]:
        """Some client has said something."""
        if not isinstance(head.id, Raw) or head.method is UNSET:
            return
        label = label_of(self._connection.mark, head.id)
        session = head.member("params", "sessionId")
        if label is None:
            if (
                head.method_name == "session/load"
                and isinstance(session, str)
                and session not in self._prompts.values()
            ):
                self._replays[id_text(head.id)] = session
        elif label.kind == "new":
            self._making += 1
        elif label.kind == "list":
            directory = head.member("params", "cwd")
            self._directories[label.number] = directory if isinstance(directory, str) else None
        elif label.kind in ("open", "session") and self._connection.lacks_stream(label.session or ""):
            # A client that follows no ACP session before it has seen its id opens its stream now, and misses nothing.
            params = {"sessionId": label.session, "serverId": self._attachment.server}
            yield Sight(None, None, notification("_sandboxagent/session/attached", params))
        if head.method_name == "session/prompt" and isinstance(session, str):
            self._prompts[id_text(head.id)] = session

    def _answered(self, event: Event, head: Head) -> Iterator[Sight]:
        assert isinstance(head.id, Raw)
        id = id_text(head.id)
        self._prompts.pop(id, None)
        self._replays.pop(id, None)
        label = label_of(self._connection.mark, head.id)
        if label is None or label.kind == "initialize":
            return
        members: dict[str, Raw] = {"id": label.id}
        behind = None
        if label.kind == "open":
            behind = label.session
            members |= _with_session(head, label.session)
        elif label.kind == "list":
            members |= self._connection.listed(head, self._directories.pop(label.number, None))
        yield Sight(event.seq, label.stream, replace_members(event.envelope, members), behind)
        if label.kind == "new":
            yield from self._made(label, head)

    def _made(self, label: Label, head: Head) -> Iterator[Sight]:
        self._making = max(0, self._making - 1)
        made = head.member("result", "sessionId")
        if isinstance(made, str):
            self._attachment.follow(made)
            yield from (sight for sight in self._early if sight.session == made)
            self._early = [sight for sight in self._early if sight.session != made]
        if not self._making:
            self._early.clear()
            self._early_size = 0

    def _told(self, event: Event, head: Head) -> Iterator[Sight]:
        """The agent, or the daemon, has said something of its own accord."""
        session = head.member("params", "sessionId")
        session = session if isinstance(session, str) else None
        sight = Sight(event.seq, session, self._translated(event, head))
        if session is None or session in self._attachment.opened:
            if head.method_name != "session/update" or session not in self._replays.values():
                yield sight
        elif self._making and session not in self._attachment.before and self._early_size < EARLY_LIMIT:
            self._early.append(sight)
            self._early_size += len(sight.envelope)

    def _translated(self, event: Event, head: Head) -> bytes:
        key = self._attachment.log.row.key
        if isinstance(head.id, Raw):
            return replace_members(event.envelope, {"id": question_id(key, event.incarnation, head.id)})
        if b'"requestId"' not in event.envelope:
            return event.envelope
        members = members_of(head.params)
        asked = members.get("requestId")
        if asked is None:
            return event.envelope
        label = label_of(self._connection.mark, asked)
        if label is not None:
            asked = label.id
        elif event.origin is Origin.AGENT or "/turn/" not in head.method_name:
            asked = question_id(key, event.incarnation, asked)
        params = Raw(replace_members(msgspec.json.encode(members), {"requestId": asked}))
        return replace_members(event.envelope, {"params": params})


def _with_session(head: Head, session: str | None) -> dict[str, Raw]:
    """The result with the id of the ACP session in it, as the answer to `session/new` has it."""
    if session is None or not isinstance(head.result, Raw) or head.member("result", "sessionId") is not None:
        return {}
    whole = bytes(head.result) if bytes(head.result).startswith(b"{") else b"{}"
    return {"result": Raw(replace_members(whole, {"sessionId": Raw(msgspec.json.encode(session))}))}
