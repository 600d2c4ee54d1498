"""The WebSocket of a terminal: its screen down, keys and sizes up. A terminal outlives every one of them.

Down, as the public wire has it: a `ready` frame, then binary frames with what the terminal shows, and at its end an
`exit` frame. A viewer that comes late first gets what was kept of the past, so its screen becomes the others'. One
that is slow lags behind on its own; what was dropped before it came to it is told by a `skipped` frame. What a client
has done wrong is told by an `error` frame, and the connection stays.

Up: `input`, `resize`, `close`. All viewers may write, until one says `takeover`; it says `release`, or leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio
from quart import Blueprint, websocket
from wsproto.frame_protocol import CloseReason

from sandbox_actors.errors import as_refusal
from sandbox_actors.processes import Gap, Size
from sandbox_supervisor import ActorError

from .closing import close_socket
from .problems import HttpError, Problem, of_refusal
from .process_answers import exit_members
from .process_bodies import Short, input_bytes
from .requests import path_part

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json
    from sandbox_actors.processes import Process, Processes, Viewer

    from .streams import Streams

__all__ = ["terminal_routes"]

T = TypeVar("T")

TYPES = ("input", "resize", "close", "takeover", "release")
"""Of the frames that clients send."""


class _BadFrame(HttpError):
    """What a client has sent says nothing. The message is told to it as it is."""


class _Frame(msgspec.Struct):
    type: str


class _InputFrame(msgspec.Struct):
    data: str
    encoding: str = "text"


class _ResizeFrame(msgspec.Struct):
    cols: Short
    rows: Short


def terminal_routes(processes: Processes, streams: Streams) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("terminals", __name__)

    @routes.websocket("/v1/processes/<process_id>/terminal/ws")
    async def socket(process_id: str) -> None:
        process = processes.get(path_part(process_id, "id"))
        if process.spec.tty is None:
            raise Problem("conflict", "process is not running in tty mode")
        viewer = process.viewers.enter()
        try:
            await _Conversation(process, viewer, processes).hold(streams)
        finally:
            process.viewers.leave(viewer)

    return routes


class _Conversation:
    """One viewer's connection, from its acceptance to its end."""

    def __init__(self, process: Process, viewer: Viewer, processes: Processes) -> None:
        self._process = process
        self._viewer = viewer
        self._processes = processes
        self._sending = trio.Lock()

    async def hold(self, streams: Streams) -> None:
        await websocket.accept()  # pyright: ignore[reportUnknownMemberType]  # Quart's `headers: dict`
        async with trio.open_nursery() as nursery:
            # Without a reader a disconnect goes unnoticed once some frames lie unread.
            nursery.start_soon(self._listen, nursery.cancel_scope)
            await self._show()
            nursery.cancel_scope.cancel()
        await close_socket(CloseReason.GOING_AWAY if streams.draining else CloseReason.NO_STATUS_RCVD)

    async def _show(self) -> None:
        await self._tell({"processId": self._process.id, "type": "ready"})
        cursor = self._process.log.tail(self._processes.config.terminal_scrollback_bytes)
        # Where the past was cut, the first line is not whole, and perhaps begins within a character or a control
        # sequence.
        cut = cursor.position > 0
        async for read in cursor:
            if isinstance(read, Gap):
                await self._tell({"type": "skipped", "bytes": read.bytes})
                continue
            data = b"".join([entry.data for entry in read])
            if cut:
                cut = False
                data = data[data.find(b"\n") + 1 :]
            async with self._sending:
                await websocket.send(data)
        await self._tell({**exit_members(self._process), "type": "exit"})

    async def _tell(self, members: Json) -> None:
        async with self._sending:
            await websocket.send(msgspec.json.encode(members).decode())

    async def _listen(self, connection: trio.CancelScope) -> None:
        while True:
            frame: object = await websocket.receive()
            try:
                if not isinstance(frame, str):
                    raise _BadFrame("binary input is not supported; use text JSON frames")
                if not await self._hear(frame.encode(errors="surrogatepass")):
                    connection.cancel()
                    return
            except _BadFrame as error:
                await self._tell({"message": str(error), "type": "error"})
            except Problem as problem:
                await self._tell({"message": problem.members["detail"], "type": "error"})
            except ActorError as error:
                await self._tell({"message": of_refusal(as_refusal(error)).members["detail"], "type": "error"})

    async def _hear(self, frame: bytes) -> bool:
        """Do as a frame says; tell whether the connection goes on.

        Raises:
          _BadFrame, Problem, ActorError: it says nothing, makes no sense, cannot be done.
        """
        match _decoded(frame, _Frame).type:
            case "input":
                asked = _decoded(frame, _InputFrame)
                self._check_writer()
                data = input_bytes(asked.data, asked.encoding)
                largest = self._processes.config.max_input_bytes_per_request
                if len(data) > largest:
                    raise _BadFrame(f"input payload exceeds maxInputBytesPerRequest ({largest})")
                await self._process.write(data)
            case "resize":
                wanted = _decoded(frame, _ResizeFrame)
                self._check_writer()
                await self._process.resize(Size(rows=wanted.rows, cols=wanted.cols).checked())
            case "takeover":
                self._process.viewers.take_over(self._viewer)
            case "release":
                self._process.viewers.release(self._viewer)
            case "close":
                return False
            case other:
                known = ", ".join(f"`{one}`" for one in TYPES)
                raise _BadFrame(f"invalid terminal frame: unknown variant `{other}`, expected one of {known}")
        return True

    def _check_writer(self) -> None:
        if not self._process.viewers.may_write(self._viewer):
            raise Problem("conflict", "another viewer has taken the terminal over; send a takeover frame to do so")


def _decoded(frame: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(frame, type=shape)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _BadFrame(f"invalid terminal frame: {error}") from None
