"""Ids on the way: whose request an answer belongs to, and which agent a question came from.

Several connections share an agent, and each counts its JSON-RPC ids for itself; one connection talks to several agents,
and each of those counts, too. So a request goes to the agent under a label that says whose it is, and what becomes of
its answer; a question goes to the client under a label that says which incarnation of which session has asked. Nothing
has to be remembered to read them: they stand in the journal, for every stream and for as long as it lasts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from sandbox_actors.envelope import as_line, text_of

if TYPE_CHECKING:
    from msgspec import UnsetType

__all__ = ["Kind", "Label", "Question", "label_id", "label_of", "question_id", "question_of"]

Kind: TypeAlias = Literal["initialize", "open", "new", "list", "connection", "session"]
"""What becomes of the answer.

`initialize`: it is the response to the POST itself; `open`: to a load or resume, it comes behind what is replayed;
`new`: an ACP session begins; `list`: ACP sessions are listed; `connection`, `session`: it just goes on that stream.
"""

QUESTION = re.compile(r"(\d{1,18})\.(\d{1,18}):(.*)", re.DOTALL | re.ASCII)


class Label(msgspec.Struct, frozen=True, array_like=True):
    """Of a client's request.

    Attributes:
      number: counts within the connection, so that no two labels are the same.
      session: the ACP session that it is about.
      id: as the client knows it.
    """

    kind: Kind
    number: int
    session: str | None
    id: Raw

    @property
    def stream(self) -> str | None:
        """The ACP session on whose stream the answer goes; None for the stream of the connection."""
        return self.session if self.kind == "session" else None


class Question(NamedTuple):
    """Where an agent's request came from: the key of the session's log, the incarnation, and the agent's own id."""

    key: int
    incarnation: int
    id: Raw


_labels = msgspec.json.Decoder(Label)


def label_id(mark: str, label: Label) -> Raw:
    """The id by which the agent knows a request of the connection that has this mark."""
    return Raw(msgspec.json.encode(mark + msgspec.json.encode(label).decode()))


def label_of(mark: str, id: Raw | UnsetType) -> Label | None:
    """The label that an id is, if it is one of this connection's."""
    if not isinstance(id, Raw) or mark.encode() not in bytes(id):
        return None
    text = text_of(id)
    if text is None or not text.startswith(mark):
        return None
    try:
        label = _labels.decode(text.removeprefix(mark))
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Label(label.kind, label.number, label.session, Raw(as_line(bytes(label.id))))


def question_id(key: int, incarnation: int, id: Raw) -> Raw:
    """The id by which clients know a request of an agent."""
    return Raw(msgspec.json.encode(f"{key}.{incarnation}:{bytes(id).decode()}"))


def question_of(id: Raw | UnsetType) -> Question | None:
    """Where a question came from that a client answers; None if nobody can have asked it."""
    match = QUESTION.fullmatch(text_of(id) or "")
    if match is None:
        return None
    own_id = as_line(match[3].encode())
    try:
        msgspec.json.decode(own_id)  # one value and nothing else: it becomes a part of what the agent is told
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Question(int(match[1]), int(match[2]), Raw(own_id))
