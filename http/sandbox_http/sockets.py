"""The WebSocket of a session: every text frame is one JSON-RPC envelope, in both directions.

Down come the events that the SSE stream of the same path shows, from the live end or behind `?after=SEQ`; with
`?seq=true` each carries its number as a further top-level member `seq`, for the next `?after=`. Up go requests,
notifications and answers. A request is answered under its own id, whatever other clients use.

    1000, 1001, ...  as the client or the shutting down daemon (1001) has it
    1003             the client sent a binary frame
    1009             a frame was larger than the server takes
    4404             the session was deleted
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Raw
from quart import websocket

from sandbox_actors.directory_config import stored_servers
from sandbox_actors.envelope import InvalidEnvelope, as_line, decode, error_response, id_text, replace_members
from sandbox_actors.errors import as_refusal
from sandbox_actors.journal import Gap
from sandbox_actors.messages import Say
from sandbox_supervisor import ActorError

from .closing import close_socket
from .streams import HIDDEN, gap_notice, stopping_notice

if TYPE_CHECKING:
    from sandbox_actors.directory_config import DirectoryConfig
    from sandbox_actors.journal import Cursor
    from sandbox_actors.session import Session

    from .streams import Streams

__all__ = ["GOING_AWAY", "SESSION_DELETED", "converse", "parse_error"]

SESSION_DELETED = 4404
UNSUPPORTED_DATA = 1003
GOING_AWAY = 1001


async def converse(
    session: Session, config: DirectoryConfig, cursor: Cursor, streams: Streams, epoch: str, *, numbered: bool
) -> None:
    """Serve one WebSocket until either side ends it.

    Args:
      config: where it is looked up what is stored for directories.
      cursor: the events behind it are sent.
      numbered: whether each carries its number.
    """
    await websocket.accept()  # pyright: ignore[reportUnknownMemberType]  # Quart's `headers: dict`
    conversation = _Conversation(session, config, cursor, epoch, numbered)
    streams.add(cursor)
    try:
        async with trio.open_nursery() as nursery:
            # Without a reader a disconnect goes unnoticed once some frames lie unread.
            nursery.start_soon(conversation.listen)
            await conversation.tell()
            nursery.cancel_scope.cancel()
        if streams.draining:
            await conversation.send(stopping_notice())
            await close_socket(GOING_AWAY, "the daemon is shutting down")
        elif conversation.refused_frame:
            await close_socket(UNSUPPORTED_DATA, "only text frames are taken")
        else:
            await close_socket(SESSION_DELETED, "the session was deleted")
    finally:
        streams.remove(cursor)


class _Conversation:
    def __init__(self, session: Session, config: DirectoryConfig, cursor: Cursor, epoch: str, numbered: bool) -> None:
        self._session = session
        self._config = config
        self._cursor = cursor
        self._epoch = epoch
        self._numbered = numbered
        self._sending = trio.Lock()
        self._own_ids: dict[bytes, Raw] = {}  # of requests that go to the agent under another id
        self.refused_frame = False

    async def send(self, envelope: bytes) -> None:
        async with self._sending:
            await websocket.send(envelope.decode())

    async def listen(self) -> None:
        while True:
            frame: object = await websocket.receive()
            # Quart gives an empty binary frame as None.
            if not isinstance(frame, str):
                self.refused_frame = True
                self._cursor.close()
                return
            await self._hear(as_line(frame.encode(errors="surrogatepass")))

    async def _hear(self, envelope: bytes) -> None:
        try:
            head = decode(envelope)
        except InvalidEnvelope as error:
            await self.send(parse_error(str(error)))
            return
        try:
            servers = await stored_servers(self._config, head.method_name, head.params)
            accepted = await self._session.ref.ask(Say(envelope, head, servers))
        except ActorError as error:
            await self.send(error_response(head.request_id or Raw(b"null"), as_refusal(error)))
            return
        own_id = head.request_id
        if accepted.id is not None and own_id is not None and bytes(accepted.id) != bytes(own_id):
            self._own_ids[id_text(accepted.id)] = Raw(bytes(own_id))

    async def tell(self) -> None:
        async for read in self._cursor:
            if isinstance(read, Gap):
                await self.send(gap_notice(read, self._epoch))
                continue
            for page in read:
                for seq, envelope in page.numbered(skip=HIDDEN):
                    if (frame := self._frame(seq, envelope)) is not None:
                        await self.send(frame)
                    # Hypercorn's send returns without a checkpoint once the peer is gone.
                    await trio.lowlevel.checkpoint()

    def _frame(self, seq: int, envelope: bytes) -> bytes | None:
        if self._own_ids:
            head = decode(envelope)
            if isinstance(head.id, Raw) and head.is_response:
                id = id_text(head.id)
                own_id = self._own_ids.pop(id, None)
                if own_id is not None:
                    envelope = replace_members(envelope, {"id": own_id})
                elif any(id == id_text(own) for own in self._own_ids.values()):
                    return None  # another client's answer, which this one would take for its own
        if self._numbered:
            # Spliced in as text: the agent's own text stays what it was.
            members = envelope.rstrip()[:-1]
            envelope = b'%b%b"seq":%d}' % (members, b"" if members.rstrip() == b"{" else b",", seq)
        return envelope


def parse_error(reason: str) -> bytes:
    """JSON-RPC 2.0, section 5.1: what cannot be read has no id to answer under."""
    error = {"code": -32700, "message": f"the frame is no JSON-RPC envelope: {reason}"}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})
