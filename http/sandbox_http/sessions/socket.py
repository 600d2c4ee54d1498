"""The WebSocket of a session: events come down, prompts, cancels and answers go up.

Down come the frames of the event streams. Up go objects with a `type`, and an `id` of the client's own choice which the
reply has, too:

    prompt       content, key          reply: the turn
    cancel       turnId                reply: turnIds
    permission   permissionId, and     reply: the permission
                 optionId, outcome, or action and content
    ping                               reply: seq

What cannot be done is answered with a frame `error` that holds the problem; it is no reason to close.

    1000, 1001, ...  as the client or the shutting down daemon (1001) has it
    1003             the client sent a binary frame
    1009             a frame was larger than the server takes
    4404             the session was deleted
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec
import trio
from msgspec import UNSET, Raw, UnsetType
from quart import websocket

from sandbox_actors.envelope import Json, as_line, members_of
from sandbox_actors.errors import as_refusal
from sandbox_supervisor import ActorError

from ..closing import close_socket
from ..problems import Problem, of_refusal
from ..sockets import GOING_AWAY, SESSION_DELETED, UNSUPPORTED_DATA
from .answers import permission_view, turn_view
from .bodies import AnswerBody, Id, Key
from .reader import Reader

if TYPE_CHECKING:
    from sandbox_actors.session import Session

    from ..streams import Streams
    from .doing import Doing
    from .selection import Selection

__all__ = ["converse"]


class _PromptFrame(msgspec.Struct, tag="prompt", tag_field="type", rename="camel"):
    content: Raw
    id: Raw | UnsetType = UNSET
    key: Key | None = None
    acp_session_id: Id | None = None


class _CancelFrame(msgspec.Struct, tag="cancel", tag_field="type", rename="camel"):
    id: Raw | UnsetType = UNSET
    turn_id: Id | None = None


class _PermissionFrame(msgspec.Struct, tag="permission", tag_field="type", rename="camel"):
    permission_id: Id
    id: Raw | UnsetType = UNSET
    option_id: str | None = None
    outcome: str | None = None
    action: str | None = None
    content: Raw | UnsetType = UNSET


class _PingFrame(msgspec.Struct, tag="ping", tag_field="type"):
    id: Raw | UnsetType = UNSET


_Frame: TypeAlias = _PromptFrame | _CancelFrame | _PermissionFrame | _PingFrame
_decoder: msgspec.json.Decoder[_Frame] = msgspec.json.Decoder(_Frame)


async def converse(
    session: Session, doing: Doing, selection: Selection, streams: Streams, epoch: str, generation: int | None
) -> None:
    """Serve one WebSocket until either side ends it.

    Args:
      generation: of the owner at the other end, where it has one; each frame that acts is checked for it.
    """
    await websocket.accept()  # pyright: ignore[reportUnknownMemberType]  # Quart's `headers: dict`
    conversation = _Conversation(session, doing, selection, Reader(selection, streams, epoch), generation)
    streams.add(selection.cursor)
    try:
        async with trio.open_nursery() as nursery:
            # Without a reader a disconnect goes unnoticed once some frames lie unread.
            nursery.start_soon(conversation.listen)
            await conversation.tell()
            nursery.cancel_scope.cancel()
        if conversation.refused_frame:
            await close_socket(UNSUPPORTED_DATA, "only text frames are taken")
        elif streams.draining:
            await close_socket(GOING_AWAY, "the daemon is shutting down")
        else:
            await close_socket(SESSION_DELETED, "the session was deleted")
    finally:
        streams.remove(selection.cursor)


class _Conversation:
    def __init__(
        self, session: Session, doing: Doing, selection: Selection, reader: Reader, generation: int | None
    ) -> None:
        self._generation = generation
        self._session = session
        self._doing = doing
        self._selection = selection
        self._reader = reader
        self._sending = trio.Lock()
        self.refused_frame = False

    async def tell(self) -> None:
        while frames := await self._reader.read():
            if self.refused_frame:
                return
            for frame in frames:
                await self._send(frame.text)
                # Hypercorn's send returns without a checkpoint once the peer is gone.
                await trio.lowlevel.checkpoint()

    async def listen(self) -> None:
        while True:
            frame: object = await websocket.receive()
            # Quart gives an empty binary frame as None.
            if not isinstance(frame, str):
                self.refused_frame = True
                self._selection.cursor.close()
                return
            await self._hear(as_line(frame.encode(errors="replace")))

    async def _send(self, text: bytes) -> None:
        async with self._sending:
            await websocket.send(text.decode())

    async def _hear(self, text: bytes) -> None:
        # The id first: also what makes no sense otherwise is answered under it.
        id = members_of(Raw(text)).get("id", Raw(b"null"))
        try:
            members = await self._done(_decoder.decode(text))
        except (msgspec.MsgspecError, RecursionError) as error:
            problem = Problem("invalid_request", f"the frame makes no sense: {error}")
        except ActorError as error:
            problem = of_refusal(as_refusal(error))
        else:
            await self._send(msgspec.json.encode({"type": "reply", "id": id, **members}))
            return
        await self._send(msgspec.json.encode({"type": "error", "id": id, "problem": problem.members}))

    async def _done(self, frame: _Frame) -> dict[str, Json]:
        """Do what a frame asks for; gives what there is to reply."""
        session, doing, generation = self._session, self._doing, self._generation
        match frame:
            case _PromptFrame():
                turn = await doing.prompt(session, frame.content, frame.key, frame.acp_session_id, generation)
                return _members(turn_view(turn))
            case _CancelFrame():
                return {"turnIds": await doing.cancel(session, frame.turn_id, generation)}
            case _PermissionFrame():
                answer = AnswerBody(frame.option_id, frame.outcome, frame.action, frame.content)
                settled = await doing.answer(session, frame.permission_id, answer, generation)
                return _members(permission_view(settled))
            case _PingFrame():
                return {"seq": self._selection.position}
            case _:
                assert_never(frame)


def _members(view: msgspec.Struct) -> dict[str, Json]:
    return dict(members_of(Raw(msgspec.json.encode(view))))
