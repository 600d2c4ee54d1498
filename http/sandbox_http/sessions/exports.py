"""A session's past, told: the transcript, and what was used."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec
import trio
from quart import Response, request

from sandbox_actors.journal import Gap
from sandbox_actors.transcript import Transcript
from sandbox_actors.transcript_entries import Message
from sandbox_actors.transcript_markdown import as_markdown, inline
from sandbox_actors.usage import Context, TurnUsage, Usage, UsageTotal

from ..problems import Problem
from ..requests import flag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.journal import SessionLog
    from sandbox_actors.native_turns import Turn
    from sandbox_actors.session import Session
    from sandbox_actors.transcript_entries import Entry

__all__ = ["UsageBook", "UsageView", "said_in", "transcript_response"]

TYPES: dict[str, str] = {
    "markdown": "text/markdown; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "json": "application/json",
}

TEXT_LIMIT = 4 << 20
"""Characters of what an agent has said in a turn that are told with the turn's end."""


def transcript_response(session: Session) -> Response:
    """The answer to the present request for a transcript: `format`, `turn`, `thoughts`.

    Raises:
      Problem: a parameter makes no sense.
      TurnNotFound: no such turn is known.
    """
    format = request.args.get("format", "markdown")
    if format not in TYPES:
        raise Problem("invalid_request", f"unknown format {format!r}, expected one of {', '.join(TYPES)}")
    transcript = Transcript(thoughts=flag("thoughts", default=True), turn=request.args.get("turn"))
    start = session.log.floor - 1
    body = _written(session.log, transcript, format, start, session) if request.method == "GET" else b""
    response = Response(body, content_type=TYPES[format])
    response.timeout = None
    return response


async def _written(
    log: SessionLog, transcript: Transcript, format: str, after: int, session: Session
) -> AsyncIterator[bytes]:
    first = True
    if format == "markdown":
        title = session.setup.title or session.log.row.id
        yield f"# Session {inline(title)}\n\nAgent: {inline(session.log.row.agent)}\n\n".encode()
    elif format == "json":
        yield b'{"sessionId":%b,"entries":[' % msgspec.json.encode(session.log.row.id)
    async for entries in _entries(log, transcript, after, log.head):
        if format == "markdown":
            yield "".join(map(as_markdown, entries)).encode()
        elif format == "jsonl":
            yield b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        else:
            yield (b"" if first else b",") + b",".join(msgspec.json.encode(entry) for entry in entries)
            first = False
    if format == "json":
        yield b"]}"


async def _entries(log: SessionLog, transcript: Transcript, after: int, until: int) -> AsyncIterator[list[Entry]]:
    """The entries, some at a time, of the events behind one and up to another."""
    cursor = log.cursor(after)
    while cursor.position < until:
        try:
            read = await anext(cursor)
        except StopAsyncIteration:
            break
        entries: list[Entry] = []
        if isinstance(read, Gap):
            entries += transcript.gap(read)
        else:
            for page in read:
                for event in page.events():
                    entries += transcript.add(event)
        if entries:
            yield entries
    if entries := transcript.end():
        yield entries


async def said_in(session: Session, turn: Turn) -> tuple[str, bool]:
    """What the agent has said in a turn, and whether that was cut because it is too long."""
    transcript = Transcript(thoughts=False, turn=turn.id)
    texts: list[str] = []
    size = 0
    async for entries in _entries(session.log, transcript, max(turn.seq, session.log.floor) - 1, session.log.head):
        for entry in entries:
            if isinstance(entry, Message) and entry.role == "agent" and entry.text:
                texts.append(entry.text)
                size += len(entry.text)
        if size > TEXT_LIMIT:
            break
    text = "\n\n".join(texts)
    return text[:TEXT_LIMIT], len(text) > TEXT_LIMIT


class UsageView(msgspec.Struct, rename="camel", kw_only=True):
    """What a session has used.

    Attributes:
      complete: False where older events are gone that may have told of more.
      turns: the newest ones.
    """

    session_id: str
    seq: int
    complete: bool
    total: UsageTotal
    context: list[Context]
    turns: list[TurnUsage]


class UsageBook:
    """What sessions have used, as far as it was asked for: only what came since is counted anew."""

    def __init__(self) -> None:
        self._usages: WeakKeyDictionary[SessionLog, tuple[Usage, trio.Lock]] = WeakKeyDictionary()

    async def view(self, session: Session) -> UsageView:
        """What a session has used by now."""
        log = session.log
        usage, lock = self._usages.setdefault(log, (Usage(), trio.Lock()))
        async with lock:
            await _count(log, usage)
        return UsageView(
            session_id=log.row.id,
            seq=usage.seq,
            complete=usage.complete,
            total=usage.total,
            context=usage.context,
            turns=usage.turns,
        )


async def _count(log: SessionLog, usage: Usage) -> None:
    cursor = log.cursor(usage.seq)
    head = log.head
    while cursor.position < head:
        try:
            read = await anext(cursor)
        except StopAsyncIteration:
            break
        if isinstance(read, Gap):
            usage.gap(read.last)
        else:
            for page in read:
                for event in page.events():
                    usage.add(event)
