"""A person at a terminal: what a viewer's emulated screen shows, and the keys that it types."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pyte
import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from trio_websocket import WebSocketConnection

    from .daemon import Daemon

__all__ = ["Viewer", "viewing"]

LARGEST_FRAME = 16 << 20  # the whole of what was kept may come at once


class _Screen(pyte.Screen):
    """As `pyte` has it, which does not know that `m` has a private form (an editor asks with it for a key mode)."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class Viewer:
    """One connection to a terminal.

    Attributes:
      screen: what is on it.
      frames: the text frames that have come, in order.
      closed: set once the connection is.
    """

    def __init__(self, socket: WebSocketConnection, cols: int, rows: int) -> None:
        self.screen = _Screen(cols, rows)
        self.frames: list[dict[str, Any]] = []
        self.closed = trio.Event()
        self._emulator = pyte.ByteStream(self.screen)
        self._socket = socket
        self._news = trio.Event()

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, from its top to its last line with anything on it."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n").split("\n")

    @property
    def cursor(self) -> tuple[int, int]:
        """The column and the row, from 0."""
        return self.screen.cursor.x, self.screen.cursor.y

    @property
    def exit_code(self) -> int | None:
        """As the last frame told it."""
        assert self.frames[-1]["type"] == "exit", self.frames
        code: int | None = self.frames[-1]["exitCode"]
        return code

    async def type(self, keys: str) -> None:
        await self._send(type="input", data=keys)

    async def resize(self, cols: int, rows: int) -> None:
        """Give the terminal another size, and the screen with it, as a terminal program does."""
        self.screen.resize(rows, cols)
        await self._send(type="resize", cols=cols, rows=rows)

    async def until(self, shown: Callable[[list[str]], object]) -> None:
        """Wait until the screen shows something. The caller brings the deadline."""
        while not shown(self.lines):
            assert not self.closed.is_set(), "\n".join(self.lines)
            try:
                await self._news.wait()
            except trio.Cancelled:
                print("the screen at the deadline:", *self.lines, self.cursor, self.frames, sep="\n")
                raise

    async def until_line(self, line: str, at: int | None = None) -> None:
        """Wait until this is a whole line, or the one at this place."""
        await self.until(lambda lines: line in (lines if at is None else lines[at : at + 1]))

    async def listen(self) -> None:
        try:
            while True:
                message = await self._socket.get_message()
                if isinstance(message, bytes):
                    self._emulator.feed(message)
                else:
                    self.frames.append(json.loads(message))
                self._wake()
        except ConnectionClosed:
            self.closed.set()
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _send(self, **frame: object) -> None:
        await self._socket.send_message(json.dumps(frame))


@asynccontextmanager
async def viewing(daemon: Daemon, terminal: str, cols: int = 80, rows: int = 24) -> AsyncGenerator[Viewer]:
    """A viewer of a terminal; at the end of the block its connection is closed, and the terminal lives on."""
    headers = [(name.encode(), value.encode()) for name, value in daemon.headers.items()]
    stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
    async with stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
            nursery,
            stream,
            f"127.0.0.1:{daemon.port}",
            f"/v1/processes/{terminal}/terminal/ws",
            extra_headers=headers,
            max_message_size=LARGEST_FRAME,
        )
        viewer = Viewer(socket, cols, rows)
        nursery.start_soon(viewer.listen)
        yield viewer
        await socket.aclose()
        nursery.cancel_scope.cancel()
