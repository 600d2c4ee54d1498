"""One process of the sandbox."""

from __future__ import annotations

import signal as signals
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from .errors import Overloaded
from .process_log import ProcessLog, check_same, path_of
from .process_models import Exit, LogPage, ProcessInfo
from .terminals import Terminal, open_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .transport import Transport

__all__ = ["Process"]

INPUT_PIECE = 32 << 10
"""Bytes of one request: servers take 64 KiB, or what they were told to."""

READ_AGAIN = 0.2
"""Seconds until a process that does not read its input is asked again, where the server does not say."""

MARGIN = 30.0
"""Seconds that an answer may take beyond what was asked for."""


class Process:
    """A process that was started, as `Processes.start` and `Processes.get` give it.

    Methods raise `NotFound` once the server has forgotten it: after many others have exited, or since it was started
    anew. Then another process may have the number, and all but `write` make sure that it has not. Further `ApiError`s
    say what was wrong, and `ConnectionFailed` that it is not known what has happened.

    Attributes:
      info: as it was last told.
    """

    def __init__(self, transport: Transport, info: ProcessInfo) -> None:
        self.info = info
        self._transport = transport
        self._path = path_of(info.id)

    def __repr__(self) -> str:
        return f"Process({self.info.id!r}, {self.info.command!r}, {self.info.status!r})"

    @property
    def id(self) -> str:
        """Its number, as `proc_1`: in this life of the server."""
        return self.info.id

    async def refresh(self) -> ProcessInfo:
        """Have `info` told anew."""
        self.info = await check_same(self._transport, self.info)
        return self.info

    async def stop(self, *, wait: float = 2.0, kill_after: float | None = None) -> ProcessInfo:
        """SIGTERM to all that belongs to it; a shell at a terminal ignores that.

        Args:
          wait: seconds for its end. If it has not come by then, `info.status` still says `running`.
          kill_after: seconds after which it is killed; less than `wait`.
        """
        return await self._end("stop", wait, kill_after)

    async def kill(self, *, wait: float = 2.0) -> ProcessInfo:
        """SIGKILL to all that belongs to it."""
        return await self._end("kill", wait, None)

    async def signal(self, signal: signals.Signals | str) -> ProcessInfo:
        """One signal to its group, or to the job in the foreground of its terminal. Not repeated after a break."""
        await self.refresh()
        name = signal.name if isinstance(signal, signals.Signals) else signal
        self.info = await self._transport.ask(ProcessInfo, "POST", f"{self._path}/signal", json={"signal": name})
        return self.info

    async def write(self, data: bytes | str) -> None:
        """Give it input; waits while it does not read. Not repeated after a break.

        Raises:
          Overloaded: it does not read, for as long as requests are retried. What was passed on by then stays.
          Conflict: it has exited, or takes no input.
          StreamError: it has closed its input.
        """
        content = data.encode() if isinstance(data, str) else data
        for start in range(0, len(content), INPUT_PIECE):
            piece = b64encode(content[start : start + INPUT_PIECE]).decode()
            await self._give({"data": piece, "encoding": "base64"})

    async def close_stdin(self) -> None:
        """Its input ends, behind what was written; at a terminal, as by Ctrl-D. Raises as `write`."""
        await self._give({"eof": True})

    async def logs(self, *, stream: str | None = None, tail: int | None = None, since: int | None = None) -> LogPage:
        """Its output, as far as it is kept.

        Args:
          stream: `stdout`, `stderr` or `combined`, or `pty`; else all of it.
          tail: the last so many entries.
          since: those behind this number.
        """
        await self.refresh()
        params = {"stream": stream, "tail": tail, "since": since}
        return await self._transport.ask(LogPage, "GET", f"{self._path}/logs", params=params)

    def follow(self, *, stream: str | None = None, tail: int | None = None, since: int | None = None) -> ProcessLog:
        """Its output, what there is and what comes, until it has exited. After a break it goes on where it was.

            async with process.follow() as log:
                async for entry in log: print(entry.data)
            print(log.exit)

        Args:
          stream, tail, since: as of `logs`.
        """
        return ProcessLog(self._transport, self.info, {"stream": stream, "tail": tail, "since": since})

    async def wait(self) -> Exit:
        """Wait until it has exited, however long that takes."""
        # Of the stream that it has not: nothing but the end is told.
        async with self.follow(stream="stdout" if self.info.tty else "pty", tail=0) as log:
            async for _ in log:
                continue
        assert log.exit is not None, "the log ends with it"
        return log.exit

    @asynccontextmanager
    async def terminal(self) -> AsyncGenerator[Terminal]:
        """View its terminal: first what is kept of the past, then what comes. See `Terminal`.

        After a break, enter it again: the terminal is told anew from the past, as to any other viewer.

        Raises:
          Conflict: it has none, or too many viewers.
        """
        await self.refresh()
        async with open_terminal(self._transport, self.info.id) as terminal:
            yield terminal

    async def resize(self, rows: int, cols: int) -> None:
        """Give its terminal another size."""
        await self.refresh()
        told = {"rows": rows, "cols": cols}
        await self._transport.request("POST", f"{self._path}/terminal/resize", json=told, retry=True)

    async def delete(self) -> None:
        """Have the server forget it. Not repeated after a break.

        Raises:
          Conflict: it still runs.
        """
        await self.refresh()
        await self._transport.request("DELETE", self._path, retry=False)

    async def _end(self, word: str, wait: float, kill_after: float | None) -> ProcessInfo:
        await self.refresh()
        self.info = await self._transport.ask(
            ProcessInfo,
            "POST",
            f"{self._path}/{word}",
            params={
                "waitMs": round(wait * 1000),
                "killAfterMs": None if kill_after is None else round(kill_after * 1000),
            },
            silence=wait + MARGIN,
        )
        return self.info

    async def _give(self, told: dict[str, object]) -> None:
        deadline = anyio.current_time() + self._transport.timeouts.retry_within
        while True:
            try:
                await self._transport.request("POST", f"{self._path}/input", json=told)
            except Overloaded as error:  # nothing of it was taken
                pause = error.retry_after or READ_AGAIN
                if anyio.current_time() + pause > deadline:
                    raise
                await anyio.sleep(pause)
            else:
                return
