"""The output of a process as it comes, over as many connections as it takes.

Numbers of processes begin anew when a server does, and none outlives it. So it is not enough that there is a process of
this number: it must be the same one, made in the same moment. That is looked up before each connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from .errors import NotFound
from .following import Following
from .process_models import Exit, LogEntry, LogGap, ProcessInfo

if TYPE_CHECKING:
    from .incoming import Incoming
    from .transport import Params, Transport

__all__ = ["ProcessLog", "check_same", "path_of"]


class ProcessLog:
    """An async iterator over `LogEntry`, to be used as an async context manager, too. See `Process.follow`.

    Attributes:
      missed: entries that were dropped before we came to them.
      exit: how the process ended, once the iteration has.
    """

    def __init__(self, transport: Transport, process: ProcessInfo, params: Params) -> None:
        self.missed = 0
        self.exit: Exit | None = None
        self._frames = _Connections(transport, process, params)

    async def __aenter__(self) -> ProcessLog:
        await self._frames.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._frames.__aexit__(*exc_info)

    def __aiter__(self) -> ProcessLog:
        return self

    async def __anext__(self) -> LogEntry:
        while self.exit is None:
            frame = await anext(self._frames)
            if not frame.data:
                continue
            match frame.event:
                case "log":
                    return msgspec.json.decode(frame.data, type=LogEntry)
                case "gap":
                    gap = msgspec.json.decode(frame.data, type=LogGap)
                    self.missed += gap.last - gap.first + 1
                case "exit":
                    self.exit = msgspec.json.decode(frame.data, type=Exit)
                case _:
                    continue
        raise StopAsyncIteration


class _Connections(Following):
    def __init__(self, transport: Transport, process: ProcessInfo, params: Params) -> None:
        where = f"{path_of(process.id)}/logs", {**params, "follow": True}
        super().__init__(transport, lambda: where)
        self._process = process

    async def _open(self) -> Incoming:
        await check_same(self._transport, self._process)
        return await super()._open()


async def check_same(transport: Transport, process: ProcessInfo) -> ProcessInfo:
    """The process as it is now.

    Raises:
      NotFound: it is gone, also where another one has its number.
    """
    told = await transport.ask(ProcessInfo, "GET", path_of(process.id))
    if told.created_at_ms != process.created_at_ms:
        detail = f"the server was started anew, and {process.id} is another process now"
        raise NotFound(404, {"title": "Not Found", "status": 404, "detail": detail})
    return told


def path_of(id: str) -> str:
    """Where a process is."""
    return f"/v1/processes/{quote(id, safe='')}"
