"""The terminals of an agent: commands that it has its client run (ACP protocol version 1, Terminals).

Each is a process like those that clients start: listed with them, held to their limits, ended as a whole tree. Its id
is the process's. An incarnation's terminals end with it, and a released one is forgotten.
"""

from __future__ import annotations

import codecs
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from ..processes import ProcessNotFound, Spec
from .errors import INVALID_PARAMS, RESOURCE_NOT_FOUND, ServiceError

if TYPE_CHECKING:
    from ..envelope import Json
    from ..processes import Process, Processes

__all__ = ["CreateTerminal", "OneTerminal", "Terminals"]

KILLED_WITHIN = 5.0
"""Seconds that a kill waits for the end at most, and from SIGTERM to SIGKILL:"""
KILL_AFTER = 2.0

ENDED_WITHIN = 2.0
"""Seconds for what is left when its agent is gone: all of it gets SIGKILL at once."""

WORD = re.compile(r"[^\s;&|<>()$`\\\"'*?\[\]#~=%!{}]+")
"""A command that needs no shell to be understood."""


class _Variable(msgspec.Struct):
    name: str
    value: str


class CreateTerminal(msgspec.Struct, rename="camel"):
    """The params of `terminal/create`."""

    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    cwd: str | None = None
    output_byte_limit: int | None = None


class OneTerminal(msgspec.Struct, rename="camel"):
    """The params of all that is asked about one."""

    terminal_id: str


@dataclass(frozen=True, slots=True, eq=False)
class _Terminal:
    process: Process
    limit: int | None


class Terminals:
    """The terminals of one incarnation."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._terminals: dict[str, _Terminal] = {}

    @property
    def any_running(self) -> bool:
        return not all(_ended(terminal) for terminal in self._terminals.values())

    async def create(self, asked: CreateTerminal, cwd: str | None) -> dict[str, Json]:
        """Start a command.

        Args:
          cwd: where it is started unless the agent says so.

        Raises:
          ServiceError, and what `Processes.create` refuses.
        """
        if asked.cwd is not None and not asked.cwd.startswith("/"):
            raise ServiceError(INVALID_PARAMS, f"cwd must be absolute: {asked.cwd}")
        command, args = asked.command, tuple(asked.args or ())
        if not args and command.strip() and WORD.fullmatch(command.strip()) is None:
            # Most agents give a whole command line, as their own tool has it.
            command, args = "/bin/sh", ("-c", command)
        process = await self._processes.create(
            Spec(
                command,
                args,
                cwd=asked.cwd or cwd,
                env={variable.name: variable.value for variable in asked.env or ()},
                stdin=b"",
                merged=True,
            )
        )
        self._terminals[process.id] = _Terminal(process, asked.output_byte_limit)
        return {"terminalId": process.id}

    def output(self, id: str) -> dict[str, Json]:
        """What it has written, the latest of it."""
        terminal = self._get(id)
        entries = terminal.process.log.after(0)
        data = b"".join(entry.data for entry in entries)
        cut = bool(entries) and entries[0].position > 0
        if terminal.limit is not None and len(data) > terminal.limit:
            data, cut = data[len(data) - terminal.limit :], True
        answer: dict[str, Json] = {"output": _text(data, cut=cut, ended=_ended(terminal)), "truncated": cut}
        if _ended(terminal):
            answer["exitStatus"] = _status(terminal)
        return answer

    async def wait_for_exit(self, id: str) -> dict[str, Json]:
        terminal = self._get(id)
        await terminal.process.exited.wait()
        return _status(terminal)

    async def kill(self, id: str) -> dict[str, Json]:
        """End its tree. What it has written can still be read."""
        await self._get(id).process.stop(signal.SIGTERM, KILLED_WITHIN, KILL_AFTER)
        return {}

    async def release(self, id: str) -> dict[str, Json]:
        """End it, and forget it."""
        terminal = self._get(id)
        del self._terminals[id]
        try:
            await terminal.process.stop(signal.SIGTERM, KILLED_WITHIN, KILL_AFTER)
        finally:
            with trio.CancelScope(shield=True):
                await self._end(terminal)
        return {}

    async def end(self) -> None:
        """The agent is gone: end all of them."""
        terminals, self._terminals = self._terminals, {}
        async with trio.open_nursery() as nursery:
            for terminal in terminals.values():
                nursery.start_soon(self._end, terminal)

    async def _end(self, terminal: _Terminal) -> None:
        await terminal.process.stop(signal.SIGKILL, ENDED_WITHIN)
        if _ended(terminal):
            with suppress(ProcessNotFound):  # there were too many that had exited
                self._processes.delete(terminal.process.id)

    def _get(self, id: str) -> _Terminal:
        try:
            return self._terminals[id]
        except KeyError:
            raise ServiceError(RESOURCE_NOT_FOUND, f"Resource not found: terminal {id}") from None


def _ended(terminal: _Terminal) -> bool:
    return terminal.process.exited.is_set()


def _status(terminal: _Terminal) -> dict[str, Json]:
    status = terminal.process.status
    number = None if status is None else status.signal
    name = None if number is None else _signal_name(number)
    return {"exitCode": None if status is None else status.code, "signal": name}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # real-time ones have no name


def _text(data: bytes, *, cut: bool, ended: bool) -> str:
    """The output as text, with what is no UTF-8 replaced; a character that was cut in two is left out."""
    if cut:
        # At most three bytes at the begin can be the rest of a character (RFC 3629).
        rest = next((at for at, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
        data = data[rest:]
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=ended)
