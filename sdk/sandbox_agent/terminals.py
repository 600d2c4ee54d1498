"""A terminal of the sandbox, as one viewer has it.

Nothing is gathered for a viewer that does not read: the server holds what is to come, up to a limit, and tells by how
much the viewer was late. So a slow reader here holds up nobody, and takes the memory of one frame.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx_ws
import msgspec
from wsproto.events import BytesMessage, TextMessage
from wsproto.utilities import LocalProtocolError

from .errors import ConnectionFailed
from .process_log import path_of
from .process_models import Exit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wsproto.events import Event

    from .transport import Transport

__all__ = ["Terminal", "open_terminal"]

INPUT_PIECE = 32 << 10
"""Bytes of one frame: servers take 64 KiB, or what they were told to."""


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    """A text frame of the server."""

    type: str
    bytes: int = 0
    message: str = ""


class Terminal:
    """An async iterator over what the terminal shows, in bytes, until the program has exited.

        async with process.terminal() as terminal:
            await terminal.write("ls\\n")
            async for shown in terminal: ...
        print(terminal.exit_code)

    One task may read while others write. A program in the usual mode of terminals takes lines of up to 4,096 bytes.

    Attributes:
      skipped: bytes that were dropped before this viewer came to them.
      refused: why the server has not taken the last thing that it has not taken, such as input while another viewer has
        taken the terminal over; None: it has taken all.
      exit: how the program ended, once the iteration has.
    """

    def __init__(self, socket: httpx_ws.AsyncWebSocketSession) -> None:
        self.skipped = 0
        self.refused: str | None = None
        self.exit: Exit | None = None
        self._socket = socket
        self._broken: str | None = None

    @property
    def exit_code(self) -> int | None:
        """Of the program; None while it runs, and where a signal has ended it."""
        return None if self.exit is None else self.exit.exit_code

    def __aiter__(self) -> Terminal:
        return self

    async def __anext__(self) -> bytes:
        """What it shows next.

        Raises:
          ConnectionFailed: the connection broke, the server goes, or another task has left the block. View the terminal
            again.
        """
        while self.exit is None:
            match await self._receive():
                case BytesMessage(data=shown):
                    return bytes(shown)
                case TextMessage(data=text):
                    self._hear(text)
                case _:
                    continue
        raise StopAsyncIteration

    async def write(self, data: bytes | str) -> None:
        """Type. What a program does not read is not kept for ever: see `refused`, and `Process.write`, which waits.

        Raises:
          ConnectionFailed.
        """
        content = data.encode() if isinstance(data, str) else data
        for start in range(0, len(content), INPUT_PIECE):
            piece = b64encode(content[start : start + INPUT_PIECE]).decode()
            await self._send({"type": "input", "data": piece, "encoding": "base64"})

    async def resize(self, rows: int, cols: int) -> None:
        """Give it another size. Raises `ConnectionFailed`."""
        await self._send({"type": "resize", "rows": rows, "cols": cols})

    async def take_over(self) -> None:
        """From now on only this viewer may write and resize. Raises `ConnectionFailed`."""
        await self._send({"type": "takeover"})

    async def release(self) -> None:
        """All may again. Raises `ConnectionFailed`."""
        await self._send({"type": "release"})

    async def _receive(self) -> Event:
        # After its one error the socket would be silent for ever.
        if self._broken is not None:
            raise ConnectionFailed(self._broken)
        try:
            return await self._socket.receive()
        except httpx_ws.WebSocketDisconnect as error:
            self._broken = f"the server has closed the connection to the terminal ({error.code})"
        except httpx_ws.HTTPXWSException as error:
            self._broken = f"the connection to the terminal broke ({type(error).__name__})"
        except anyio.ClosedResourceError:
            self._broken = "the terminal was left"
        raise ConnectionFailed(self._broken)

    def _hear(self, text: str) -> None:
        told = msgspec.json.decode(text, type=_Told)
        match told.type:
            case "skipped":
                self.skipped += told.bytes
            case "error":
                self.refused = told.message
            case "exit":
                self.exit = msgspec.json.decode(text, type=Exit)
            case _:
                return

    async def _send(self, frame: dict[str, object]) -> None:
        # Half a frame would be the end of the connection, so what is begun is sent whole; that takes no longer than the
        # transport lets a write take.
        with anyio.CancelScope(shield=True):
            try:
                await self._socket.send_text(msgspec.json.encode(frame).decode())
            except (httpx_ws.HTTPXWSException, LocalProtocolError) as error:
                raise ConnectionFailed(f"the connection to the terminal broke ({type(error).__name__})") from None


@asynccontextmanager
async def open_terminal(transport: Transport, id: str) -> AsyncGenerator[Terminal]:
    """The terminal of a process. Raises as `Process.terminal`."""
    async with transport.websocket(f"{path_of(id)}/terminal/ws") as socket:
        yield Terminal(socket)
